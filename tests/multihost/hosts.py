"""Hosts of their own on one machine: namespaces with a cable each to a switch, which nothing leaves.

A host has its own network, processes, host name, /dev/shm, /tmp and home; the rest of the disk is this
machine's. /tmp/shared is the same folder on all of them. What is done to one (cables, firewalls, other
files) is done with iproute2 and bind mounts, and goes with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psutil

from tests.multihost.spaces import Space

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path("/tmp/shared")  # on each host
HOME = "/tmp/home"
CLOCK = "clock"  # in /tmp of a host whose clock is wrong
NETWORK = "10.77.0"
NOBODY = f"{NETWORK}.254"  # whose frames no network card takes
MAC_OF_NOBODY = "02:00:00:00:00:99"
DROPPED = 100  # the routing table of what a firewall drops

SKEWED = """\
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {skew_s!r}
time.time_ns = lambda: _time_ns() + {skew_ns!r}
"""


def address(host: int) -> str:
    """The address of host 1, 2, ..."""
    return f"{NETWORK}.{host}"


class Hosts:
    """A context: `count` hosts and a switch, of which nothing is left when it ends."""

    def __init__(self, count: int, *, shared: Path | None = None, folder: Path | None = None) -> None:
        """shared: a folder of this machine that all see as /tmp/shared; None: one that goes with them.

        folder: where the hosts' files lie, which outlive this process; None: a new one, and they do not.
        """
        self.count = count
        self._shared = shared
        self._outlive = folder is not None
        self._folder = folder

    @classmethod
    def at(cls, folder: Path) -> Hosts:
        """Those that `up` has made in `folder`. Raises FileNotFoundError if there are none."""
        if not (folder / "switch.json").is_file():
            raise FileNotFoundError(f"{folder}: no hosts are up here")
        return cls(len([*folder.glob("[0-9]*.json")]), folder=folder)

    def __enter__(self) -> Hosts:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def folder(self) -> Path:
        assert self._folder is not None, "up comes first"
        return self._folder

    def up(self) -> None:
        """Start all of them."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            switch = Space.start(outlives=self._outlive)
            switch.write(self.folder / "switch.json")
            switch.run("ip link add br0 type bridge; ip link set br0 up")
            for host in self.all:
                self.power_on(host)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End all that runs on them, and remove their files."""
        for path in self.folder.glob("*.json"):
            Space.read(path).end()
        shutil.rmtree(self.folder)

    @property
    def all(self) -> range:
        return range(1, self.count + 1)

    def space(self, host: int | str) -> Space:
        """The namespaces of a host, or of "switch"."""
        return Space.read(self.folder / f"{host}.json")

    def disk(self, host: int) -> Path:
        """The folder of this machine that is /tmp of `host`."""
        return self.folder / str(host) / "tmp"

    def power_on(self, host: int) -> None:
        """Start a host, which finds what it has left in /tmp before."""
        space = Space.start(outlives=self._outlive)
        space.write(self.folder / f"{host}.json")
        # By this machine's process numbers, which the switch does not know.
        peer = f"type veth peer name eth0 netns {space.init}"
        self.space("switch").run(f"ip link add port{host} {peer}", only_network=True)
        self.space("switch").run(f"ip link set port{host} master br0 up")
        space.run(
            f"hostname node{host}; ip link set lo up; ip addr add {address(host)}/24 dev eth0;"
            "ip link set eth0 up"
        )
        self._mount(host, space)

    def _mount(self, host: int, space: Space) -> None:
        disk, shared = self.disk(host), self._shared or self.folder / "shared"
        home = disk / Path(HOME).relative_to("/tmp")
        (home / ".ray").mkdir(mode=0o700, parents=True, exist_ok=True)
        shared.mkdir(exist_ok=True)
        names = "".join(f"{address(other)} node{other}\n" for other in self.all)
        (disk.parent / "hosts").write_text(f"127.0.0.1 localhost\n{names}", encoding="utf-8")
        seen = {disk / SHARED.relative_to("/tmp"): shared}
        for needed in (ROOT, Path(sys.prefix), Path(sys.base_prefix)):
            if needed.is_relative_to("/tmp"):  # which the host does not see otherwise
                seen[disk / needed.relative_to("/tmp")] = needed
        for place in seen:
            place.mkdir(parents=True, exist_ok=True)
        disk.chmod(0o1777)
        binds = [f"mount --bind '{source}' '{place}'" for place, source in seen.items()]
        binds += [f"mount --bind '{disk.parent}/hosts' /etc/hosts", "mount -t tmpfs tmpfs /dev/shm"]
        space.run("; ".join([*binds, f"mount --rbind '{disk}' /tmp"]))

    def power_off(self, host: int) -> None:
        """End all of a host at once; nobody hears of it, for its cable is out before."""
        self.cable(host, plugged=False)
        self.space(host).end()
        self.space("switch").run(f"ip link del port{host} 2>/dev/null || true")

    def cable(self, host: int, *, plugged: bool) -> None:
        """Plug or pull the cable of a host, at the switch."""
        self.space("switch").run(f"ip link set port{host} {'up' if plugged else 'down'}")

    def rate(self, host: int, mbit: float | None) -> None:
        """Limit the cable of a host to `mbit` Mbit/s each way; None: no limit."""
        for space, device in ((self.space("switch"), f"port{host}"), (self.space(host), "eth0")):
            space.run(f"tc qdisc del dev {device} root 2>/dev/null || true")
            if mbit is not None:
                space.run(f"tc qdisc add dev {device} root tbf rate {mbit}mbit burst 64kb latency 200ms")

    def firewall(self, host: int, ports: tuple[int, int], *, closed: bool = True) -> None:
        """Drop, without an answer, what other hosts send to TCP ports of `host`; closed=False: no longer.

        Each of the others sends it to a network card that is not there, so it waits as before a firewall.
        """
        rule = f"to {address(host)} ipproto tcp dport {ports[0]}-{ports[1]} lookup {DROPPED}"
        for other in set(self.all) - {host}:
            if closed:
                self.space(other).run(
                    f"ip neigh replace {NOBODY} lladdr {MAC_OF_NOBODY} dev eth0 nud permanent;"
                    f"ip route replace default via {NOBODY} dev eth0 table {DROPPED}; ip rule add {rule}"
                )
            else:
                self.space(other).run(f"ip rule del {rule}")

    def skew_clock(self, host: int, skew_s: float) -> None:
        """Put the UNIX time of Pythons that start on `host` from now on forward by `skew_s`."""
        text = SKEWED.format(skew_s=skew_s, skew_ns=round(skew_s * 1e9))
        folder = self.disk(host) / CLOCK
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(text, encoding="utf-8")

    def replace(self, host: int, path: Path, by: Path) -> None:
        """Let `host` alone see a copy of `by`, a file or a folder, at `path`, which is there."""
        own = self.disk(host) / f"own-{secrets.token_hex(4)}"
        if by.is_dir():
            shutil.copytree(by, own)
        else:
            shutil.copyfile(by, own)
        self.space(host).run(f"mount --bind '/tmp/{own.name}' '{path}'")

    @contextmanager
    def replaced(self, host: int, path: Path, by: Path) -> Iterator[None]:
        """As `replace`, as long as the context lasts."""
        self.replace(host, path, by)
        try:
            yield
        finally:
            self.space(host).run(f"umount --lazy '{path}'")

    def environment(self, host: int) -> dict[str, str]:
        """Of a user's shell on `host`, with this Python's commands."""
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "PYTEST_", "RLSTACK_")) and name not in ("TMPDIR", "PYTHONPATH")
        }
        own["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        own["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        own |= {"HOME": HOME, "RAY_USAGE_STATS_ENABLED": "0"}
        if (self.disk(host) / CLOCK).is_dir():
            own["PYTHONPATH"] = f"/tmp/{CLOCK}"
        return own

    def start(
        self,
        host: int,
        command: str | Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> subprocess.Popen[bytes]:
        """Start `command` (a text: of bash) on `host`; `log` of this machine gets its output.

        Its signals are sent with `send_signal` of this module.
        """
        words = ["bash", "-ec", command] if isinstance(command, str) else command
        with log.open("ab") as file:
            return subprocess.Popen(
                self.space(host).entering(words, folder=folder),
                env={**self.environment(host), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def on(
        self,
        host: int,
        command: str | Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        timeout_s: float = 300.0,
    ) -> tuple[int, str]:
        """Exit status and output of `command` on `host`. Raises subprocess.TimeoutExpired after its end."""
        with tempfile.TemporaryDirectory() as place:
            log = Path(place) / "output"
            process = self.start(host, command, log=log, env=env, folder=folder)
            try:
                status = process.wait(timeout_s)
            finally:
                end(process)
            return status, log.read_text(encoding="utf-8", errors="replace")


def send_signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to what `Hosts.start` has started: its process is nsenter's, which hands none on."""
    for child in psutil.Process(process.pid).children():
        child.send_signal(number)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what `Hosts.start` has started, with all below it, if it has not ended."""
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        process.kill()
        process.wait()
