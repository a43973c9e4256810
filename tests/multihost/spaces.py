"""A host without hardware: network, process, mount, IPC and host-name namespaces, held by one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

TOOLS = ("unshare", "nsenter", "setpriv", "ip", "tc", "mount")
NAMESPACES = ("--net", "--uts", "--mount", "--ipc", "--pid")
# The first process of a namespace inherits what loses its parent, as init does: what has ended goes at once.
INIT = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
START_S = 10.0
END_S = 20.0
SAME_S = 1.0  # by which a process's beginning may differ when it is read again


def missing() -> str | None:
    """The reason why this process can make no namespaces; None if it can."""
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"hosts need {', '.join(absent)} (iproute2, util-linux)"
    if os.geteuid() != 0:
        return "hosts of namespaces need root"
    links = "ip link add br0 type bridge; ip link add port1 type veth peer name eth1"
    script = f"{links}; mount -t tmpfs tmpfs /dev/shm"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-ec", script],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"no rights to make namespaces: {tried.stderr.strip()}"


@dataclass(frozen=True)
class Space:
    """Namespaces; they go with the processes in them, and so do links and mounts that were made inside."""

    outer: int  # the process that has started the init
    init: int
    began: float  # of the init, in s of UNIX time: numbers of processes come again

    @classmethod
    def start(cls, *, outlives: bool) -> Space:
        """Namespaces of their own; outlives: they stay when this process ends, whatever way it does."""
        bound = [] if outlives else ["setpriv", "--pdeathsig", "KILL"]
        outer = subprocess.Popen(
            [
                *(*bound, "unshare", *NAMESPACES, "--fork", "--mount-proc", "--kill-child"),
                *(sys.executable, "-I", "-S", "-c", INIT),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_S
        while True:
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
            if outer.poll() is None and (found := children.read_text().split()):
                init = psutil.Process(int(found[0]))
                if init.name() != "unshare":
                    return cls(outer.pid, init.pid, init.create_time())
            if outer.poll() is not None or time.monotonic() > deadline:
                outer.kill()
                raise RuntimeError("unshare makes no namespaces")
            time.sleep(0.02)

    @classmethod
    def read(cls, path: Path) -> Space:
        """The one that `write` has noted."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self)) + "\n", encoding="utf-8")

    @property
    def is_there(self) -> bool:
        return self._process() is not None

    def entering(
        self, command: Sequence[str | Path], *, folder: Path = Path("/"), only_network: bool = False
    ) -> list[str]:
        """The command that runs `command` in a folder inside.

        only_network: with this machine's files and processes.
        """
        where = ["--net"] if only_network else [*NAMESPACES, f"--wdns={folder}"]
        return ["nsenter", f"--target={self.init}", *where, "--", *map(str, command)]

    def run(self, script: str, *, only_network: bool = False) -> str:
        """The output of a script of sh inside, which has to succeed.

        Raises RuntimeError with the script and its errors if it does not.
        """
        command = self.entering(["sh", "-ec", script], only_network=only_network)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(f"{script}\n{done.stderr.strip()}")
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """All processes inside but the init."""
        own = os.stat(f"/proc/{self.init}/ns/pid").st_ino
        return [p for p in psutil.process_iter() if p.pid != self.init and _namespace(p.pid) == own]

    def end(self) -> None:
        """Kill all processes inside, and return when none is left; the namespaces go with them.

        Raises RuntimeError if one is.
        """
        if (init := self._process()) is not None:
            init.send_signal(signal.SIGKILL)  # the kernel kills the rest with it
            if psutil.wait_procs([init], timeout=END_S)[1]:
                raise RuntimeError(f"process {self.init}, which holds a host, does not end")
        with_parent = psutil.Process().children()
        psutil.wait_procs([p for p in with_parent if p.pid == self.outer], timeout=END_S)

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.init)
            is_own = abs(process.create_time() - self.began) < SAME_S
            is_own = is_own and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if is_own else None


def _namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None
