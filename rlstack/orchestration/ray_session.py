"""The Ray that a run uses: its own, which ends with it, or one that it joins."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import worker
from ray.job_config import JobConfig

from rlstack.config.machine import Machine
from rlstack.config.ray_token import MODE, TOKEN, TOKEN_PATH, mode_problem
from rlstack.config.schema import Cluster
from rlstack.config.surroundings import RAY_FOLDER, temporary_folder
from rlstack.errors import ConfigError
from rlstack.files import private_folder
from rlstack.orchestration.join_ray import join
from rlstack.orchestration.loopback import stay_on_loopback
from rlstack.orchestration.processes import kill_all, start_ticks
from rlstack.orchestration.ray_environment import environment
from rlstack.orchestration.role_host import Host

LAST_LINES = 20  # of each of Ray's logs, if it does not start
ROLE_TITLE = f"ray::{Host.__name__}"
KUBERNETES = "RAY_ENABLE_K8S_TOKEN_AUTH"  # has Ray ask Kubernetes who may come in, instead of its token

_endings = ExitStack()  # what `end_ray` undoes: a process has one Ray at a time


class _Job(JobConfig):
    """A job whose workers find their modules as other Pythons of their node do.

    Ray would have them look in the driver's working directory first, before all packages.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # which Ray takes for a reason to leave the driver's folders out


def start_ray(settings: Cluster) -> list[psutil.Process]:
    """Join the cluster at `settings.address`, or start a Ray of this machine's; the processes that this has.

    Either asks for a token. A Ray of this machine's has one of its own, and a private folder for its files
    and for the temporary files of what it starts; both go with `end_ray`.

    Raises ConfigError if there is no cluster at that address, if it asks for no token, if others can read
    this user's token, or if the environment turns tokens off.
    """
    if (problem := mode_problem()) is not None:
        raise ConfigError(problem)
    _endings.close()
    # Read by the Ray processes that start now; a cluster that runs already keeps its own settings.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _own_sigterm():
            if settings.address is None:
                return _start(settings)
            join(settings.address, job_config=_Job())
            return []
    except BaseException:
        _endings.close()
        raise


def end_roles(rays: Sequence[psutil.Process]) -> None:
    """End the roles below `rays`, the processes of `start_ray`, with all that they started and its memory.

    For roles that may be starting something: Ray ends them one after the other, and what they start meanwhile
    it does not know.
    """
    kill_all(
        (process.pid, start)
        for process in with_descendants(rays)
        if _is_role(process) and (start := start_ticks(process.pid)) is not None
    )


def end_ray(started: list[psutil.Process], roles: Iterable[tuple[int, int]] = ()) -> None:
    """Leave the cluster, or end the Ray that `start_ray` has started, with its folder and its token.

    started: its processes and all below them; roles: processes of roles that may have lost their parents, by
    number and start.
    """
    ray.shutdown()
    end_started(started, timeout_s=2.0)
    kill_all(roles)
    _endings.close()
    atexit.unregister(end_ray)


def keep_logs(folder: Path) -> None:
    """Copy what Ray's processes on this machine have written about themselves to `folder`, if it has room."""
    if worker._global_node is None:
        return
    with suppress(OSError):  # why the run fails is said elsewhere, and this comes before its end
        folder.mkdir(parents=True, exist_ok=True)
        for log in filter(Path.is_file, Path(worker._global_node.get_logs_dir_path()).iterdir()):
            shutil.copyfile(log, folder / log.name)


def _start(settings: Cluster) -> list[psutil.Process]:
    before = psutil.Process().children()
    tempfile.gettempdir()  # which this process keeps, while those that it starts get another one
    atexit.register(end_ray, [])  # for callers who do not come to it
    folder = _endings.enter_context(private_folder(temporary_folder()))
    token = _make_token(folder)
    _endings.enter_context(
        environment({MODE: "token", TOKEN_PATH: str(token), TOKEN: None, KUBERNETES: None})
    )
    stay_on_loopback()
    try:
        with environment({"TMPDIR": str(folder)}):
            ray.init(
                address="local",  # whatever RAY_ADDRESS or another cluster on this machine says
                num_cpus=Machine.detect().num_cores,  # which the settings have been held against
                object_store_memory=settings.object_store_mib << 20,
                job_config=_Job(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder / RAY_FOLDER),  # which Ray opens to everyone: `folder` keeps them out
            )
    except BaseException as error:
        # Ray leaves them where it is interrupted, and they would go on writing to the folder.
        end_started(with_descendants(_rays_since(before)), timeout_s=1.0)
        if isinstance(error, Exception):
            _note_logs(error, folder / RAY_FOLDER / "session_latest" / "logs")
        raise
    return _rays_since(before)


def _rays_since(before: Sequence[psutil.Process]) -> list[psutil.Process]:
    """The children of this process that are Ray's and none of `before`."""
    return [child for child in psutil.Process().children() if child not in before and _is_ray(child)]


def _make_token(folder: Path) -> Path:
    """A file that only this user reads, for a Ray that nobody else uses."""
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), encoding="ascii")
    return path


def _note_logs(error: Exception, logs: Path) -> None:
    """Tell with `error` how the logs end, which go with the folder that they are in."""
    for log in (*logs.glob("gcs_server.*"), *logs.glob("raylet.*")):
        if lines := log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]:
            error.add_note("\n".join([f"{log.name}:", *lines]))


@contextmanager
def text_to(log: Path) -> Iterator[None]:
    """Have what Ray says of workers that have died appended to `log`, which is there from the first word on.

    Ray itself prints it, in colour, between the lines of whoever uses it. What it is about reaches the caller
    as an exception.
    """

    def write(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in data["lines"])

    printing = worker.print_to_stdstream
    worker.print_to_stdstream = write
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler that this process has set, if it has, which Ray replaces by one of its own."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def with_descendants(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Processes of Ray's, the roles below them, and what the roles have started."""
    return [each for process in processes for each in _with_descendants(process)]


def end_started(processes: list[psutil.Process], *, timeout_s: float) -> None:
    """A role that was killed cannot end its own children (vLLM's workers); nobody else would."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=timeout_s)


def _is_ray(process: psutil.Process) -> bool:
    """Whether it is Ray's; another thread of this process may start some of its own at the same time."""
    try:
        return any("/ray/" in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _is_role(process: psutil.Process) -> bool:
    """Return True for a role's process, by its title: Ray's, of an actor's class and method."""
    try:
        return "".join(process.cmdline()[:1]).strip().partition(".")[0] == ROLE_TITLE
    except psutil.Error:
        return False


def _with_descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
