"""One sequence as the micro-batches that every rank takes part in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlstack.config.parallel import micro_batch_multiple
from rlstack.config.schema import Policy
from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch, Prompt, Rollout, TrainingExample


def probe_batches(token_ids: Sequence[int], policy: Policy, *, version: int) -> list[list[MicroBatch]]:
    """[data-parallel rank][micro-batch]; the first rank's first one is the sequence, others are fillers."""
    rest = np.array(token_ids[1:], np.int32)
    rollout = Rollout(
        token_ids=rest,
        generator_logprobs=np.zeros(len(rest), np.float32),
        text="",
        finished=True,
        version=version,
    )
    prompt = Prompt(task="probe", row=0, problem="", token_ids=np.array(token_ids[:1], np.int32))
    return pack(
        [TrainingExample.of_rollout(prompt=prompt, rollout=rollout, advantage=0.0)],
        data_parallel=policy.data_parallel,
        micro_batch_tokens=policy.micro_batch_tokens,
        version=version,
        multiple=micro_batch_multiple(policy),
    )
