"""run.deterministic: the environment that its roles compute in, and what it refuses. Pure.

megatron-core and Transformer Engine take their deterministic code where torch is told to, and
NVTE_ALLOW_NONDETERMINISTIC_ALGO is 0; vLLM takes kernels whose results do not depend on the other sequences
of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from rlstack.config.arithmetic import Arithmetic, Version, show_version
from rlstack.config.precision import rollout_precision
from rlstack.config.reward_names import used_models
from rlstack.config.schedule_words import AUTO
from rlstack.config.schema import LogprobKernel, Precision, RewardEngine, RunConfig

# vllm/envs.py, VLLM_BATCH_INVARIANT; before Hopper its fp32 head is not among the products that it replaces.
BATCH_INVARIANT: Version = (9, 0)

# The same in policy and engines, because the transfer's communicator is of both, and NCCL reconciles nothing.
# Switches (NVLS, CollNet) add in an order of their own; rings add in that of the ranks.
_NCCL = {
    "NCCL_ALGO": "Ring",
    "NCCL_COLLNET_ENABLE": "0",
    "NCCL_LAUNCH_MODE": "GROUP",
    "NCCL_NVLS_ENABLE": "0",
}
_POLICY = _NCCL | {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
}
# Others are vLLM's to set: model_executor/determinism/batch_invariant.py, override_envs_for_invariance.
_ENGINE = _NCCL | {"VLLM_BATCH_INVARIANT": "1"}

_KERNELS = (LogprobKernel.auto, LogprobKernel.torch, LogprobKernel.triton, LogprobKernel.reference)
_GIVEN = "with run.deterministic = true"


def policy_environment(config: RunConfig) -> dict[str, str]:
    """Variables of a policy rank's process, to be set before it touches a GPU; none without the setting."""
    return dict(_POLICY) if config.run.deterministic else {}


def engine_environment(config: RunConfig, *, cuda: bool) -> dict[str, str]:
    """Variables of an engine's process, to be set before vLLM is imported; none on a CPU.

    vLLM's kernels are for GPUs: on a CPU the variable makes it call Triton, which has none there.
    """
    return dict(_ENGINE) if config.run.deterministic and cuda else {}


def deterministic_problems(config: RunConfig) -> Iterator[str]:
    """The settings that cannot give the same bits again, on any machine."""
    if not config.run.deterministic:
        return
    for key, given, precision in (
        ("policy.precision", config.policy.precision, config.policy.precision),
        ("rollout.precision", config.rollout.precision, rollout_precision(config)),
    ):
        if precision is Precision.fp8:
            accepted = "fp32 | bf16 is accepted"
            yield _refusal(key, given, accepted, "FP8's scales and products are not; set it to bf16")
    if config.policy.logprob_kernel not in _KERNELS:
        accepted = f"{' | '.join(_KERNELS)} is accepted"
        yield _refusal("policy.logprob_kernel", config.policy.logprob_kernel, accepted, "set it to auto")
    share = config.schedule.adaptive.max_sync_share
    if config.schedule.sync_interval == AUTO and share is not None:
        remedy = "for it makes s depend on times; set it to null, or replay another run's intervals"
        yield _refusal("schedule.adaptive.max_sync_share", share, "null is accepted", remedy)
    yield from _rewards(config)
    for name in sorted(config.cluster.env.keys() & (_POLICY.keys() | _ENGINE.keys())):
        yield _refusal(f"cluster.env.{name}", config.cluster.env[name], "nothing is accepted", "leave it out")


def _rewards(config: RunConfig) -> Iterator[str]:
    used = used_models(config)
    for i, model in enumerate(config.reward.models):
        if model in used and model.engine is not RewardEngine.transformers:
            key, accepted = f"reward.models[{i}].engine", "transformers is accepted"
            remedy = "whose batches are the same each time; set it to transformers"
            yield _refusal(key, model.engine, accepted, remedy)


def deterministic_machine_problems(config: RunConfig, machine: Arithmetic) -> Iterator[str]:
    """The settings that cannot give the same bits again on `machine`, which runs engines."""
    capability = machine.compute_capability
    if config.run.deterministic and capability is not None and capability < BATCH_INVARIANT:
        yield (
            "run.deterministic = true: engines need a GPU of compute capability 9.0 or more (Hopper, later), "
            f"for vLLM's batch-invariant kernels, and this has {show_version(capability)}; set it to false"
        )


def _refusal(key: str, given: object, accepted: str, remedy: str) -> str:
    shown = given.value if isinstance(given, StrEnum) else given
    separator = "," if remedy.startswith(("for ", "whose ")) else ";"
    return f"{key} = {shown}: {accepted} {_GIVEN}{separator} {remedy}"
