"""A working directory may hold files named like modules: none of them is imported in place of a package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlstack.config.own_code import OwnCode
from rlstack.config.schema import Objective, Reward, RunConfig, Task
from rlstack.losses.own import load_loss
from rlstack.preflight import user_code
from rlstack.preflight.planned import Planned
from rlstack.rewards.handover import packed
from rlstack.rewards.plugin import PluginScorer
from rlstack.rewards.scorer import Question

ROOT = Path(__file__).parents[2]
LIMIT_S = 300
TRAP = "open({marker!r}, 'w').close()\nraise ImportError('of the working directory')\n"
OWN = """
import google.protobuf, importlib.util, numpy, omegaconf, yaml

assert "rlstack_kernels.py" not in importlib.util.find_spec("rlstack_kernels").origin

def length(problem, answer, responses):
    import psutil
    return [len(response) for response in responses]

class Loss:
    needs_reference = needs_entropy_gradient = False
    def __call__(self, inputs):
        import psutil
        return psutil.__name__
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a module for each name there is, and one where those that are imported leave a file."""
    trap, markers = tmp_path_factory.mktemp("trap"), tmp_path_factory.mktemp("markers")
    names = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), "rlstack_kernels"}
    for name in names - {"rlstack"}:
        if name.isidentifier() and importlib.util.find_spec(name) is not None:
            (trap / f"{name}.py").write_text(TRAP.format(marker=str(markers / name)))
    (trap / "own_code_of_a_test.py").write_text(OWN)
    return trap, markers


@pytest.fixture
def sprung(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The modules of the working directory that have been imported since."""
    trap, markers = folders
    for marker in markers.iterdir():
        marker.unlink()
    monkeypatch.chdir(trap)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda: sorted(os.listdir(markers))


def test_the_trap_works(sprung: Callable[[], list[str]]) -> None:
    subprocess.run([sys.executable, "-c", "import yaml"], capture_output=True)
    assert "yaml" in sprung()


def test_the_doctor_imports_nothing_from_it(sprung: Callable[[], list[str]], tmp_path: Path) -> None:
    quickstart = str(ROOT / "configs" / "quickstart.yaml")
    command = [sys.executable, "-P", "-m", "rlstack.doctor", quickstart, f"run.dir={tmp_path}"]
    asked = ["--only", "settings", "--only", "import-math-verify"]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, timeout=LIMIT_S)
    assert "import-math-verify" in done.stdout, done.stderr
    assert sprung() == []


def test_a_plug_in_from_it_imports_the_packages(sprung: Callable[[], list[str]]) -> None:
    scorer = PluginScorer("own_code_of_a_test:length", Reward(workers=1), setting="data.tasks[0].reward")
    try:
        ((score,),) = scorer.score([Question(problem="", answer=None, responses=("four",))])
    finally:
        scorer.close()
    assert score.reward == 4
    assert sprung() == []


def test_what_is_tried_before_a_run_imports_the_packages(sprung: Callable[[], list[str]]) -> None:
    config = RunConfig(objective=Objective(loss="own_code_of_a_test:Loss"))
    config.data.tasks = [Task(name="a", path="a.jsonl", reward="own_code_of_a_test:length")]
    planned = Planned(config=config, own=OwnCode())
    assert [*user_code.rewards(planned), *user_code.loss(planned)] == []
    assert sprung() == []


def test_user_code_reaches_its_process_behind_the_packages(sprung: Callable[[], list[str]]) -> None:
    loss = load_loss("own_code_of_a_test:Loss")
    code = (
        "import sys\n"
        "from rlstack.rewards.handover import unpacked\n"
        "loss = unpacked(sys.stdin.buffer.read())\n"
        "import yaml\n"
        "print(loss(None))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], input=packed(loss), capture_output=True)
    assert done.stdout == b"psutil\n", done.stderr
    assert sprung() == []


ROLE = """
import multiprocessing, subprocess, sys, tempfile
from functools import partial
from pathlib import Path

from rlstack.config.schema import Cluster
from rlstack.losses.own import load_loss
from rlstack.orchestration.ray_session import end_ray, start_ray, with_descendants
from rlstack.orchestration.roles import Role, wait_for
from rlstack.rewards.handover import packed, unpacked


class Made:
    def __init__(self, loss):
        import megatron.core, numpy, omegaconf, torch, yaml

        self.loss = loss

    def look(self):
        child = subprocess.run([sys.executable, "-c", "import yaml; print('yaml')"], capture_output=True)
        pool = multiprocessing.get_context("spawn").Pool(1)
        with pool:
            found = pool.apply(abs, (-1,))
        return unpacked(self.loss)(None), child.stdout, found


if __name__ == "__main__":
    processes = start_ray(Cluster())
    try:
        loss = packed(load_loss("own_code_of_a_test:Loss"))
        role = Role("a role", log=Path(sys.argv[1]), build=partial(Made, loss))
        print(*wait_for([role.start(Made.look)], timeout_s=120, doing="looking", setting="none"))
    finally:
        end_ray(with_descendants(processes))
"""


@pytest.mark.slow
def test_a_role_and_what_it_starts_import_nothing_from_it(
    sprung: Callable[[], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "driver").mkdir()
    script = tmp_path / "driver" / "drive.py"
    script.write_text(ROLE)
    command = [sys.executable, str(script), str(tmp_path / "role.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert "('psutil', b'yaml\\n', 1)" in done.stdout, done.stderr
    assert sprung() == []
