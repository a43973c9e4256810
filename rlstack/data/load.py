"""The prompts of a run, from its settings: read, templated and tokenized before any process starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rlstack.config.reward_names import used_models
from rlstack.config.schema import RunConfig, Task
from rlstack.config.weight_index import weight_files
from rlstack.data.chat_template import WORD, refuse_template
from rlstack.data.datasets import prompt_batches, that_fit
from rlstack.data.prompt_table import PromptTable, load_table, longest_tokens, table_key
from rlstack.data.records import Prompt
from rlstack.data.sampling import PromptSampler
from rlstack.errors import ConfigError
from rlstack.model.files import CONFIG, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenizer = Callable[[], "PreTrainedTokenizerBase"]


def load_prompts(config: RunConfig) -> tuple[PromptSampler, list[Prompt]]:
    """The sampler of the training prompts, and the held-out prompts of `evaluation.tasks` (may be empty).

    The tokenizer is loaded only for tasks whose prompts have not been kept on disk.

    Raises:
        ConfigError: a file is missing or malformed, or a prompt leaves no room for `rollout.max_new_tokens`.
    """
    tokenizer = _tokenizer_of(config)
    refuse_reward_models(config)
    training = _load_tasks(
        config, config.data.tasks, "data.tasks", tokenizer, filter_overlong=config.data.filter_overlong
    )
    weights = {task.name: task.weight for task in config.data.tasks}
    sampler = PromptSampler(training, weights, seed=config.run.seed)
    return sampler, _held_out(config, tokenizer)


def max_prompt_tokens(sampler: PromptSampler, held_out: Sequence[Prompt]) -> int:
    """Of the longest prompt of a run."""
    return max(sampler.max_tokens, longest_tokens(held_out))


def load_held_out(config: RunConfig) -> list[Prompt]:
    """The prompts of `evaluation.tasks` alone; raises as `load_prompts`."""
    refuse_reward_models(config)
    return _held_out(config, _tokenizer_of(config))


def tokenizer_and_room(config: RunConfig) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer of `policy.model`, and the longest prompt that leaves room for an answer, in tokens."""
    return _tokenizer_of(config)(), _room(config)


def _tokenizer_of(config: RunConfig) -> Tokenizer:
    """A function that loads the tokenizer of `policy.model` when it is first called."""

    @cache
    def load() -> PreTrainedTokenizerBase:
        from rlstack.data.tokenizer import load_tokenizer  # takes seconds, with transformers

        return load_tokenizer(Path(config.policy.model))

    return load


def _room(config: RunConfig) -> int:
    return _setting(config, "max_position_embeddings") - config.rollout.max_new_tokens


def load_reward_tokenizer(folder: Path, *, setting: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model, whose template takes a question and an answer.

    Raises ConfigError, naming `setting`, if it cannot be loaded, or if the template does not take them.
    """
    from rlstack.data.tokenizer import load_tokenizer  # takes seconds, with transformers

    tokenizer = load_tokenizer(folder, setting=setting)
    turns = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": WORD}]
    refuse_template(tokenizer, setting=setting, chat=turns, add_generation_prompt=False)
    return tokenizer


def refuse_reward_models(config: RunConfig) -> None:
    """Raise ConfigError for a reward model in use whose files are damaged, or cannot frame a chat."""
    used = used_models(config)
    for i, model in enumerate(config.reward.models):
        if model in used:
            folder, setting = Path(model.path), f"reward.models[{i}].path"
            files = weight_files(folder, setting=setting)
            if adapters := sorted({file.name for file in files.values() if file.name.startswith("adapter_")}):
                raise ConfigError(
                    f"{setting} = {folder}: has {adapters[0]} beside its weights; merge the adapter with "
                    "PEFT's merge_and_unload(), or move the file out of the folder"
                )
            load_reward_tokenizer(folder, setting=setting)


def _held_out(config: RunConfig, tokenizer: Tokenizer) -> list[Prompt]:
    held_out = _load_tasks(config, config.evaluation.tasks, "evaluation.tasks", tokenizer)
    limit = config.evaluation.num_prompts
    return [prompt for prompts in held_out.values() for prompt in prompts[:limit]]


def _load_tasks(
    config: RunConfig,
    tasks: Sequence[Task],
    section: str,
    tokenizer: Tokenizer,
    *,
    filter_overlong: bool = False,
) -> dict[str, PromptTable]:
    room, vocab_size = _room(config), _setting(config, "vocab_size")
    tables = {}
    for i, task in enumerate(tasks):
        where = f"{section}[{i}]"
        key = table_key(task, Path(config.policy.model), where=where)
        table = load_table(task, key, lambda: prompt_batches(task, tokenizer(), where=where))  # noqa: B023
        tables[task.name] = that_fit(
            table,
            task,
            max_prompt_tokens=room,
            where=where,
            filter_overlong=filter_overlong,
            vocab_size=vocab_size,
        )
    return tables


def _setting(config: RunConfig, key: str) -> int:
    """A number of the model's config.json."""
    return int(read_object(Path(config.policy.model) / CONFIG)[key])
