"""A run, looked at while it goes on: what others on the machine could reach, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from tests.unprivileged import as_neighbour

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "schedule.num_steps=2000",
    "schedule.sync_interval=1",
    "batch.prompts_per_step=2",
    "evaluation.tasks=[]",
    "policy.pipeline_parallel=2",
    "rollout.tensor_parallel=2",  # so that vLLM's workers are processes of their own
    "run.name=test",
]
SECRETS = dict.fromkeys(("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY"), "5ec2e7-of-the-user")
VISITOR = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)))
"""
# Prints what somebody else could do with the paths that he is given.
NEIGHBOUR = """
for path in sys.argv[1:]:
    attempts = {
        "list": lambda: os.listdir(path),
        "read": lambda: open(path, "rb").read(1),
        "write": lambda: open(path, "r+"),
        "replace": lambda: (os.rename(path, path + ".old"), os.rename(path + ".old", path)),
        "add": lambda: open(os.path.join(os.path.dirname(path), "planted"), "x"),
        "connect": lambda: socket.socket(socket.AF_UNIX).connect(path),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        print(name, path)
"""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Member:
    """A process of the run, as others see it."""

    command: list[str]
    variables: dict[str, str]
    listening: list[tuple[str, int]]
    sockets: list[str]  # paths of Unix sockets
    mapped: list[str]  # files in its memory
    inodes: set[int]  # of these


@dataclass(frozen=True)
class Looked:
    """What was found while the run went on, and where it was."""

    place: Path  # of its temporary files
    home: Path
    run: Path
    members: list[Member]
    files: dict[Path, int]  # modes of all that is in `place`
    run_files: dict[Path, int]
    token: str
    gcs: str
    visits: dict[str, subprocess.CompletedProcess[str]]  # to Ray, with and without a token
    shared: list[Path]  # its files of shared memory
    neighbour: str | None  # what he could do
    status: int  # with which Ctrl-C has ended the run


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    run_dir, home = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("home")
    place = Path(tempfile.mkdtemp(prefix="e"))  # as /tmp is; short, for the paths of sockets have a limit
    place.chmod(0o1777)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    environment = os.environ | SECRETS | {"TMPDIR": str(place), "HOME": str(home), "XDG_CACHE_HOME": caches}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        environment.pop(name, None)
    rlstack = Path(sys.executable).with_name("rlstack")
    command = [rlstack, "train", ROOT / "configs/quickstart.yaml", *SETTINGS, f"run.dir={run_dir}"]
    output = (run_dir / "output").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        metrics = run_dir / "test" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
        yield look(process, place, home, run_dir / "test")
    finally:
        process.kill()
        process.wait(60)
        shutil.rmtree(place, ignore_errors=True)


def look(process: subprocess.Popen, place: Path, home: Path, run: Path) -> Looked:
    """Look at all there is, then end the run by Ctrl-C."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    members = [member for each in family if (member := seen(each)) is not None]
    files, run_files = modes(place), modes(run)
    raylet = next(member for member in members if member.command[0].endswith("/raylet"))
    gcs = next(a.partition("=")[2] for a in raylet.command if a.startswith("--gcs-address="))
    file = raylet.variables.get("RAY_AUTH_TOKEN_PATH", str(home / ".ray" / "auth_token"))
    visits = {
        mode: visit(gcs, {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": file})
        for mode in ("token", "disabled")
    }
    paths = {str(path) for path in files if path != place}
    paths |= {path for member in members for path in member.sockets}
    neighbour = None
    if os.geteuid() == 0:
        tried = as_neighbour(NEIGHBOUR, *sorted(paths), imports="import os, socket, sys")
        assert tried.stderr == ""
        neighbour = tried.stdout
        (place / "planted").unlink()
    inodes = {inode for member in members for inode in member.inodes}
    shared = [path for path in Path("/dev/shm").iterdir() if path.stat().st_ino in inodes]
    token = Path(file).read_text()
    os.killpg(process.pid, signal.SIGINT)
    return Looked(
        place, home, run, members, files, run_files, token, gcs, visits, shared, neighbour, process.wait(120)
    )


def seen(process: psutil.Process) -> Member | None:
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        inet, unix = process.net_connections("inet"), process.net_connections("unix")
        return Member(
            command=process.cmdline() or [""],
            variables=process.environ(),
            listening=[tuple(s.laddr) for s in inet if s.status == psutil.CONN_LISTEN],
            sockets=sorted({s.laddr for s in unix if s.laddr}),
            inodes={int(line.split(maxsplit=5)[4]) for line in maps.splitlines() if "/dev/shm/" in line},
            mapped=sorted({line.split(maxsplit=5)[5] for line in maps.splitlines() if "/" in line}),
        )
    except (psutil.NoSuchProcess, OSError):
        return None


def modes(folder: Path) -> dict[Path, int]:
    """Of all that is in it; what goes meanwhile is left out."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            found[path] = path.lstat().st_mode
    return found


def visit(address: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Ray answers to somebody who has these variables."""
    command = [sys.executable, "-c", VISITOR, address]
    environment = os.environ | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "the run took no step"
        time.sleep(0.2)


def test_it_listens_on_loopback_only(looked: Looked) -> None:
    listening = {address for member in looked.members for address in member.listening}
    assert len({port for _, port in listening}) > 5  # Ray's, the stores' and gloo's
    assert {ip for ip, _ in listening if not ip_address(ip.removeprefix("::ffff:")).is_loopback} == set()


def test_its_ray_asks_for_a_token_of_its_own(looked: Looked) -> None:
    with_token, without = looked.visits["token"], looked.visits["disabled"]
    assert (with_token.returncode, with_token.stdout) == (0, "1\n"), with_token.stderr
    assert without.returncode != 0
    assert "authentication" in without.stderr.lower()
    assert not (looked.home / ".ray").exists()


def test_its_token_is_in_one_file_for_its_owner(looked: Looked) -> None:
    assert len(looked.token) == 64
    of_ray = [each for each in looked.members if "RAY_AUTH_TOKEN_PATH" in each.variables]
    assert len(of_ray) >= 6  # the GCS, the raylet, its agent, two ranks, the engine and its workers
    for member in looked.members:
        assert looked.token not in (*member.command, *member.variables.values())
    assert {each.variables["RAY_AUTH_MODE"] for each in of_ray} == {"token"}
    (file,) = {Path(each.variables["RAY_AUTH_TOKEN_PATH"]) for each in of_ray}
    assert stat.S_IMODE(looked.files[file]) == 0o600


def test_its_temporary_files_are_in_a_folder_that_nobody_else_gets_into(looked: Looked) -> None:
    top = [path for path in looked.files if path.parent == looked.place]
    assert top and {stat.S_IMODE(looked.files[path]) for path in top} == {0o700}
    assert sum(len(member.sockets) for member in looked.members) > 4  # Ray's and vLLM's
    for member in looked.members:
        for path in member.sockets:
            assert Path(path).is_relative_to(looked.place), f"{path} of {member.command}"
        for path in member.mapped:
            assert not path.startswith("/tmp/") or any(
                Path(path).is_relative_to(own) for own in (looked.place, looked.run)
            ), f"{path} in {member.command}"


def test_its_results_are_for_its_user_and_the_group_alone(looked: Looked) -> None:
    assert stat.S_IMODE(looked.run_files[looked.run]) & 0o007 == 0
    open_to_all = [path for path, mode in looked.run_files.items() if mode & 0o002 and not stat.S_ISLNK(mode)]
    assert open_to_all == []


def test_a_neighbour_gets_at_nothing(looked: Looked) -> None:
    if looked.neighbour is None:
        pytest.skip("only root can start a process of another user")
    beside = {f"add {path}" for path in looked.files if path.parent == looked.place}  # as everybody may
    assert len(looked.neighbour.splitlines()) == 1 and set(looked.neighbour.splitlines()) <= beside


def test_the_verifier_of_answers_gets_no_secret(looked: Looked) -> None:
    workers = [each for each in looked.members if "rlstack.rewards.math_worker" in each.command]
    assert workers
    for worker in workers:
        assert not {*SECRETS.values(), looked.token} & {*worker.variables.values()}


def test_nothing_is_left_after_ctrl_c(looked: Looked) -> None:
    assert looked.status == 130
    assert json.loads((looked.run / "summary.json").read_text())["status"] == "interrupted"
    assert list(looked.place.iterdir()) == []
    assert any(path.name.startswith("psm_") for path in looked.shared)  # between vLLM's workers
    assert [path for path in looked.shared if path.exists()] == []
