"""A scalar reward model: any Hugging Face sequence classifier with one output, read at the last token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open

from rlstack.config.schema import RewardEngine
from rlstack.config.schema import RewardModel as Settings
from rlstack.config.validate_rewards import context_length
from rlstack.data.records import Outcome, Score
from rlstack.model.files import check_files
from rlstack.rewards.conversations import ConversationTokenizer
from rlstack.rewards.scorer import Question, regroup

VLLM_HEAD = "score.weight"


class Engine(Protocol):
    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One score per token sequence."""
        ...


class RewardModel:
    """One copy of a reward model; a plain class, which Ray wraps as an actor."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(settings.path)
        check_files(folder, setting=f"the path of the reward model {settings.name}")
        max_tokens = settings.max_tokens or context_length(settings)
        self._tokenizer = ConversationTokenizer(folder, max_tokens=max_tokens)
        self._engine = _load(settings, folder, max_tokens=max_tokens)

    def warm_up(self) -> None:
        """Pay for what the first answers would: kernels chosen on first use."""
        self.score([Question(problem="a", answer=None, responses=("b",))])

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """See rewards.scorer.Scorer. A score that is not finite is an error.

        Equal conversations are scored once: in two batches of other widths their scores would differ in the
        last digits, and a group would have a best and a worst among answers that are the same.
        """
        conversations = self._tokenizer.conversations(questions)
        distinct = list(dict.fromkeys(tuple(conversation.token_ids) for conversation in conversations))
        reward_of = dict(zip(distinct, self._engine.score(distinct), strict=True))
        rewards = [reward_of[tuple(conversation.token_ids)] for conversation in conversations]
        scores = [
            Score(reward=reward, truncated=conversation.truncated)
            if math.isfinite(reward)
            else Score(reward=None, outcome=Outcome.error, truncated=conversation.truncated)
            for reward, conversation in zip(rewards, conversations, strict=True)
        ]
        return regroup(scores, questions)


def choose_engine(asked: RewardEngine, folder: Path, *, cuda: bool) -> RewardEngine:
    """vLLM on a GPU for a head that it can load, if the setting leaves the choice.

    On CPU the choice is transformers, which starts sooner; the two give the same scores, as the test
    tests/e2e/test_reward_models.py checks.
    """
    if asked is not RewardEngine.auto:
        return asked
    return RewardEngine.vllm if cuda and VLLM_HEAD in _weight_names(folder) else RewardEngine.transformers


def _weight_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            names.update(tensors.keys())
    return names


def _load(settings: Settings, folder: Path, *, max_tokens: int) -> Engine:
    if choose_engine(settings.engine, folder, cuda=torch.cuda.is_available()) is RewardEngine.transformers:
        from rlstack.rewards.transformers_engine import TransformersEngine

        return TransformersEngine(folder, batch_tokens=settings.batch_tokens)
    from rlstack.rewards.vllm_engine import VllmEngine

    return VllmEngine(
        folder,
        max_tokens=max_tokens,
        batch_tokens=settings.batch_tokens,
        tensor_parallel=settings.tensor_parallel,
        gpu_memory_fraction=settings.gpu_memory_fraction,
    )
