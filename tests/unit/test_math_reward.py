from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Data, Reward, RunConfig, Task
from rlstack.data.boxed import MAX_ANSWER_CHARS, MAX_TAIL_CHARS, boxed_answer, num_parts
from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.rewards.math import MathVerifier
from rlstack.rewards.router import Rewards
from rlstack.rewards.worker_process import WorkerProcess

ENDLESS = "9^{9^{9^{9}}}"  # sympy computes it in one C call that nothing in Python interrupts
OK = Score(reward=1.0)
TIMEOUT = Score(reward=None, outcome=Outcome.timeout)
ERROR = Score(reward=None, outcome=Outcome.error)


def answer(expression: str) -> str:
    return f"So: The final answer is $\\boxed{{{expression}}}$. I hope it is correct."


def workers_of(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "rlstack.rewards.math_worker" in child.cmdline()]


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(workers=1, timeout_s=1.0) as shared:
        yield shared


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (answer("11/12"), "11/12"),
        (answer(r"\frac{1}{2}"), r"\frac{1}{2}"),
        (answer(r"\left\{1,2\right\}"), r"\left\{1,2\right\}"),
        (answer(r"\{"), r"\{"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (answer("1") + answer("2"), "2"),
        (r"\boxed{1} The final answer is 2.", None),
        (r"\boxed{1} The final answer is $\boxed{2", None),
        (r"The final answer is \boxed{1} or \boxed{2", "1"),
        ("The final answer is $11/12$. I hope it is correct.", None),
        (answer(" "), None),
        ("", None),
    ],
)
def test_the_last_complete_box_after_the_marker_counts(text: str, expected: str | None) -> None:
    assert boxed_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So the answer is \boxed 5.", "5"),
        (r"\boxed5", "5"),
        (r"\boxed {-1,234}", "-1,234"),
        (r"\boxed\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed B.", "B"),
        (r"\fbox{5}", "5"),
        (r"Put it in \boxed and stop. \boxed{5}", "5"),
        (r"Put it in \boxed and stop.", None),
        (r"Put it in \boxed{}.", None),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"x \\\boxed{5}", "5"),
        (r"\boxed{5}. The final answer is 5.", "5"),
        (r"\boxed{5}. The final answer is 6.", None),
        (r"\boxed{5}. The final answer is given above.", "5"),
        (r"\boxed{5}. The final answer is not given. Or is it?", "5"),
        (r"\boxed{5}. The final answer is 6 as shown above.", None),
        (r"\boxed{14} is wrong, so \boxed{15}.", "15"),
        (r"\boxed{1}{\boxed{2}", "2"),
    ],
)
def test_a_box_is_found_in_all_its_forms(text: str, expected: str | None) -> None:
    assert boxed_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        (r"So \boxed{3} and \boxed{4}.", "3, 4", "3, 4"),
        (r"$x=\boxed{2}$ or $x=\boxed{9}$", r"x = 2 \text{ or } x = 9", "2, 9"),
        (r"So \boxed{3} and \boxed{4}.", "4", "4"),
        (r"\boxed{3} is wrong, so \boxed{4}.", "3, 4", "4"),
        (r"So \boxed{1}, \boxed{2}, \boxed{3}.", "2, 3", "3"),
        (r"So \boxed{(1,2)} and \boxed{(3,4)}.", "(3,4)", "(3,4)"),
    ],
)
def test_boxes_side_by_side_are_the_parts_of_a_list(text: str, gold: str, expected: str) -> None:
    assert boxed_answer(text, num_parts=num_parts(gold)) == expected


@pytest.mark.parametrize(
    ("distance", "expected"), [(5000, "1"), (MAX_TAIL_CHARS - 9, "1"), (MAX_TAIL_CHARS, None)]
)
def test_a_box_may_be_far_from_the_end(distance: int, expected: str | None) -> None:
    assert boxed_answer(r"\boxed{1}" + "x" * distance) == expected


@pytest.mark.parametrize(("size", "is_answer"), [(MAX_ANSWER_CHARS - 2, True), (MAX_ANSWER_CHARS + 1, False)])
def test_a_box_of_thousands_of_characters_is_no_answer(size: int, is_answer: bool) -> None:
    assert (boxed_answer(r"\boxed{1}\boxed{" + "1" * size + "}") is not None) == is_answer


balanced = st.recursive(
    st.text("ab1^ ", max_size=3) | st.sampled_from([r"\{", r"\}", r"\\"]),
    lambda inner: st.lists(inner, max_size=3).map("".join) | inner.map("{{{}}}".format),
)


@given(balanced.filter(str.strip))
def test_a_box_is_read_to_its_own_brace(expression: str) -> None:
    assert boxed_answer(answer(expression)) == expression.strip()


@pytest.mark.parametrize(
    ("expression", "reward"),
    [("11/12", 1), ("22/24", 1), (r"\frac{22}{24}", 1), ("0.9166", 0), ("-11/12", 0), ("11/", 0), ("1/0", 0)],
)
def test_equal_values_are_right_in_any_form(verifier: MathVerifier, expression: str, reward: float) -> None:
    assert verifier.score([(answer(expression), "11/12")]) == [Score(reward=reward)]


def test_scores_come_in_the_order_of_the_items(verifier: MathVerifier) -> None:
    items = [(answer(str(i % 3)), str(i % 2)) for i in range(24)] + [("no box", "0")]
    expected = [float(i % 3 == i % 2) for i in range(24)] + [0.0]
    assert [score.reward for score in verifier.score(items)] == expected


def test_a_computation_over_the_limit_is_a_timeout_and_others_are_scored(
    verifier: MathVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    items = [(answer("1/3"), "2/6"), (answer(ENDLESS), "3"), (answer(ENDLESS), "3"), (answer("5"), "5")]
    assert verifier.score(items) == [OK, TIMEOUT, TIMEOUT, OK]
    assert len(caplog.records) == 1, "equal items are verified once"


def test_a_process_that_was_killed_is_replaced_and_its_question_asked_again(verifier: MathVerifier) -> None:
    verifier.score([(answer("6"), "6")])
    (process,) = workers_of(os.getpid())
    process.kill()
    assert verifier.score([(answer("6"), "6")]) == [OK], "remembered, so that no process is asked"
    assert verifier.score([(answer("7"), "7")]) == [OK]
    assert workers_of(os.getpid()) != [process]


def test_a_stopped_process_is_not_waited_for_and_blamed_on_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlstack.rewards.math_process.STALLED_S", 0.5)
    with MathVerifier(workers=1, timeout_s=5.0) as verifier:  # one that the others do not share
        (process,) = [worker for worker in workers_of(os.getpid()) if "5.0" in worker.cmdline()]
        process.suspend()
        assert verifier.score([(answer("7"), "7")]) == [OK]
        assert not process.is_running()


def test_a_gold_answer_that_nothing_could_equal_is_an_error(verifier: MathVerifier) -> None:
    assert verifier.score([(answer("7"), "")]) == [ERROR]


def test_ctrl_c_is_not_the_processs_business(verifier: MathVerifier) -> None:
    (process,) = workers_of(os.getpid())
    process.send_signal(signal.SIGINT)
    assert verifier.score([(answer("8"), "8")]) == [OK]
    assert workers_of(os.getpid()) == [process]


def test_threads_may_score_at_once() -> None:
    with MathVerifier(workers=2, timeout_s=20.0) as verifier, ThreadPoolExecutor(4) as threads:
        batches = [[(answer(str(i)), str(i)), (answer(str(i)), "0")] for i in range(1, 9)]
        assert list(threads.map(verifier.score, batches)) == [[OK, Score(reward=0.0)]] * 8


def test_close_ends_a_process_that_computes() -> None:
    others = workers_of(os.getpid())
    verifier = MathVerifier(workers=1, timeout_s=600.0)
    (process,) = [worker for worker in workers_of(os.getpid()) if worker not in others]
    used_s = process.cpu_times().user
    with ThreadPoolExecutor(1) as threads:
        scores = threads.submit(verifier.score, [(answer(ENDLESS), "3")])
        while process.cpu_times().user < used_s + 0.1 and not scores.done():
            time.sleep(0.01)
        verifier.close()
        with pytest.raises(RuntimeError, match="closed"):
            scores.result()
    assert not process.is_running()


@pytest.mark.parametrize("expression", ["1", ENDLESS], ids=["idle", "computing"])
def test_processes_end_when_their_parent_is_killed(expression: str) -> None:
    program = (
        "import sys; from rlstack.rewards.math import MathVerifier; verifier = MathVerifier(2, 2.0)\n"
        "print(flush=True); verifier.score([(sys.argv[1], '3')]); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, answer(expression)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"\n"
    workers = workers_of(parent.pid)
    assert len(workers) == 2
    parent.kill()
    parent.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1]


def group_of(*texts: str, gold: str) -> RolloutGroup:
    return RolloutGroup(
        step=0,
        prompt=Prompt(task="sums", row=0, problem="", token_ids=(1,), answer=gold),
        rollouts=tuple(
            Rollout(token_ids=(1,), generator_logprobs=(0.0,), text=text, finished=True, version=0)
            for text in texts
        ),
    )


def test_groups_are_scored_in_order() -> None:
    config = RunConfig(data=Data(tasks=[Task(name="sums", path="")]), reward=Reward(timeout_s=20.0))
    groups = [group_of(answer("1/2"), "nothing", gold="2/4"), group_of(answer("1/2"), gold="3")]
    with Rewards(config) as rewards:
        scored = rewards.score(groups)
    assert [scored_group.group for scored_group in scored] == groups
    assert [[score.reward for score in s.scores] for s in scored] == [[1.0, 0.0], [0.0]]


def test_rollouts_without_a_reward_are_counted_and_left_out_of_the_mean() -> None:
    scores = (OK, TIMEOUT, ERROR, Score(reward=0.0), TIMEOUT)
    scored = ScoredGroup(group=group_of(*"abcde", gold="1"), scores=scores)
    metrics = Rewards.metrics([scored])
    assert metrics["reward/mean"] == metrics["reward/mean/sums"] == 0.5
    assert (metrics["reward/timeouts"], metrics["reward/errors"], metrics["reward/truncated"]) == (2, 1, 0)
    assert "reward/mean" not in Rewards.metrics([])


@pytest.mark.slow
def test_an_actor_may_score() -> None:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20)
    try:
        verifier = ray.remote(MathVerifier).remote(1, 20.0)
        items = [(answer("1/2"), "2/4"), (answer("1"), "2")]
        assert ray.get(verifier.score.remote(items)) == [OK, Score(reward=0.0)]
    finally:
        ray.shutdown()


def test_labels_of_real_rollouts_are_reproduced() -> None:
    """Against Qwen2.5-Math's labels of 480 answers to MATH problems."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("RLSTACK_SHARED_DATA", default)) / "math_rollouts_60x8.jsonl"
    if not path.exists():
        pytest.skip("math_rollouts_60x8.jsonl is not here; set RLSTACK_SHARED_DATA to its folder")
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    items = [(text, row["answer"]) for row in rows for text in row["responses"]]
    labels = [float(label) for row in rows for label in row["correct"]]
    with MathVerifier(workers=1, timeout_s=20.0) as verifier:
        scores = verifier.score(items)
    assert {score.outcome for score in scores} == {Outcome.ok}
    agreed = sum(score.reward == label for score, label in zip(scores, labels, strict=True))
    assert agreed >= 0.99 * len(labels) == 475.2


def test_answers_travel_together_and_one_that_ends_the_process_costs_no_other_its_verdict(
    verifier: MathVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen to a message; where one of them is out of time, all of its message go again, one by one."""
    sizes: list[int] = []
    ask = WorkerProcess.ask

    def counted(process: WorkerProcess, request: Any, *, num_parts: int = 1) -> Any:
        sizes.append(num_parts)
        return ask(process, request, num_parts=num_parts)

    monkeypatch.setattr(WorkerProcess, "ask", counted)
    items = [(answer(f"{i}.25"), f"{i}.25") for i in range(1000, 1040)]
    assert verifier.score(items) == [OK] * 40
    assert sizes == [16, 16, 8]
    sizes.clear()
    items = [(answer(f"{i}.75"), f"{i}.75") for i in range(1000, 1004)]
    assert verifier.score([*items[:2], (answer(f"2+{ENDLESS}"), "7"), *items[2:]]) == [
        OK,
        OK,
        TIMEOUT,
        OK,
        OK,
    ]
    assert sizes == [5, 1, 1, 1, 1, 1]
