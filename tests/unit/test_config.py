import copy
import math
import pickle
import re
from dataclasses import asdict, fields, is_dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rlstack.config.load import dump_config, load_config
from rlstack.config.mistakes import find_mistakes
from rlstack.config.ranges import RANGES, Range
from rlstack.config.schema import Data, ObjectiveName, Policy, Reward, RewardModel, RunConfig, Task
from rlstack.config.validate import validate_rewards
from rlstack.config.values import read_value, type_at
from rlstack.errors import ConfigError
from rlstack.running import check

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
        ("rollout.n={", "'rollout.n={': the value is not valid YAML"),
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
        (b"base: [3]\n", "run.yaml: base = [3]: the path of another YAML file is accepted"),
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


WHOLE = RunConfig(data=Data(tasks=[Task()]), reward=Reward(models=[RewardModel()]))
SETTINGS = [
    *settings(WHOLE),
    *(section.name for section in fields(RunConfig)),
    *(f"data.tasks[0].{each.name}" for each in fields(Task)),
    *(f"reward.models[0].{each.name}" for each in fields(RewardModel)),
]


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


# What YAML would make of each: a number, false, a date, minutes, a mapping, a comment, an anchor.
TYPED = [
    "007",
    "no",
    "On",
    "1.10",
    "1_000",
    "0x1f",
    "1e3",
    "12:30:45",
    "2024_01_01",
    "2024-01-01",
    ".5",
]
TYPED_ON_THE_LINE = [
    *TYPED,
    "=",
    "-",
    "a #b",
    "try: two",
    "[a, b]",
    "{a: b}",
    "&a",
    "*a",
    "!x",
    "%",
    "@",
    "`",
    "'",
    "a\\b",
]


@pytest.mark.parametrize("text", TYPED_ON_THE_LINE)
def test_a_text_on_the_command_line_stays_what_was_typed(path: Path, text: str) -> None:
    overrides = [f"run.name={text}", f"data.tasks[0].split={text}", f"cluster.env.A={text}"]
    config = load_config(path, overrides)
    assert (config.run.name, config.data.tasks[0].split, config.cluster.env) == (text, text, {"A": text})
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize("text", TYPED)
def test_a_text_in_a_file_or_a_list_stays_what_was_typed(path: Path, text: str) -> None:
    task = f"{{name: {text}, path: x, reward: {text}, weight: 2}}"
    path.write_text(
        f"run: {{name: {text}}}\npolicy: {{model: m}}\ndata: {{tasks: [{task}]}}\n"
        f"cluster:\n  env: {{1: {text}, no: {text}}}\n"
    )
    config = load_config(path, [f"evaluation.tasks=[{task}]"])
    assert config.run.name == text
    assert config.cluster.env == {"1": text, "no": text}
    for found in (config.data.tasks[0], config.evaluation.tasks[0]):
        assert (found.name, found.reward, found.weight) == (text, text, 2.0)


def test_quotes_and_null_keep_the_meaning_that_yaml_gives_them(path: Path) -> None:
    overrides = ["run.name='a #b'", 'data.tasks[0].name="7\\u00e9"', "data.tasks[0].split=null"]
    config = load_config(path, [*overrides, "data.tasks[0].reward='a' b", "telemetry.wandb="])
    task = config.data.tasks[0]
    assert (config.run.name, task.name, task.split, task.reward) == ("a #b", "7é", None, "'a' b")
    assert config.telemetry.wandb is None
    assert "run.name = None: text is accepted" in refusal(path, "run.name=null")
    assert load_config(path, ["run.name='null'"]).run.name == "null"


def test_one_anchor_is_a_text_here_and_a_number_there(path: Path) -> None:
    path.write_text(
        "run: &r {name: &n 010, seed: *n}\npolicy: {model: *n}\n"
        "data:\n  tasks:\n  - &t {name: 1.10, path: x}\n  - {<<: *t, path: 2.0}\n"
        "  - {name: 3.0, <<: [{split: no}, *t]}\n"
    )
    config = load_config(path)
    assert (config.run.name, config.run.seed, config.policy.model) == ("010", 8, str(path.parent / "010"))
    tasks = [(task.name, Path(task.path).name, task.split) for task in config.data.tasks]
    assert tasks == [("1.10", "x", None), ("1.10", "2.0", None), ("3.0", "x", "no")]


def test_a_base_s_name_is_a_text_and_may_begin_at_home(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("WHERE", "below")
    (path.parent / "below").mkdir()
    (path.parent / "1.10").write_text("run: {seed: 3}\n")
    (path.parent / "below" / "b.yaml").write_text("base: ~/1.10\npolicy: {model: ~/m}\n")
    path.write_text("base: ${oc.env:WHERE}/b.yaml\n")
    config = load_config(path)
    assert (config.run.seed, config.policy.model) == (3, str(path.parent / "m"))
    path.write_text("base: ${oc.env:NOWHERE}/b.yaml\n")
    assert "run.yaml: base cannot be read (Environment variable 'NOWHERE' not found)" in refusal(path)


def test_a_reference_has_the_type_of_the_setting_that_it_stands_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"TEN": "10", "NIL": "null", "PAIR": "[2,2]", "SMALL": "1e-6", "NO": "no"}.items():
        monkeypatch.setenv(name, text)
    config = load_config(
        path,
        [
            "schedule.sync_interval=${oc.env:TEN}",
            "schedule.reference_sync=${schedule.sync_interval}",
            "schedule.evaluate_every=${oc.env:NIL}",
            "policy.pipeline_layers=${oc.env:PAIR}",
            "optimizer.lr=${oc.env:SMALL}",
            "policy.sequence_parallel=${oc.env:NO}",
            "run.name=${oc.env:NO}-${oc.env:TEN}-${run.seed}",
            "telemetry.wandb=${oc.env:NIL}",
            "run.dir=${oc.env:NO}",
            "run.seed=4",
            "evaluation.tasks=${data.tasks}",
        ],
    )
    assert (config.schedule.sync_interval, config.schedule.reference_sync) == (10, 10)
    assert config.schedule.evaluate_every is config.telemetry.wandb is None
    assert config.policy.pipeline_layers == [2, 2]
    assert (config.optimizer.lr, config.policy.sequence_parallel) == (1e-6, False)
    assert (config.run.name, config.run.dir) == ("no-10-4", "no")
    assert config.evaluation.tasks == config.data.tasks


def test_a_number_in_quotes_is_one_where_a_number_or_text_is_accepted(path: Path) -> None:
    path.write_text(path.read_text() + "schedule: {sync_interval: '10', reference_sync: \"0x5\"}\n")
    assert load_config(path).schedule.sync_interval == 10
    assert load_config(path).schedule.reference_sync == 5
    path.write_text(path.read_text().replace("'10'", "'null'").replace('"0x5"', "'never'"))
    assert load_config(path).schedule.sync_interval is None
    assert load_config(path).schedule.reference_sync == "never"


def test_a_path_with_a_reference_is_relative_to_its_file(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("else ${where}")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("D", "d2")
    below = path.parent / "below"
    below.mkdir()
    over = below / "over.yaml"
    path.write_text(
        "policy: {model: '${run.name}/m'}\ndata: {tasks: [{name: a, path: '${oc.env:D}/x.jsonl'}]}\n"
        "schedule: {adaptive: {replay: '${policy.model}/r.jsonl'}}\n"
    )
    over.write_text(
        "base: ../run.yaml\nrun: {name: over}\n"
        "evaluation: {tasks: [{name: b, path: '${data.tasks[0].path}'}, {name: c, path: '${oc.env:D}/y'}]}\n"
    )
    config = load_config(over, ["reward.models=[{name: m, path: '${oc.env:D}/j'}]"])
    assert config.policy.model == str(path.parent / "over" / "m")
    assert config.schedule.adaptive.replay == str(path.parent / "over" / "m" / "r.jsonl")
    assert [task.path for task in config.data.tasks] == [str(path.parent / "d2" / "x.jsonl")]
    assert [t.path for t in config.evaluation.tasks] == [config.data.tasks[0].path, str(below / "d2" / "y")]
    assert config.reward.models[0].path == str(elsewhere / "d2" / "j")
    again = path.parent / "runs" / "config.yaml"
    again.parent.mkdir()
    again.write_text(dump_config(config))
    monkeypatch.delenv("D")
    assert load_config(again) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "run.name=${oc.env:NOWHERE}",
            "run.name = ${oc.env:NOWHERE}: Environment variable 'NOWHERE' not found",
        ),
        ("run.name=a${", "run.name cannot be read"),
        ("run.name=${run.name}", "run.name = ${run.name}: Recursive interpolation detected"),
        ("data.tasks[0].path=${run.nme}/x", "data.tasks[0].path = ${run.nme}/x: Interpolation key 'run.nme'"),
        ("data.tasks[0].path=${evaluation}", "data.tasks[0].path = {'tasks': [],"),
        ("policy.model=${policy.model}", "policy.model = ${policy.model}: Recursive interpolation detected"),
        ("rollout.n=${run.name}", "rollout.n = 'run': an integer is accepted (default: 8)"),
        ("rollout.n=\\${run.seed}", "rollout.n = '${run.seed}': an integer is accepted (default: 8)"),
        ("rollout=${run.name}", "rollout = 'run': a section is accepted"),
        ("data.tasks=${run.seed}", "data.tasks = 0: a list is accepted"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_with_its_path(
    path: Path, override: str, message: str
) -> None:
    assert message in refusal(path, override)


def test_all_references_that_lead_nowhere_are_told_at_once(path: Path) -> None:
    lines = refusal(path, "run.name=${a}", "run.dir=${b}", "policy.model=${oc.env:NOWHERE}/m").split("\n")
    assert [line.partition(" = ")[0] for line in lines] == ["policy.model", "run.name", "run.dir"]
    assert all("write \\${ for the text itself" in line for line in lines)


@examples(max_examples=15)
@given(st.text(st.sampled_from("\\${}a:.'\" #\n") | st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_is_dumped_so_that_it_loads_as_itself(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    config = RunConfig()
    config.policy.model, config.run.name, config.cluster.env = "/m", text, {"A": text, text: "b"}
    config.data.tasks = [Task(name="a", path=f"/{text}".rstrip("/.") + "x", split=text)]
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump_config(config), encoding="utf-8", newline="")
    again = load_config(file)
    again.data.tasks[0].path = config.data.tasks[0].path  # which is made a normal one
    assert again == config


@pytest.mark.parametrize("text", ["2,2", "4", "[a]", "[2.5,1]", "{a: 1}", "[[1]]", "true", "[null]"])
def test_a_list_of_numbers_is_one_or_refused_with_an_example(path: Path, text: str) -> None:
    said = refusal(path, f"policy.pipeline_layers={text}")
    assert "policy.pipeline_layers = " in said
    assert "a list of integers or null is accepted, for example [2,2]" in said


@pytest.mark.parametrize(
    "text",
    ["7", "-", "2,2", "[a]", "[[]]", "{a: 1}", "{}", "no", "null", "2024-01-01", "'7'", ".nan", "!!set {a}"],
)
def test_any_yaml_at_any_setting_fits_or_is_a_mistake_in_words(text: str) -> None:
    for key in SETTINGS:
        names = re.findall(r"\w+", key)
        value = read_value(text, type_at(names))
        nested: Any = value
        for name in reversed(names):
            nested = [nested] if name == "0" else {name: nested}
        for mistake in find_mistakes(nested):
            assert (
                mistake.startswith(key) and " accepted" in mistake
            ) or ": there is no such setting" in mistake


def test_a_misspelt_attribute_raises_in_every_section() -> None:
    sections = [WHOLE, *WHOLE.data.tasks, *WHOLE.reward.models]
    for section in sections:
        sections += [value for each in fields(section) if is_dataclass(value := getattr(section, each.name))]
        with pytest.raises(AttributeError):
            section.no_such_setting = 1
    assert len(sections) > 20


def test_settings_made_in_python_can_be_copied_and_sent() -> None:
    config = replace(RunConfig(), policy=Policy(model="m"))
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert asdict(config)["policy"]["model"] == "m"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rollout.n", "8", "rollout.n = '8': an integer is accepted"),
        ("rollout.n", True, "rollout.n = True: an integer is accepted"),
        ("rollout.n", None, "rollout.n = None: an integer is accepted"),
        ("optimizer.lr", "1e-4", "optimizer.lr = '1e-4': a number is accepted"),
        ("objective.name", "grpo", "objective.name = 'grpo': dpo | group_dpo | grpo | group_dpo_grpo is"),
        ("policy.model", Path("m"), "policy.model = PosixPath('m'): text is accepted"),
        ("policy.pipeline_layers", (2, 2), "policy.pipeline_layers = (2, 2): a list of integers or null is"),
        ("data.tasks", "x", "data.tasks = 'x': a list is accepted"),
        ("data.tasks", [{"name": "a"}], "data.tasks[0] = {'name': 'a'}: a section Task is accepted"),
        (
            "cluster.env",
            {"A": 1},
            "cluster.env = {'A': 1}: a mapping of texts is accepted, for example {NAME",
        ),
        ("rollout", None, "rollout = None: a section Rollout is accepted"),
        ("run.name", "a\ud800", "run.name = 'a\\ud800': text without NUL and halves"),
    ],
)
def test_a_value_of_another_type_made_in_python_is_refused(key: str, value: object, message: str) -> None:
    config = RunConfig()
    *sections, name = key.split(".")
    setattr(reduce(getattr, sections, config), name, value)
    with pytest.raises(ConfigError) as error:
        validate_rewards(config)
    assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"^the configuration = 'a.yaml': a section RunConfig is accepted"):
        check("a.yaml")  # type: ignore[arg-type]
