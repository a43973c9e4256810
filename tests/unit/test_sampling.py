from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rlstack.data.records import Prompt
from rlstack.data.sampling import PromptSampler


def task_of(name: str, size: int) -> list[Prompt]:
    return [Prompt(task=name, row=row, problem="", token_ids=(1,)) for row in range(size)]


@given(seed=st.integers(), size=st.integers(1, 30), num_prompts=st.integers(1, 12), epochs=st.integers(1, 4))
def test_every_epoch_has_each_prompt_once(seed: int, size: int, num_prompts: int, epochs: int) -> None:
    sampler = PromptSampler({"a": task_of("a", size)}, {"a": 0.3}, seed=seed)
    num_steps = -(-epochs * size // num_prompts)
    rows = [prompt.row for step in range(num_steps) for prompt in sampler.take(step, num_prompts)]
    for epoch in range(epochs):
        assert sorted(rows[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(steps=st.lists(st.integers(0, 500), max_size=10), step=st.integers(0, 500), seed=st.integers())
def test_a_step_does_not_depend_on_what_was_asked_before(steps: list[int], step: int, seed: int) -> None:
    tasks, weights = {"a": task_of("a", 7), "b": task_of("b", 11)}, {"a": 1.0, "b": 2.0}
    used = PromptSampler(tasks, weights, seed=seed)
    for earlier in steps:
        used.take(earlier, 5)
    assert used.take(step, 5) == PromptSampler(tasks, weights, seed=seed).take(step, 5)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5))
def test_tasks_are_mixed_by_weight_in_every_stretch(weights: list[float]) -> None:
    by_name = {str(i): weight for i, weight in enumerate(weights)}
    sampler = PromptSampler({name: task_of(name, 3) for name in by_name}, by_name, seed=0)
    for num_prompts in (50, 5000):
        counts = Counter(prompt.task for prompt in sampler.take(0, num_prompts))
        for name, weight in by_name.items():
            share = weight / sum(weights)
            assert abs(counts[name] - num_prompts * share) <= len(weights) + num_prompts * len(weights) / 1000


def test_seed_and_epoch_change_the_order() -> None:
    def order(seed: int, step: int) -> list[int]:
        sampler = PromptSampler({"a": task_of("a", 50)}, {"a": 1.0}, seed=seed)
        return [prompt.row for prompt in sampler.take(step, 50)]

    assert len({tuple(order(seed, step)) for seed in (0, 1) for step in (0, 1)}) == 4
