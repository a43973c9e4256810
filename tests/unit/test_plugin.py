from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rlstack.config.schema import Reward
from rlstack.data.records import Outcome, Score
from rlstack.errors import ConfigError
from rlstack.rewards.plugin import PluginScorer
from rlstack.rewards.scorer import Question

TIMEOUT = Score(reward=None, outcome=Outcome.timeout)
ERROR = Score(reward=None, outcome=Outcome.error)
MODULE = '''
import os, sys, time

def length(problem, answer, responses):
    """Misbehaves as the problem asks."""
    print("to stdout", file=sys.stdout, flush=True)
    assert sys.stdin.read() == ""
    match problem:
        case "raise":
            raise ValueError("no\\nreward")
        case "die":
            os._exit(3)
        case "exit":
            sys.exit(0)
        case "killed" | "stopped":
            struck = len(os.listdir("strikes"))
            if struck < int(answer):
                open(f"strikes/{struck}", "w").close()
                os.kill(os.getpid(), 9 if problem == "killed" else 19)
        case "sleep":
            time.sleep(600)
        case "signal":
            import signal
            signal.alarm(0)
        case "too few":
            return [1.0]
        case "text":
            return ["good" for _ in responses]
        case "some":
            return [None, float("nan"), float("inf"), 2]
    return [len(response) + (0 if answer is None else 1000) for response in responses]

class Counter:
    def __init__(self):
        self.calls = 0

    def score(self, problem, answer, responses):
        self.calls += 1
        return [self.calls] * len(responses)

class Exact:
    verdicts = True

    def score(self, problem, answer, responses):
        return [0.5 if problem == "half" else response == answer for response in responses]

nothing = 3
'''

Start = Callable[..., PluginScorer]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts plug-ins of MODULE, which is in the working directory."""
    (tmp_path / "my_rewards.py").write_text(MODULE)
    (tmp_path / "json.py").write_text("raise ImportError('not the json of the standard library')")
    monkeypatch.chdir(tmp_path)
    running: list[PluginScorer] = []

    def start(attribute: str = "length", workers: int = 1, timeout_s: float = 60.0) -> PluginScorer:
        settings = Reward(workers=workers, plugin_timeout_s=timeout_s)
        running.append(PluginScorer(f"my_rewards:{attribute}", settings, setting="data.tasks[0].reward"))
        return running[-1]

    yield start
    for plugin in running:
        plugin.close()


def ask(problem: str = "", *responses: str, answer: str | None = None) -> Question:
    return Question(problem=problem, answer=answer, responses=responses or ("a", "bb"))


def rewards(*values: float) -> tuple[Score, ...]:
    return tuple(Score(reward=value) for value in values)


def test_a_function_scores_each_response(start: Start) -> None:
    questions = [ask("p", "a", "", "höhe"), ask("q", "a", answer="11/12")]
    assert start().score(questions) == [rewards(1, 0, 4), rewards(1001)]


def test_a_class_is_made_once(start: Start) -> None:
    assert start("Counter").score([ask(), ask()]) == [rewards(1, 1), rewards(2, 2)]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [("raise", ERROR), ("die", ERROR), ("exit", ERROR), ("too few", ERROR), ("text", ERROR)],
)
def test_a_call_that_fails_is_counted_and_the_next_one_works(
    start: Start, problem: str, expected: Score
) -> None:
    assert start().score([ask(problem), ask()]) == [(expected, expected), rewards(1, 2)]


@pytest.mark.parametrize("what", ["killed", "stopped"])
def test_what_another_does_to_the_process_is_not_the_calls_fault_unless_it_happens_again(
    start: Start, tmp_path: Path, what: str
) -> None:
    (tmp_path / "strikes").mkdir()
    plugin = start(timeout_s=1.0)
    assert plugin.score([ask(what, answer="1")]) == [rewards(1001, 1002)]
    outcome = ERROR if what == "killed" else TIMEOUT
    assert plugin.score([ask(what, answer="3")]) == [(outcome, outcome)]
    assert plugin.score([ask()]) == [rewards(1, 2)]


def test_a_request_that_nobody_reads_is_late(start: Start, tmp_path: Path) -> None:
    """It is longer than what the pipe holds."""
    (tmp_path / "strikes").mkdir()
    plugin = start(timeout_s=2.0)
    for child in psutil.Process().children():
        if "my_rewards:length" in child.cmdline():
            child.suspend()
    assert plugin.score([ask("", "a" * 1_000_000)]) == [rewards(1_000_000)]


def test_a_call_over_the_limit_is_ended(start: Start) -> None:
    plugin = start(timeout_s=1.0)
    assert plugin.score([ask("signal"), ask("sleep")]) == [rewards(1, 2), (TIMEOUT, TIMEOUT)]
    assert plugin.score([ask()]) == [rewards(1, 2)]


def test_what_is_no_number_is_an_error_of_its_response_alone_and_none_is_as_it_says(start: Start) -> None:
    (scores,) = start().score([ask("some", "a", "b", "c", "d")])
    assert scores == (Score(reward=None, outcome=Outcome.none), ERROR, ERROR, Score(reward=2.0))


def test_a_plugin_says_itself_that_its_rewards_are_verdicts(start: Start) -> None:
    assert not start().gives_verdicts
    exact = start("Exact")
    assert exact.gives_verdicts
    assert exact.score([ask("p", "a", "b", answer="a"), ask("half", answer="a")]) == [
        rewards(1, 0),
        (ERROR, ERROR),
    ]


@pytest.mark.parametrize(("verdicts", "expected"), [(True, True), (None, False)])
def test_a_function_that_is_given_says_it_by_an_attribute(verdicts: bool | None, expected: bool) -> None:
    def right(problem: str, answer: str | None, responses: list[str]) -> list[float]:
        return [1.0 for _ in responses]

    if verdicts is not None:
        right.verdicts = verdicts  # type: ignore[attr-defined]
    plugin = PluginScorer("__main__:right", Reward(), setting="reward", given=right)
    try:
        assert plugin.gives_verdicts is expected
    finally:
        plugin.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent", "AttributeError: module 'my_rewards' has no attribute 'absent'"),
        ("nothing", "TypeError: nothing is neither a function"),
        ("length.more", "AttributeError"),
    ],
)
def test_a_plugin_that_is_not_there_is_named_with_its_setting(start: Start, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.tasks\[0\]\.reward = my_rewards:{name}: .*{why}"):
        start(name)


def test_an_import_that_fails_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text("import missing_package")
    with pytest.raises(ConfigError, match="ModuleNotFoundError: No module named 'missing_package'"):
        start()


def test_processes_end_when_their_parent_is_killed_in_a_call(start: Start) -> None:
    program = (
        "import os, sys; from rlstack.config.schema import Reward\n"
        "from rlstack.rewards.plugin import PluginScorer; from rlstack.rewards.scorer import Question\n"
        "plugin = PluginScorer('my_rewards:length', Reward(), setting='reward'); print(flush=True)\n"
        "plugin.score([Question(problem='sleep', answer=None, responses=('a',))])"
    )
    # -P: a json.py is in the working directory.
    parent = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"\n"
    (worker,) = psutil.Process(parent.pid).children()
    time.sleep(0.5)  # into the call
    parent.kill()
    parent.communicate()
    assert not psutil.wait_procs([worker], timeout=30)[1]
