"""The prompts of a run, from its settings: read, templated and tokenized before any process starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from rlstack.config.schema import RunConfig, Task
from rlstack.data.datasets import load_task
from rlstack.data.records import Prompt
from rlstack.data.sampling import PromptSampler


def load_prompts(config: RunConfig) -> tuple[PromptSampler, list[Prompt]]:
    """The sampler of the training prompts, and the held-out prompts of `evaluation.tasks` (may be empty).

    Raises:
        ConfigError: a file is missing or malformed, or a prompt leaves no room for `rollout.max_new_tokens`.
    """
    tokenizer, room = tokenizer_and_room(config)
    training = _load_tasks(
        config.data.tasks, "data.tasks", tokenizer, room, filter_overlong=config.data.filter_overlong
    )
    weights = {task.name: task.weight for task in config.data.tasks}
    sampler = PromptSampler(training, weights, seed=config.run.seed)
    return sampler, _held_out(config, tokenizer, room)


def load_held_out(config: RunConfig) -> list[Prompt]:
    """The prompts of `evaluation.tasks` alone; raises as `load_prompts`."""
    return _held_out(config, *tokenizer_and_room(config))


def tokenizer_and_room(config: RunConfig) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer of `policy.model`, and the longest prompt that leaves room for an answer, in tokens."""
    logging.set_verbosity_error()  # a prompt that is too long is told once, by load_task
    folder = Path(config.policy.model)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer, _context_length(folder) - config.rollout.max_new_tokens


def _held_out(config: RunConfig, tokenizer: PreTrainedTokenizerBase, room: int) -> list[Prompt]:
    held_out = _load_tasks(config.evaluation.tasks, "evaluation.tasks", tokenizer, room)
    limit = config.evaluation.num_prompts
    return [prompt for prompts in held_out.values() for prompt in prompts[:limit]]


def _load_tasks(
    tasks: Sequence[Task],
    where: str,
    tokenizer: PreTrainedTokenizerBase,
    room: int,
    *,
    filter_overlong: bool = False,
) -> dict[str, list[Prompt]]:
    return {
        task.name: load_task(
            task,
            tokenizer,
            max_prompt_tokens=room,
            where=f"{where}[{i}]",
            filter_overlong=filter_overlong,
        )
        for i, task in enumerate(tasks)
    }


def _context_length(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])
