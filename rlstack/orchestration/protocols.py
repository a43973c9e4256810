"""The methods that the controller calls in other processes, by the kind of role that has them.

The controller imports these protocols and not the classes that satisfy them, which need megatron or vLLM:
`role.start(PolicyRank.train_step, batches)` is one Ray call of `PolicyWorker.train_step`. mypy checks each
class against its protocol where it is built: in policy_group.py, engine_group.py and reward_group.py. The
phase of a method is what the timeline shows while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rlstack.checkpoint.manifest import Digest
from rlstack.config.schema import TransferMethod
from rlstack.data.records import MicroBatch, Prompt, Rollout, Score
from rlstack.orchestration.role_host import phase
from rlstack.rewards.scorer import Question

Logprobs = tuple[float, ...]  # of the probe's tokens after the first, in nats


class Probed(Protocol):
    """A process that holds weights of the policy, or a part of them."""

    @phase("sync")
    def probe(self, token_ids: Sequence[int]) -> Logprobs | None:
        """The logprobs of token_ids[1:], each given those before it; None on ranks that do not have them."""

    def quantised_weights(self) -> list[str]:
        """Hugging Face names of the weights that the process multiplies with in FP8."""


class PolicyRank(Probed, Protocol):
    """One rank of the policy: rlstack.policy.worker.PolicyWorker."""

    @phase("start_up")
    def serve(self, host: str | None) -> tuple[str, int | Path]:
        """Open the rendezvous of the ranks, on rank 0; the arguments for start()."""

    @phase("start_up", opens_connections=True)
    def start(self, host: str, where: int | Path) -> None:
        """Meet the other ranks, build the model and the optimiser, load the weights."""

    @phase("train")
    def train_step(self, batches: Sequence[MicroBatch]) -> dict[str, float] | None:
        """One optimiser step on the micro-batches of its data-parallel rank; the metrics on one rank."""

    @phase("train")
    def skip_step(self) -> None:
        """Count a step without examples."""

    @phase("train")
    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate of all steps to come by `factor`."""

    @phase("sync")
    def sync_reference(self, version: int) -> None:
        """Make the current weights, which are `version`, the reference's."""

    def export(self, folder: Path) -> None:
        """Write the weights to `folder` for transformers; replaces it."""

    @phase("sync", opens_connections=True)
    def open_transfer(self, host: str, port: int, *, method: TransferMethod, num_receivers: int) -> None:
        """Meet the engines' workers, `num_receivers` of them, at the store at (`host`, `port`)."""

    @phase("sync")
    def close_transfer(self, method: TransferMethod) -> None:
        """Leave the engines' workers, those that still wait for something from here included."""

    @phase("sync")
    def begin_send(self, version: int, method: TransferMethod, receivers: list[int] | None = None) -> None:
        """Start to send the weights, which are `version`; they stay as they are until fence().

        receivers: the engine workers that take part, counted over all engines; None: all.
        """

    @phase("sync")
    def fence(self, method: TransferMethod) -> dict[str, float]:
        """Wait until what begin_send() started has left; figures of the round, {} on ranks without one."""

    @phase("sync")
    def serve_version(self, version: int) -> None:
        """Have the model hold `version`, which the engines had last, until end_serving()."""

    @phase("sync")
    def end_serving(self) -> None:
        """Have the model hold the policy's own weights again."""

    @phase("save")
    def save(self, folder: Path) -> None:
        """Take a snapshot and start to write it to `folder`/policy; training may go on."""

    @phase("save")
    def is_saved(self) -> bool:
        """Return True if finish_save() would not have to wait for this rank's disk."""

    @phase("save")
    def finish_save(self) -> dict[str, Digest]:
        """Wait for what save() has begun; digests of this rank's files, by their paths in the checkpoint."""

    @phase("start_up")
    def verify(self, folder: Path) -> None:
        """Read every file of the policy in the checkpoint `folder`, each on one rank."""

    @phase("start_up")
    def restore(self, folder: Path) -> None:
        """Continue from the checkpoint `folder`, of any layout."""

    @phase("sync")
    def release_memory(self) -> None:
        """Give the memory back that only torch's allocator holds, to another process on the same GPU."""


class GeneratorEngine(Probed, Protocol):
    """One vLLM engine: rlstack.rollout.engine.Engine."""

    @phase("start_up")
    def warm_up(self) -> None:
        """Choose or compile the kernels that the first rollouts need."""

    @phase("generate")
    def generate_stream(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float,
        top_p: float,
        seeds: Sequence[int],
        version: int | None = None,
        number: int | None = None,
        is_profiled: bool = False,
    ) -> Iterator[list[tuple[int, tuple[Rollout, ...]]]]:
        """`n` rollouts of each prompt, as (index of the prompt, its rollouts) once all of them have ended."""

    def drop_streams(self, *, before: int) -> None:
        """End the streams with lower numbers, whether they have begun or not. From any thread."""

    @phase("sync")
    def sleep(self) -> None:
        """Give up the GPU's memory."""

    @phase("sync")
    def wake(self, *, weights_only: bool = False) -> None:
        """Take the memory again that sleep() gave up; `weights_only` before a sync."""

    @phase("sync", opens_connections=True)
    def open_transfer(
        self, host: str, port: int, *, method: TransferMethod, first_receiver: int, num_receivers: int
    ) -> None:
        """Meet the policy's ranks at the store at (`host`, `port`), as receivers `first_receiver` and up."""

    @phase("sync")
    def begin_receive(self, version: int, method: TransferMethod, receivers: list[int] | None = None) -> None:
        """Receive the weights of `version` while the engine samples with those that it has.

        receivers: as of PolicyRank.begin_send; this engine's workers are among them.
        """

    @phase("sync")
    def commit_receive(self, version: int, method: TransferMethod) -> Mapping[str, float]:
        """Load the weights of `version`, which was begun: bytes, receive_s, wait_s, land_s and verified."""

    def close(self) -> None:
        """End the processes that vLLM started."""


class RewardModelReplica(Protocol):
    """One replica of a reward model: rlstack.rewards.reward_model.RewardModel."""

    @phase("start_up")
    def warm_up(self) -> None:
        """Choose the kernels that the first scores need."""

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """One score for each response of each question, in their order."""
