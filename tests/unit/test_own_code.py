"""Code that is given in Python: its names, and what the processes that call it get."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlstack.config.load import dump_config, load_config
from rlstack.config.objective import objective_problems
from rlstack.config.own_code import OwnCode, load_named, name_of, refuse_unknown_names, with_own_code
from rlstack.config.schema import Data, Evaluation, Objective, Reward, RunConfig, Task
from rlstack.data.records import Score
from rlstack.errors import ConfigError
from rlstack.losses.build import build_loss
from rlstack.losses.own import load_loss
from rlstack.rewards.plugin import PluginScorer
from rlstack.rewards.scorer import Question


def length(problem: str, answer: str | None, responses: list[str]) -> list[int]:
    return [len(response) for response in responses]


class Words:
    def __init__(self, word: str = "a") -> None:
        self.word = word

    def score(self, problem: str, answer: str | None, responses: list[str]) -> list[int]:
        return [response.count(self.word) for response in responses]


def settings() -> RunConfig:
    tasks = [Task(name="sums", path="/sums"), Task(name="notes", path="/notes")]
    config = RunConfig(data=Data(tasks=tasks), evaluation=Evaluation(tasks=[Task(name="sums", path="/held")]))
    config.policy.model = "/model"
    return config


def test_what_is_given_takes_the_place_of_what_the_tasks_say_in_a_copy(tmp_path: Path) -> None:
    config = settings()
    changed, own = with_own_code(config, rewards={"sums": lambda *_: [0.0]})
    assert [task.reward for task in changed.data.tasks] == ["__main__:lambda", "math"]
    assert changed.evaluation.tasks[0].reward == "__main__:lambda"
    assert [task.reward for task in config.data.tasks] == ["math", "math"]
    assert set(own.rewards) == {"__main__:lambda"}
    (tmp_path / "config.yaml").write_text(dump_config(changed))
    assert load_config(tmp_path / "config.yaml") == changed


def test_two_functions_of_one_name_are_told_apart() -> None:
    first, second = (lambda *_: [0.0]), (lambda *_: [1.0])
    changed, own = with_own_code(settings(), rewards={"sums": first, "notes": second})
    assert own.rewards == {"__main__:lambda": first, "__main__:lambda_2": second}
    assert changed.data.tasks[1].reward == "__main__:lambda_2"


def test_a_task_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"rewards\['sum'\]: .* one of notes, sums"):
        with_own_code(settings(), rewards={"sum": length})


def test_a_name_is_what_can_be_imported_or_else_in_main() -> None:
    assert name_of(load_config) == "rlstack.config.load:load_config"
    assert name_of(RunConfig) == "rlstack.config.schema:RunConfig"
    assert name_of(json.JSONDecoder()) == "__main__:JSONDecoder"  # an object may have a state
    assert name_of(lambda: None) == "__main__:lambda"


@pytest.mark.parametrize(
    "name",
    [
        "timeit:timeit",
        "importlib.metadata:version",
        "mine:os.system",
        "mine:getoutput",
        "mine:Popen",
        "mine:get",
        "mine:length.__class__",
        "mine:getoutput.__call__",
        "mine:spelt.system",
    ],
)
def test_what_pythons_own_library_defines_is_no_ones_reward(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "import os",
        "import os as spelt",
        "from subprocess import getoutput, Popen",
        "get = os.environ.get",
    ]
    (tmp_path / "mine.py").write_text("\n".join([*lines, "def length(*_): ..."]))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match=r"Python's standard library|name what a module of your own defines"
    ):
        load_named(name)
    sys.modules.pop("mine", None)


def test_what_is_made_with_pythons_own_library_is_a_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["import functools", "@functools.cache", "def cached(*_): ...", "def plain(*_): ..."]
    lines += ["partial = functools.partial(plain)", "class Judge:", "    score = staticmethod(plain)"]
    (tmp_path / "made.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("cached", "plain", "partial", "Judge", "Judge.score"):
        assert callable(load_named(f"made:{name}"))


def test_a_loss_of_pythons_own_library_is_refused_before_it_is_imported() -> None:
    (only,) = objective_problems(Objective(loss="antigravity:fly"))
    assert only.startswith(
        "objective.loss = antigravity:fly: null or package.module:attribute is accepted, of a"
    )


def test_a_reward_that_was_given_elsewhere_is_refused_at_the_start() -> None:
    changed, own = with_own_code(settings(), rewards={"sums": lambda *_: [0.0]})
    refuse_unknown_names(changed, own)
    with pytest.raises(ConfigError, match=r"data\.tasks\[0\]\.reward = __main__:lambda: .* given in Python"):
        refuse_unknown_names(changed, OwnCode())


@pytest.mark.parametrize(
    ("given", "rewards"),
    [(length, (3, 2)), (Words, (1, 2)), (Words("b"), (2, 0)), (lambda *_: [7, 8], (7, 8))],
    ids=["function", "class", "object", "lambda"],
)
def test_a_reward_that_is_given_is_called_in_a_process_of_its_own(
    given: object, rewards: tuple[int, ...]
) -> None:
    scorer = PluginScorer("__main__:given", Reward(), setting="data.tasks[0].reward", given=given)
    try:
        (scores,) = scorer.score([Question(problem="", answer=None, responses=("bba", "aa"))])
    finally:
        scorer.close()
    assert scores == tuple(Score(reward=float(reward)) for reward in rewards)


def test_a_reward_of_a_script_survives_the_death_of_its_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from rlstack.config.schema import Reward\n"
        "from rlstack.rewards.plugin import PluginScorer\n"
        "from rlstack.rewards.scorer import Question\n"
        "FACTOR = 3\n"
        "def own(problem, answer, responses):\n"
        "    if problem == 'die':\n"
        "        os._exit(3)\n"
        "    return [FACTOR * len(response) for response in responses]\n"
        "scorer = PluginScorer('__main__:own', Reward(), setting='reward', given=own)\n"
        "asked = [Question(problem=p, answer=None, responses=('ab',)) for p in ('', 'die', '')]\n"
        "print([[score.reward for score in scores] for scores in scorer.score(asked)])\n"
        "scorer.close()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[6.0], [None], [6.0]]\n"


def test_a_reward_that_cannot_be_sent_is_refused_with_its_setting() -> None:
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"data\.tasks\[0\]\.reward = __main__:f: .* a process of its own"):
        PluginScorer("__main__:f", Reward(), setting="data.tasks[0].reward", given=lambda *_: [lock.locked()])


class Broken:
    def __init__(self) -> None:
        raise ValueError("no words")


def test_a_reward_that_does_not_start_leaves_nothing_open() -> None:
    with pytest.raises(ConfigError, match=r"__main__:Broken: .*ValueError: no words"):
        PluginScorer("__main__:Broken", Reward(), setting="data.tasks[0].reward", given=Broken)
    places = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
    assert [place for place in places if "memfd:rlstack" in place] == []


def _is_open(descriptor: str) -> bool:
    """The listing has its own descriptor, which is gone by then."""
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


@dataclass(frozen=True)
class Own:
    needs_reference: bool = True
    needs_entropy_gradient: bool = False

    def __call__(self, inputs: object) -> None:
        return None


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory."""
    (tmp_path / "my_losses_of_a_test.py").write_text(
        "class Ready:\n"
        "    needs_reference = needs_entropy_gradient = False\n"
        "    def __call__(self, inputs): pass\n"
        "ready = Ready()\n"
        "def bare(inputs): pass\n"
        "class Picky(Ready):\n"
        "    def __init__(self, beta): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return "my_losses_of_a_test"


def test_a_loss_is_imported_from_the_working_directory(module: str) -> None:
    made, ready = load_loss(f"{module}:Ready"), load_loss(f"{module}:ready")
    assert (made.needs_reference, ready.needs_reference) == (False, False)
    built = build_loss(Objective(loss="x:y"), made)
    assert (built.needs_reference, built.needs_entropy_gradient) == (False, False)


def test_a_loss_that_is_given_is_taken_as_it_is_or_made() -> None:
    own = Own()
    assert load_loss("__main__:Own", own) is own
    assert load_loss("__main__:Own", Own) == own


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("bare", "give it needs_reference and needs_entropy_gradient"),
        ("Picky", "TypeError: .*beta"),
        ("nothing", "AttributeError"),
    ],
)
def test_what_is_no_loss_is_refused(module: str, attribute: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"objective\.loss = {module}:{attribute}: .*{reason}"):
        load_loss(f"{module}:{attribute}")


def test_a_loss_that_was_given_in_python_is_not_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"was given in Python; go on from there: rlstack\.run"):
        load_loss("__main__:NoSuchLoss")
