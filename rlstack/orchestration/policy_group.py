"""The policy: all megatron ranks as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray

from rlstack.config.schema import RunConfig
from rlstack.data.packing import pack
from rlstack.data.records import Example
from rlstack.orchestration.roles import Role, wait_for


def build_policy_worker(**kwargs: Any) -> Any:
    from rlstack.policy.worker import PolicyWorker

    return PolicyWorker(**kwargs)


class PolicyGroup:
    """One role per rank; every method is a call to all of them."""

    def __init__(self, config: RunConfig, *, logs: Path, use_gpus: bool) -> None:
        self._config = config
        policy = config.policy
        world_size = policy.tensor_parallel * policy.pipeline_parallel * policy.data_parallel
        self.roles = [
            Role(
                f"policy rank {rank}",
                log=logs / f"policy-{rank}.log",
                build=build_policy_worker,
                num_gpus=int(use_gpus),
                config=config,
                rank=rank,
                world_size=world_size,
            )
            for rank in range(world_size)
        ]

    def start(self, host: str | None) -> None:
        """Join the ranks, build the model, load its weights.

        host: where rank 0 listens; None: the address of its own node.
        """
        wait = partial(
            wait_for, timeout_s=self._config.policy.start_timeout_s, setting="policy.start_timeout_s"
        )
        first = self.roles[0]
        address = wait({first: first.start("serve", host)}, doing="starting the policy")[first]
        wait({role: role.start("start", *address) for role in self.roles}, doing="building the policy")

    def train_step(self, examples: Sequence[Example], *, version: int) -> dict[str, Any]:
        """One optimiser step on `examples`, whose rollouts are of `version`; its metrics.

        Without a single example the weights stay as they are and only the policy's version advances.
        """
        if not examples:
            self._all("skip_step", doing="skipping a step")
            return {}
        policy = self._config.policy
        batches = pack(
            examples,
            data_parallel=policy.data_parallel,
            micro_batch_tokens=policy.micro_batch_tokens,
            version=version,
        )
        reports = self._all("train_step", ray.put(batches), doing="training")
        return next(report for report in reports if report is not None)

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate of all steps to come by `factor`; 1 asks nothing of the ranks."""
        if factor != 1:
            self._all("scale_lr", factor, doing=f"multiplying the learning rate by {factor:g}")

    def sync_reference(self, version: int) -> None:
        """Make the policy's weights, which are `version`, the reference's."""
        self._all("sync_reference", version, doing=f"syncing the reference to version {version}")

    def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder."""
        self._all("export", folder, doing=f"writing {folder}")

    def _all(self, method: str, *args: Any, doing: str) -> list[Any]:
        calls = {role: role.start(method, *args) for role in self.roles}
        results = wait_for(
            calls,
            timeout_s=self._config.policy.step_timeout_s,
            doing=doing,
            setting="policy.step_timeout_s",
        )
        return list(results.values())
