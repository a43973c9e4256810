"""The generator: all vLLM engines as one, prompts dealt out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt, Rollout
from rlstack.orchestration.dealing import deal, put_together
from rlstack.orchestration.reader import Reader
from rlstack.orchestration.roles import Role, wait_for, yielded
from rlstack.rollout.sampling import prompt_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn; n of them per prompt."""

    n: int
    temperature: float
    top_p: float


def build_engine(**kwargs: Any) -> Any:
    from rlstack.rollout.engine import Engine

    return Engine(**kwargs)


class EngineGroup:
    """The engines of a run. Each works through its calls in the order in which they were made."""

    def __init__(self, config: RunConfig, *, logs: Path, num_gpus_per_engine: int) -> None:
        self._config = config
        self.roles = [
            Role(
                f"engine {index}",
                log=logs / f"engine-{index}.log",
                build=build_engine,
                num_gpus=num_gpus_per_engine,
                beside=True,
                config=config,
                index=index,
            )
            for index in range(config.rollout.engines)
        ]
        self._readers = [Reader(role.name) for role in self.roles]

    def wait_until_ready(self) -> None:
        wait_for(
            {role: role.start("warm_up") for role in self.roles},
            timeout_s=self._config.rollout.start_timeout_s,
            doing="loading the engine",
            setting="rollout.start_timeout_s",
        )

    def submit(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        stream: str,
        places: Sequence[tuple[int, int]],
    ) -> list[Future[tuple[Rollout, ...]]]:
        """Start sampling; one future of n rollouts for each prompt, which the engines begin in their order.

        `places` are the prompts' steps and their positions within them. The same (run.seed, `stream`,
        place, prompt, version) gives the same rollouts, on an engine whose arithmetic does not depend on what
        is decoded together; on others it takes the same prompts too.

        A future fails with RoleError if its engine fails, dies, or finishes no prompt within
        rollout.generate_timeout_s.
        """
        seed = self._config.run.seed
        seeds = [prompt_seed(seed, stream=stream, step=step, position=i) for step, i in places]
        count = len(self.roles)
        dealt = zip(self.roles, self._readers, deal(prompts, count), deal(seeds, count), strict=True)
        shares = [
            reader.read(
                self._results(role, reader, of_role, seeds=seeds_of_role, **asdict(sampling)), len(of_role)
            )
            for role, reader, of_role, seeds_of_role in dealt
        ]
        return put_together(shares, len(prompts))

    def _results(self, role: Role, reader: Reader, prompts: Sequence[Prompt], **sampling: Any) -> Any:
        return partial(
            yielded,
            role,
            role.stream("generate_stream", prompts, **sampling),
            is_needed=reader.is_open,
            timeout_s=self._config.rollout.generate_timeout_s,
            doing="sampling rollouts",
            setting="rollout.generate_timeout_s",
        )

    def stop_reading(self) -> None:
        """Take no more results, so that nothing asks Ray when it is gone."""
        for reader in self._readers:
            reader.close()

    def close(self, timeout_s: float) -> None:
        """Let the engines end the processes that they started."""
        calls = [role.start("close") for role in self.roles]
        ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
