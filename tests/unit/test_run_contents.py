"""A run is known by what its paths lead to: moved files resume it, other content does not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.resume import resume_problems
from rlstack.config.schema import RewardModel, RunConfig, Task
from rlstack.errors import ConfigError
from rlstack.orchestration import contents
from rlstack.orchestration.contents import contents_of
from rlstack.orchestration.places import place_to_resume
from rlstack.telemetry.run_dir import RunDirectory

TINY = Path(__file__).parents[2] / "configs" / "tiny"


def inputs(folder: Path) -> Path:
    """A model, a reward model, and datasets in a file and in a folder of shards."""
    shutil.copytree(TINY / "seed", folder / "model")
    shutil.copytree(TINY / "seed", folder / "judge")
    (folder / "train.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    (folder / "held-out").mkdir()
    for shard in range(2):
        (folder / "held-out" / f"train-0000{shard}-of-00002.parquet").write_bytes(b"PAR1")
        (folder / "held-out" / f"test-0000{shard}-of-00002.parquet").write_bytes(b"other rows")
    return folder


def settings(folder: Path, runs: Path) -> RunConfig:
    config = load_config(None, [f"policy.model={folder / 'model'}", f"run.dir={runs}", "run.name=a"])
    config.data.tasks = [Task(name="sums", path=str(folder / "train.jsonl"), reward="judge")]
    config.evaluation.tasks = [
        Task(name="held-out", path=str(folder / "held-out"), split="train", reward="judge")
    ]
    config.reward.models = [RewardModel(name="judge", path=str(folder / "judge"))]
    return config


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def drop_tokenizer(path: Path) -> None:
    path.unlink()


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def test_files_that_have_moved_are_the_same_run(tmp_path: Path) -> None:
    inputs(tmp_path / "old")
    before = settings(tmp_path / "old", tmp_path)
    had = contents_of(before)
    RunDirectory.create(before, inputs=had).close()
    (tmp_path / "old").rename(tmp_path / "new")
    now = settings(tmp_path / "new", tmp_path)
    assert len(resume_problems(before, now)) == 4  # by path, as for a run without inputs.json
    assert place_to_resume(now, inputs=contents_of(now)) is not None
    RunDirectory.resume(now, inputs=contents_of(now)).close()
    (tmp_path / "a" / "inputs.json").unlink()
    with pytest.raises(ConfigError, match=r'policy\.model = .*/new/model": .*/old/model" is accepted'):
        place_to_resume(now, inputs=contents_of(now))


@pytest.mark.parametrize(
    ("setting", "file", "change", "says"),
    [
        ("policy.model", "model/config.json", append, "config.json has changed"),
        ("policy.model", "model/tokenizer.json", append, "tokenizer.json has changed"),
        ("policy.model", "model/tokenizer_config.json", drop_tokenizer, "tokenizer_config.json is missing"),
        ("policy.model", "model/chat_template.jinja", append, "chat_template.jinja is new"),
        ("policy.model", "model/model.safetensors", flip, "model.safetensors has changed"),
        ("reward.models[0].path", "judge/model.safetensors", flip, "model.safetensors has changed"),
        ("data.tasks[0].path", "train.jsonl", append, "file has changed"),
        (
            "evaluation.tasks[0].path",
            "held-out/train-00001-of-00002.parquet",
            flip,
            "train-00001-of-00002.parquet has changed",
        ),
    ],
)
def test_other_content_under_the_same_path_is_refused_by_name(
    tmp_path: Path, setting: str, file: str, change: Callable[[Path], None], says: str
) -> None:
    config = settings(inputs(tmp_path / "in"), tmp_path)
    RunDirectory.create(config, inputs=contents_of(config)).close()
    assert place_to_resume(config, inputs=contents_of(config)) is not None
    change(tmp_path / "in" / file)
    with pytest.raises(ConfigError) as refused:
        place_to_resume(config, inputs=contents_of(config))
    assert str(refused.value).startswith(f"{setting} = ")
    assert f": {says}; the same files are accepted" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_split_is_not_the_run_s(tmp_path: Path) -> None:
    config = settings(inputs(tmp_path / "in"), tmp_path)
    before = contents_of(config)
    flip(tmp_path / "in" / "held-out" / "test-00000-of-00002.parquet")
    assert contents_of(config) == before


@pytest.mark.parametrize("at", [0, 3, 3000, -1])
def test_large_weights_are_known_by_header_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(contents, "WHOLE_BYTES", 100)
    monkeypatch.setattr(contents, "SAMPLE_BYTES", 64)
    path = weights_of(inputs(tmp_path) / "model")
    before = contents._digest(path)
    assert before == contents._digest(shutil.copy(path, tmp_path / "copy.safetensors"))
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert contents._digest(path) != before
    path.write_bytes(bytes(content) + b"\0")
    assert contents._digest(path) != before


def test_what_a_run_is_known_by_is_written_and_damage_is_named(tmp_path: Path) -> None:
    config = settings(inputs(tmp_path / "in"), tmp_path)
    RunDirectory.create(config, inputs=contents_of(config)).close()
    path = tmp_path / "a" / "inputs.json"
    assert set(json.loads(path.read_text())) == {
        "policy.model",
        "reward.models[0].path",
        "data.tasks[0].path",
        "evaluation.tasks[0].path",
    }
    os.truncate(path, 20)
    with pytest.raises(ConfigError, match=r"inputs\.json: is damaged"):
        place_to_resume(config, inputs=contents_of(config))
