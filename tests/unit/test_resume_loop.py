"""The whole loop with played processes: killed anywhere and taken up, it leaves what an unkilled one does."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from rlstack import train as loop
from rlstack.checkpoint import manifest as manifests
from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig, Task
from rlstack.data.records import Prompt
from rlstack.data.sampling import PromptSampler
from rlstack.errors import CheckpointError, ConfigError
from rlstack.orchestration.roles import PolicyLost, RoleError
from rlstack.telemetry import recorder
from rlstack.telemetry.metrics import is_timing
from tests.unit.played_team import Killed, Policy, play

NUM_STEPS = 9
LOGS = ("rollouts.jsonl", "metrics.jsonl")
READ = ("manifest.json", "run.json", "policy/policy.json", "config.yaml", "inputs.json", *LOGS)
PROMPTS = [Prompt(task="notes", row=row, problem=f"problem {row}", token_ids=(row,)) for row in range(7)]


def config(folder: Path, name: str, overrides: list[str]) -> RunConfig:
    ours = [f"schedule.num_steps={NUM_STEPS}", "batch.prompts_per_step=3", "rollout.n=2", "evaluation.n=1"]
    place = [f"run.dir={folder}", f"run.name={name}", "policy.model=/model", "schedule.save_every=2"]
    made = load_config(None, [*place, *ours, "alarms.length_collapse.action=lower_lr", *overrides])
    made.alarms.length_collapse.window, made.alarms.length_collapse.fraction = 1, 0.9
    made.data.tasks = [Task(name="notes", path="/notes", reward="lengths")]
    return made


class Runs:
    """`rlstack train` on played processes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.saved: list[int] = []
        self.beside: Callable[[str, int], None] = lambda what, version: None  # is told what happens too
        self._patch = monkeypatch
        for slow in ("report", "package_versions", "hardware"):
            monkeypatch.setattr(recorder, slow, lambda *_, **__: None)
        sampler = PromptSampler({"notes": PROMPTS}, {"notes": 1.0}, seed=0)
        monkeypatch.setattr(loop, "load_prompts", lambda config: (sampler, PROMPTS[:2]))

    def train(
        self,
        name: str,
        *overrides: str,
        seed: int = 0,
        kill: tuple[str, int] | None = None,
        lose: Sequence[tuple[str, int]] = (),
        interrupt: Sequence[tuple[str, int]] = (),
        resume: bool = False,
    ) -> None:
        """kill, lose: what is going on when the driver or the policy dies, and the policy's version then.

        interrupt: likewise, when Ctrl-C is pressed.
        """
        to_lose, to_come = list(lose), list(interrupt)

        def faults(what: str, version: int) -> None:
            self.beside(what, version)
            if (what, version) == kill:
                raise Killed
            while (what, version) in to_come:
                to_come.remove((what, version))
                signal.raise_signal(signal.SIGINT)
            if (what, version) in to_lose:
                to_lose.remove((what, version))
                raise PolicyLost("training: policy rank 0 died", role=cast(Any, None))
            if what == "finish":
                self.saved.append(version)

        play(self._patch, faults, random.Random(seed))
        loop.train(config(self.folder, name, list(overrides)), resume=resume)

    def left(self, name: str) -> dict[str, Any]:
        """What a run says but for times, and its model."""
        path = self.folder / name
        logs = {
            file.name: [
                {name: value for name, value in json.loads(line).items() if not _is_timing(name)}
                for line in file.read_text().splitlines()
            ]
            for file in (path / "metrics.jsonl", path / "rollouts.jsonl", path / "intervals.jsonl")
            if file.exists()
        }
        summary = json.loads((path / "summary.json").read_text())
        kept = ("status", "steps", "evaluations", "alarms", "syncs", "tokens", "best")
        return {
            **logs,
            "summary": {name: summary[name] for name in kept},
            "model": (path / "model" / "weights").read_text(),
        }


def _is_timing(name: str) -> bool:
    """Whether it is a time, of a step or of an interval."""
    return name == "sync_share" or is_timing(name)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


REGIMES = {
    "online": ["schedule.sync_interval=1"],
    "one step off": ["schedule.sync_interval=1", "schedule.lag=1"],
    "semi-online": ["schedule.sync_interval=3", "schedule.evaluate_every=6"],
    "with lag": ["schedule.sync_interval=3", "schedule.lag=2"],
    "in turns": ["schedule.sync_interval=3", "schedule.lag=2", "rollout.overlap=false"],
    "offline": ["schedule.sync_interval=null"],
    "adaptive": ["schedule.sync_interval=auto", "schedule.adaptive.start=2", "schedule.evaluate_every=4"],
}
KILLS = [("train", 1), ("train", 5), ("save", 4), ("finish", 6), ("train", 8), ("finish", 5), ("finish", 9)]


@pytest.mark.parametrize(
    ("regime", "kills"),
    [(regime, KILLS if name == "with lag" else KILLS[1:4]) for name, regime in REGIMES.items()],
    ids=REGIMES.keys(),
)
def test_a_run_that_was_killed_anywhere_and_taken_up_is_the_uninterrupted_one(
    runs: Runs, regime: list[str], kills: list[tuple[str, int]]
) -> None:
    runs.train("whole", *regime)
    whole = runs.left("whole")
    assert [row["step"] for row in whole["metrics.jsonl"]] == list(range(1, NUM_STEPS + 1))
    assert whole["summary"]["alarms"]  # so that the learning rate changes on the way
    for number, kill in enumerate(kills):
        name = f"killed{number}"
        try:
            runs.train(name, *regime, seed=number, kill=kill)
        except Killed:
            runs.train(name, *regime, seed=number + 1, resume=True)
        assert runs.left(name) == whole


def test_a_run_may_be_killed_again_and_again(runs: Runs) -> None:
    regime = REGIMES["with lag"]
    runs.train("whole", *regime)
    for kill in [("train", 3), ("train", 5), ("save", 6), ("train", 7)]:
        with pytest.raises(Killed):
            runs.train("killed", *regime, kill=kill, resume=True)
    runs.train("killed", *regime, resume=True)
    assert runs.left("killed") == runs.left("whole")
    summary = json.loads((runs.folder / "killed" / "summary.json").read_text())
    assert summary["resumed"] == [2, 4]
    before = runs.folder / "killed.1" / "metrics.jsonl"  # killed before there was a checkpoint
    assert len(before.read_text().splitlines()) == 3


CTRL_C = [("train", 2, 3), ("train", 5, 6), ("save", 6, 6), ("train", 8, 9)]  # with the step that is saved


@pytest.mark.parametrize(
    ("regime", "presses"),
    [(regime, CTRL_C if name == "with lag" else CTRL_C[:1]) for name, regime in REGIMES.items()],
    ids=REGIMES.keys(),
)
def test_ctrl_c_ends_the_step_and_saves_it(
    runs: Runs, regime: list[str], presses: list[tuple[str, int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs.train("whole", *regime)
    for what, version, saved in presses:
        name = f"{what}{version}"
        with pytest.raises(KeyboardInterrupt):
            runs.train(name, *regime, interrupt=[(what, version)])
        printed = capsys.readouterr().out
        assert f"saved up to step {saved}; to go on: rlstack train" in printed
        assert json.loads((runs.folder / name / "summary.json").read_text())["status"] == "interrupted"
        runs.train(name, *regime, resume=True)
        assert f"goes on after step {saved}, from step-{saved:08d}" in capsys.readouterr().out
        assert runs.left(name) == runs.left("whole")


def test_the_second_ctrl_c_ends_at_once(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    regime = REGIMES["with lag"]
    with pytest.raises(KeyboardInterrupt):
        runs.train("twice", *regime, interrupt=[("train", 4), ("train", 4)])
    assert "saved up to step 2; to go on" in capsys.readouterr().out
    assert len((runs.folder / "twice" / "metrics.jsonl").read_text().splitlines()) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_at_once_where_nothing_may_be_saved(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        runs.train("unsaved", *REGIMES["online"], "schedule.save_every=null", interrupt=[("train", 4)])
    assert "with schedule.save_every = null no checkpoint is written" in capsys.readouterr().out
    assert not (runs.folder / "unsaved" / "checkpoints").exists()


def test_a_step_that_does_not_end_is_not_waited_for(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(Policy, "scale_lr", lambda policy, factor: stuck.wait(60) and None)
    with pytest.raises(KeyboardInterrupt):
        runs.train(
            "stuck", *REGIMES["online"], "checkpoint.interrupt_timeout_s=0.1", interrupt=[("train", 0)]
        )
    assert not (runs.folder / "stuck" / "checkpoints").exists()


def test_ctrl_c_while_the_run_ends_leaves_its_last_checkpoint(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    regime = REGIMES["online"]
    runs.train("whole", *regime)
    export = Policy.export

    def interrupted(policy: Policy, folder: Path) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Policy, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.train("end", *regime)
    assert (runs.folder / "end" / "checkpoints" / "step-00000009").is_dir()
    monkeypatch.setattr(Policy, "export", export)
    runs.train("end", *regime, resume=True)
    assert runs.left("end") == runs.left("whole")


def test_a_run_in_another_thread_leaves_the_signals_alone(runs: Runs) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(runs.train, "aside", *REGIMES["online"]).result()
    assert (runs.folder / "aside" / "summary.json").exists()


def everything(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def cut(checkpoint: Path) -> None:
    os.truncate(checkpoint / "run.json", 10)


def empty(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def lose_all(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint.parent)


def lose_settings(checkpoint: Path) -> None:
    (checkpoint.parents[1] / "config.yaml").unlink(missing_ok=True)


def lose_log(checkpoint: Path) -> None:
    (checkpoint.parents[1] / "metrics.jsonl").unlink(missing_ok=True)


def lose_all_and_the_log(checkpoint: Path) -> None:
    lose_log(checkpoint)
    shutil.rmtree(checkpoint.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "2 checkpoints are there, and none of them is whole"),
        (empty, "2 checkpoints are there, and none of them is whole"),
        (lose_all, "metrics.jsonl: has 7 steps, with a checkpoint after every 2, and there is none"),
        (lose_settings, "config.yaml: is missing, and 2 checkpoints are there"),
        (lose_log, "metrics.jsonl: has 0 bytes, and its run had written"),
        (lose_all_and_the_log, "metrics.jsonl: is missing, and other logs"),
    ],
)
def test_a_run_whose_place_is_lost_is_refused_and_left_as_it_is(
    runs: Runs, damage: Callable[[Path], None], message: str
) -> None:
    with pytest.raises(Killed):
        runs.train("killed", *REGIMES["online"], kill=("train", 7))
    for checkpoint in sorted((runs.folder / "killed" / "checkpoints").iterdir()):
        if checkpoint.exists():
            damage(checkpoint)
    before = everything(runs.folder)
    with pytest.raises(ConfigError, match=message) as refused:
        runs.train("killed", *REGIMES["online"], resume=True)
    assert "--resume" in str(refused.value) or "put the whole file back" in str(refused.value)
    assert everything(runs.folder) == before


@contextmanager
def stale(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the server of the files called `name` in the run "killed" had gone."""
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **keywords: Any) -> Any:
        if path.match(name) and "killed" in path.parts:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return opened(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        yield


@pytest.mark.parametrize("name", READ)
def test_a_run_that_cannot_be_read_now_is_refused_and_goes_on_later(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(Killed):
        runs.train("killed", *REGIMES["online"], kill=("train", 7))
    before = everything(runs.folder)
    with stale(name, monkeypatch), pytest.raises(ConfigError, match=name) as refused:
        runs.train("killed", *REGIMES["online"], resume=True)
    assert "start afresh" not in str(refused.value)
    assert everything(runs.folder) == before
    runs.train("killed", *REGIMES["online"], resume=True)
    assert runs.left("killed")["summary"]["status"] == "completed"


def flip(checkpoint: Path) -> None:
    path = checkpoint / "policy" / "policy.json"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def kept_files(folder: Path) -> dict[Path, bytes | None]:
    return {path: content for path, content in everything(folder).items() if "logs" not in path.parts}


def test_a_checkpoint_that_the_ranks_find_damaged_is_passed_over(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    regime = REGIMES["online"]
    runs.train("whole", *regime)
    with pytest.raises(Killed):
        runs.train("killed", *regime, kill=("train", 7))
    flip(runs.folder / "killed" / "checkpoints" / "step-00000004")
    capsys.readouterr()
    runs.train("killed", *regime, resume=True)
    printed = capsys.readouterr().out
    assert "passing over checkpoint step-00000004" in printed
    assert "goes on after step 2, from step-00000002" in printed
    assert runs.left("killed") == runs.left("whole")
    assert json.loads((runs.folder / "killed" / "summary.json").read_text())["resumed"] == [2]


def test_a_run_of_which_the_ranks_find_no_checkpoint_whole_is_left_as_it_is(runs: Runs) -> None:
    with pytest.raises(Killed):
        runs.train("killed", *REGIMES["online"], kill=("train", 7))
    for checkpoint in (runs.folder / "killed" / "checkpoints").iterdir():
        flip(checkpoint)
    before = kept_files(runs.folder)
    with pytest.raises(
        CheckpointError, match="2 checkpoints are there, and none of them is whole"
    ) as refused:
        runs.train("killed", *REGIMES["online"], resume=True)
    assert "leave --resume out to start afresh" in str(refused.value)
    assert kept_files(runs.folder) == before


def test_a_run_that_goes_back_by_itself_passes_over_what_the_ranks_find_damaged(runs: Runs) -> None:
    def damaged(what: str, version: int) -> None:
        if (what, version) == ("train", 7):
            flip(runs.folder / "lost" / "checkpoints" / "step-00000004")

    runs.train("whole", *REGIMES["online"])
    runs.beside = damaged
    runs.train("lost", *REGIMES["online"], lose=[("train", 7)])
    assert runs.left("lost") == runs.left("whole")


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_file_of_the_policy_is_read_by_the_ranks_alone_and_once(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """Each byte, to verify it; loading comes after that."""
    with pytest.raises(Killed):
        runs.train("killed", *REGIMES["online"], kill=("train", 7))
    read: list[tuple[str, str]] = []
    digest_of = manifests.digest_of

    def counted(path: Path) -> manifests.Digest:
        by_ranks = any(frame.name == "verify" for frame in traceback.extract_stack())
        read.append(("ranks" if by_ranks else "driver", path.relative_to(path.parents[1]).as_posix()))
        return digest_of(path)

    monkeypatch.setattr(manifests, "digest_of", counted)
    lose = [("train", 7)] if is_lost else []
    runs.train("killed", *REGIMES["online"], resume=True, lose=lose)
    of_policy = [who for who, name in read if name == "policy/policy.json"]
    assert of_policy == ["ranks"] * (1 + is_lost)
    assert ("driver", "step-00000004/run.json") in read


def test_a_log_without_a_checkpoint_that_cannot_be_read_now_is_refused(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        runs.train("killed", *REGIMES["online"], kill=("train", 2))
    before = everything(runs.folder)
    message = r"run\.name = killed: .*Stale file handle.*metrics\.jsonl'; try again once it can be read"
    with stale("metrics.jsonl", monkeypatch), pytest.raises(ConfigError, match=message):
        runs.train("killed", *REGIMES["online"], resume=True)
    assert everything(runs.folder) == before


def test_a_run_that_goes_back_by_itself_destroys_nothing(runs: Runs) -> None:
    def damaged(what: str, version: int) -> None:
        if (what, version) == ("train", 7):
            for checkpoint in (runs.folder / "lost" / "checkpoints").iterdir():
                cut(checkpoint)

    runs.beside = damaged
    with pytest.raises(RoleError, match=r"policy rank 0 died; the run cannot go back: .* is whole"):
        runs.train("lost", *REGIMES["online"], lose=[("train", 7)])
    assert len((runs.folder / "lost" / "metrics.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES.keys())
def test_a_policy_that_is_lost_costs_nothing_but_time(runs: Runs, regime: list[str]) -> None:
    runs.train("whole", *regime)
    lose = [("train", 1), ("train", 5), ("sync", 6), ("save", 6), ("finish", 7), ("finish", 9)]
    runs.train("lost", *regime, lose=lose)
    assert runs.left("lost") == runs.left("whole")


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(runs: Runs) -> None:
    regime = REGIMES["semi-online"]
    runs.train("whole", *regime, "schedule.evaluate_every=null")
    runs.train("parts", *regime, "schedule.evaluate_every=null", "schedule.num_steps=5")
    runs.train("parts", *regime, "schedule.evaluate_every=null", resume=True)
    whole, parts = runs.left("whole"), runs.left("parts")
    assert parts["metrics.jsonl"] == whole["metrics.jsonl"]
    assert parts["model"] == whole["model"]
    with pytest.raises(ConfigError, match=r"schedule\.num_steps = 8: at least 9 is accepted with --resume"):
        runs.train("parts", *regime, "schedule.evaluate_every=null", "schedule.num_steps=8", resume=True)
    assert runs.left("parts") == parts


def test_saving_changes_nothing_and_null_saves_nothing(runs: Runs) -> None:
    for name in ("one step off", "with lag"):
        runs.saved.clear()
        runs.train(name, *REGIMES[name])
        assert len(runs.saved) == 5
        runs.saved.clear()
        runs.train(f"{name} unsaved", *REGIMES[name], "schedule.save_every=null")
        assert runs.saved == []
        assert not (runs.folder / f"{name} unsaved" / "checkpoints").exists()
        assert runs.left(f"{name} unsaved") == runs.left(name)


def test_the_last_and_the_best_checkpoints_are_kept(runs: Runs) -> None:
    regime = REGIMES["online"]
    runs.train(
        "run", *regime, "schedule.evaluate_every=2", "checkpoint.keep_last=1", "checkpoint.keep_best=1"
    )
    best = runs.left("run")["summary"]["best"]["version"]
    kept = {path.name for path in (runs.folder / "run" / "checkpoints").iterdir()}
    assert kept == {"step-00000009", *([f"step-{best:08d}"] if best else [])}
