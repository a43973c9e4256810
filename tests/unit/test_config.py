import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rlstack.config.load import dump_config, load_config
from rlstack.config.ranges import RANGES, Range
from rlstack.config.schema import ObjectiveName, RunConfig
from rlstack.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text("policy: {model: seed}\ndata:\n  tasks:\n  - {name: sums, path: sums.jsonl}\n")
    return file


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_published_configuration_loads(path: Path) -> None:
    config = load_config(path)
    assert config.run.name == path.stem


def test_overrides_come_last_and_keep_their_type(path: Path) -> None:
    overrides = [
        "schedule.sync_interval=null",
        "optimizer.lr=1e-4",
        "objective.name=grpo",
        "schedule.reference_sync=5",
        "data.tasks[0].weight=2",
        "rollout.n=4",
        "rollout.n=6",
    ]
    config = load_config(path, overrides)
    assert config.schedule.sync_interval is None
    assert config.optimizer.lr == 1e-4
    assert config.objective.name is ObjectiveName.grpo
    assert config.schedule.reference_sync == 5
    assert config.data.tasks[0].weight == 2.0
    assert config.rollout.n == 6


def test_a_list_can_be_replaced_on_the_command_line(path: Path) -> None:
    config = load_config(path, ["data.tasks=[{name: a, path: x}, {name: b, path: y}]"])
    assert [task.name for task in config.data.tasks] == ["a", "b"]


def test_paths_are_relative_to_the_file_and_on_the_command_line_to_the_working_directory(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    config = load_config(path, ["data.tasks[0].path=mine.jsonl", "schedule.adaptive.replay=log.jsonl"])
    assert config.policy.model == str(path.parent / "seed")
    assert config.data.tasks[0].path == str(elsewhere / "mine.jsonl")
    assert config.schedule.adaptive.replay == str(elsewhere / "log.jsonl")
    assert config.run.dir == "runs"


def test_a_file_holds_only_what_differs_from_its_base(path: Path) -> None:
    over = path.parent / "below" / "over.yaml"
    over.parent.mkdir()
    over.write_text("base: ../run.yaml\nschedule: {num_steps: 3}\n")
    config = load_config(over)
    assert config.schedule.num_steps == 3
    assert config.policy.model == str(path.parent / "seed")


def test_a_base_that_leads_back_is_refused(path: Path) -> None:
    path.write_text("base: run.yaml\n")
    assert "base leads back" in refusal(path)


def test_a_dumped_configuration_loads_as_the_same(path: Path) -> None:
    config = load_config(path, ["schedule.sync_interval=null", "objective.name=grpo"])
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "schedule.sync_intervl=3",
            "schedule.sync_intervl: there is no such setting; did you mean schedule.sync_",
        ),
        ("lr=1e-3", "lr: there is no such setting; did you mean optimizer.lr?"),
        ("foo.lr=1e-3", "foo: there is no such setting; a configuration has run, schedule,"),
        ("rollout.n=many", "rollout.n = 'many': an integer is accepted (default: 8)"),
        ("rollout.n=1.5", "rollout.n = 1.5: an integer is accepted (default: 8)"),
        ("rollout.n=null", "rollout.n = None: an integer is accepted (default: 8)"),
        ("optimizer.lr=true", "optimizer.lr = True: a number is accepted (default: 1e-06)"),
        ("schedule.lag=x", "schedule.lag = 'x': an integer is accepted (default: 0)"),
        (
            "schedule.sync_interval=1.5",
            "schedule.sync_interval = 1.5: an integer or text or null is accepted",
        ),
        (
            "schedule.adaptive.stat=1",
            "schedule.adaptive.stat: there is no such setting; did you mean schedule.",
        ),
        ("policy.sequence_parallel=2.5", "policy.sequence_parallel = 2.5: true or false is accepted"),
        ("objective.name=ppo", "objective.name = 'ppo': dpo | group_dpo | grpo | group_dpo_grpo is"),
        ("rollout=3", "rollout = 3: a section is accepted, with some of the keys engines,"),
        ("data.tasks=3", "data.tasks = 3: a list is accepted"),
        ("data.tasks=[3]", "data.tasks[0] = 3: a section is accepted, with some of the keys name, path,"),
        (
            "data.tasks[0].wieght=2",
            "data.tasks[0].wieght: there is no such setting; did you mean data.tasks[0].we",
        ),
        ("data.tasks[0].weight=x", "data.tasks[0].weight = 'x': a number is accepted (default: 1.0)"),
        ("data.tasks[0].template=maths", "data.tasks[0].template = 'maths': math | chat is accepted"),
        ("data.tasks[1].weight=2", "data.tasks[1].weight: [1] is not in the list, which has 1 entries"),
        ("run.name.first=x", "run.name = {'first': 'x'}: text is accepted (default: run)"),
        ("rollout.n", "'rollout.n': KEY=VALUE is accepted"),
        ("=3", "'=3': KEY=VALUE is accepted"),
        ("run.name={", "'run.name={': the value is not valid YAML"),
        ("run.name=${nothing}", "Interpolation key 'nothing' not found"),
        ("policy.model=???", "policy.model is not set; give it in"),
        ("data.tasks=[{name: x}]", "data.tasks[0].path is not set; give it in"),
    ],
)
def test_a_bad_override_is_refused_with_its_path_and_the_remedy(
    path: Path, override: str, message: str
) -> None:
    assert message in refusal(path, override)


def test_a_value_is_not_a_section(path: Path) -> None:
    assert "run.name.first: name is a value, not a section" in refusal(path, "run.name=x", "run.name.first=y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"policy: [1\nrun: 2\n", "run.yaml, line 2: is not valid YAML"),
        (b"run: {seed: 1}\nrun: {seed: 2}\n", "run.yaml, line 2: is not valid YAML: found duplicate key run"),
        (b"- policy\n", "run.yaml: holds a list"),
        (b"\xff\xfe", "run.yaml: cannot be read"),
        (b"base: 3\n", "run.yaml: base = 3: the path of another YAML file is accepted"),
        (b"", "policy.model is not set; give it in"),
        (b"polcy: {}\nrun: {seed: x}\n", "polcy: there is no such setting; did you mean policy?"),
        (b"polcy: {}\nrun: {seed: x}\n", "run.seed = 'x': an integer is accepted"),
        (b"run:\n", "run = None: a section is accepted, with some of the keys name, dir, seed"),
    ],
)
def test_a_bad_file_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    assert message in refusal(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "nowhere.yaml")


def settings(section: Any, prefix: str = "") -> dict[str, Any]:
    """Every single setting of `section` with its value, by path."""
    found: dict[str, Any] = {}
    for field in fields(section):
        value, path = getattr(section, field.name), f"{prefix}{field.name}"
        found |= settings(value, f"{path}.") if is_dataclass(value) else {path: value}
    return found


def test_every_number_has_a_range_that_its_default_is_in() -> None:
    defaults = settings(RunConfig())
    numbers = {key: value for key, value in defaults.items() if type(value) in (int, float)}
    assert numbers.keys() <= RANGES.keys() <= defaults.keys()
    assert [key for key, value in numbers.items() if value not in RANGES[key]] == []


@given(st.floats(), st.floats(allow_nan=False), st.booleans(), st.booleans())
def test_a_range_holds_finite_numbers_between_its_ends(
    value: float, low: float, low_open: bool, high_open: bool
) -> None:
    accepted = Range(low=low, high=low + 1, low_open=low_open, high_open=high_open)
    if value in accepted:
        assert math.isfinite(value)
        assert low <= value <= low + 1
        assert not (low_open and value == low)
        assert not (high_open and value == low + 1)


@examples(max_examples=20)
@given(st.integers())
def test_an_integer_given_on_the_command_line_arrives(number: int) -> None:
    quickstart = ROOT / "configs" / "quickstart.yaml"
    assert load_config(quickstart, [f"run.seed={number}"]).run.seed == number


@examples(max_examples=20)
@given(st.text())
def test_any_text_as_a_key_is_either_a_setting_or_refused(key: str) -> None:
    quickstart = ROOT / "configs" / "quickstart.yaml"
    with pytest.raises(ConfigError):
        load_config(quickstart, [f"{key}=[[]]"])
