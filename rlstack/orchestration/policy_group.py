"""The policy: all megatron ranks as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from rlstack.checkpoint.manifest import Digest
from rlstack.config.parallel import data_parallel_rank, micro_batch_multiple, num_policy_ranks
from rlstack.config.schema import RunConfig
from rlstack.credit.assign import has_zero_loss
from rlstack.data.packing import pack
from rlstack.data.records import TrainingExample
from rlstack.errors import CheckpointError
from rlstack.model.architecture import Architecture
from rlstack.model.flops import ModelFlops
from rlstack.orchestration.home import Home
from rlstack.orchestration.protocols import PolicyRank
from rlstack.orchestration.roles import Call, PolicyLost, Role, RoleError, shared, wait_for
from rlstack.orchestration.work import work_metrics
from rlstack.rewards.handover import packed, unpacked

_START, _STEP, _CHECKPOINT = "policy.start_timeout_s", "policy.step_timeout_s", "checkpoint.timeout_s"

P = ParamSpec("P")
R = TypeVar("R")


def build_policy_worker(
    *, config: RunConfig, rank: int, world_size: int, own_loss: bytes | None
) -> PolicyRank:
    from rlstack.policy.worker import PolicyWorker  # before the loss, from whose folder nothing else comes

    loss = None if own_loss is None else unpacked(own_loss)
    return PolicyWorker(config, rank=rank, world_size=world_size, own_loss=loss)


class PolicyGroup:
    """One role per rank; every method is a call to all of them."""

    def __init__(
        self, config: RunConfig, *, logs: Path, home_of: Callable[[str], Home], own_loss: object = None
    ) -> None:
        """home_of: the home of a rank, by its name; own_loss: what objective.loss stands for."""
        self._config = config
        self._before_work: Callable[[], None] = _nothing
        self._flops = ModelFlops.of(Architecture.from_folder(Path(config.policy.model)))
        world_size = num_policy_ranks(config.policy)
        build = partial(
            build_policy_worker,
            config=config,
            world_size=world_size,
            own_loss=None if own_loss is None else packed(own_loss),
        )
        self.roles: list[Role[PolicyRank]] = [
            Role(
                name,
                log=logs / f"policy-{rank}.log",
                build=partial(build, rank=rank),
                home=home_of(name),
                lost=PolicyLost,
            )
            for rank, name in enumerate(f"policy rank {rank}" for rank in range(world_size))
        ]

    def start(self, host: str | None) -> None:
        """Join the ranks, build the model, load its weights.

        host: loopback, where all are on this machine; None: rank 0 listens at the address of its node.
        """
        serving = self.roles[0].start(PolicyRank.serve, host)
        ((host, where),) = self._wait([serving], doing="starting the policy", limit=_START)
        calls = self._start(PolicyRank.start, host, where)
        self._wait(calls, doing="building the policy", limit=_START)

    def before_work(self, do: Callable[[], None]) -> None:
        """Have `do` called before the ranks do what takes more memory than their state does."""
        self._before_work = do

    def train_step(self, examples: Sequence[TrainingExample], *, version: int) -> dict[str, float]:
        """One optimiser step on `examples`, whose rollouts are of `version`; its metrics.

        Without a single example the weights stay as they are and only the policy's version advances. Examples
        whose loss is 0 are examples: the step is taken, as far as the optimiser's momentum carries it.
        """
        if not examples:
            self._wait(self._start(PolicyRank.skip_step), doing="skipping a step")
            return {}
        policy = self._config.policy
        batches = pack(
            examples,
            data_parallel=policy.data_parallel,
            micro_batch_tokens=policy.micro_batch_tokens,
            version=version,
            cost=self._flops.forward,
            multiple=micro_batch_multiple(policy),
            has_zero_loss=partial(has_zero_loss, objective=self._config.objective),
        )
        self._before_work()
        shards = [shared(of_rank) for of_rank in batches]  # each goes to the nodes of its own ranks only
        calls = [
            role.start(PolicyRank.train_step, shards[data_parallel_rank(rank, policy)])
            for rank, role in enumerate(self.roles)
        ]
        reports = self._wait(calls, doing="training")
        report = next(report for report in reports if report is not None)
        has_reference_pass = "time/reference_s" in report
        return report | work_metrics(batches, self._flops, has_reference_pass=has_reference_pass)

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate of all steps to come by `factor`; 1 asks nothing of the ranks."""
        if factor != 1:
            self._wait(
                self._start(PolicyRank.scale_lr, factor), doing=f"multiplying the learning rate by {factor:g}"
            )

    def sync_reference(self, version: int) -> None:
        """Make the policy's weights, which are `version`, the reference's."""
        self._wait(
            self._start(PolicyRank.sync_reference, version),
            doing=f"syncing the reference to version {version}",
        )

    def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder."""
        self._before_work()
        self._wait(self._start(PolicyRank.export, folder), doing=f"writing {folder}")

    def save(self, folder: Path) -> None:
        """Take a snapshot of the policy, to be written to `folder`/policy while the training goes on.

        finish_save() has to follow before the next save(). Raises RoleError.
        """
        self._wait(self._start(PolicyRank.save, folder), doing=f"saving to {folder}", limit=_CHECKPOINT)

    def is_saved(self) -> bool:
        """Whether finish_save() need not wait for a disk; it may still say that a rank has failed."""
        return all(
            self._wait(self._start(PolicyRank.is_saved), doing="asking whether the checkpoint is written")
        )

    def finish_save(self) -> dict[str, Digest]:
        """Wait until what save() has begun is on the disks; the digests of the files with tensors.

        They are by path relative to the folder given to save(), for CheckpointStore.commit. Raises RoleError
        naming the rank that could not write, or not within checkpoint.timeout_s.
        """
        reports = self._wait(
            self._start(PolicyRank.finish_save), doing="finishing the checkpoint", limit=_CHECKPOINT
        )
        return {name: digest for report in reports for name, digest in report.items()}

    def verify(self, folder: Path) -> None:
        """Read every file that the ranks wrote to the checkpoint `folder`, each on one of them.

        Raises CheckpointError if one is damaged, missing or too many, UnreadableCheckpoint if one cannot be
        read; RoleError if a rank failed, died or did not answer within checkpoint.timeout_s.
        """
        self._of_checkpoint(self._start(PolicyRank.verify, folder), doing=f"verifying {folder}")

    def restore(self, folder: Path) -> None:
        """Go on from the checkpoint `folder`, which may have been written in another layout.

        The version of the engines is not touched; serve() puts that which they held then within reach.

        Raises:
            CheckpointError: it is damaged, or of another model or precision. Nothing has been changed, unless
                its digests fit what is damaged (rlstack.policy.checkpointing.restore).
            RoleError: a rank failed, died or did not answer within checkpoint.timeout_s.
        """
        self._before_work()
        self._of_checkpoint(self._start(PolicyRank.restore, folder), doing=f"restoring {folder}")

    def _of_checkpoint(self, calls: Sequence[Call[None]], *, doing: str) -> None:
        try:
            self._wait(calls, doing=doing, limit=_CHECKPOINT)
        except RoleError as error:
            cause = getattr(error.__cause__, "cause", None)
            if isinstance(cause, CheckpointError):
                raise cause from error
            raise

    def serve(self, version: int) -> None:
        """Have the ranks hold `version`, what a sync last sent or a checkpoint says the engines held.

        Until end_serving() it can be sent and probed, but no step taken. Nothing may be on its way from the
        ranks. Raises RoleError if its weights are not kept: see `keeps_served`.
        """
        self._wait(
            self._start(PolicyRank.serve_version, version), doing=f"putting version {version} in place"
        )

    def end_serving(self) -> None:
        """Have the ranks hold the policy's own weights again."""
        self._wait(self._start(PolicyRank.end_serving), doing="putting the policy's weights back")

    def release_memory(self) -> None:
        """Have the ranks give the GPU memory back that they hold for nothing at the moment."""
        self._wait(self._start(PolicyRank.release_memory), doing="releasing memory")

    def _start(
        self, method: Callable[Concatenate[PolicyRank, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> list[Call[R]]:
        return [role.start(method, *args, **kwargs) for role in self.roles]

    def _wait(self, calls: Sequence[Call[R]], *, doing: str, limit: str = _STEP) -> list[R]:
        """The results; limit: the setting that says how long they may take."""
        timeouts_s = {
            _START: self._config.policy.start_timeout_s,
            _STEP: self._config.policy.step_timeout_s,
            _CHECKPOINT: self._config.checkpoint.timeout_s,
        }
        return wait_for(calls, timeout_s=timeouts_s[limit], doing=doing, setting=limit)


def _nothing() -> None:
    pass
