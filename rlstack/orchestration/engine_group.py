"""The generator: all vLLM engines as one, prompts dealt out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt, Rollout
from rlstack.orchestration.dealing import deal, put_together
from rlstack.orchestration.roles import Role, wait_for
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


@dataclass(frozen=True, slots=True)
class Pending:
    """Answers that are being sampled: result() waits for them."""

    calls: dict[Role, ray.ObjectRef]
    num_prompts: int
    timeout_s: float

    def result(self) -> list[tuple[Rollout, ...]]:
        """One tuple of n rollouts per prompt, in the order of the prompts."""
        shares = wait_for(
            self.calls,
            timeout_s=self.timeout_s,
            doing="sampling rollouts",
            setting="rollout.generate_timeout_s",
        )
        return put_together(shares.values(), self.num_prompts)


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
                config=config,
                index=index,
            )
            for index in range(config.rollout.engines)
        ]

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
        step: int,
        positions: Sequence[int] | None = None,
    ) -> Pending:
        """Start sampling. The same (run.seed, `stream`, `step`, prompts, version) gives the same answers.

        `positions` are the prompts' places within the step, where they are a part of its prompts only.
        """
        seed = self._config.run.seed
        places = range(len(prompts)) if positions is None else positions
        seeds = [prompt_seed(seed, stream=stream, step=step, position=i) for i in places]
        assert len(seeds) == len(prompts)
        count = len(self.roles)
        dealt = zip(self.roles, deal(prompts, count), deal(seeds, count), strict=True)
        calls = {
            role: role.start(
                "generate",
                of_role,
                n=sampling.n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seeds=seeds_of_role,
            )
            for role, of_role, seeds_of_role in dealt
        }
        return Pending(calls, len(prompts), self._config.rollout.generate_timeout_s)

    def probe(self, token_ids: Sequence[int]) -> list[tuple[float, ...]]:
        """Of each engine the logprobs of token_ids[1:], each given those before it."""
        probes = wait_for(
            {role: role.start("probe", list(token_ids)) for role in self.roles},
            timeout_s=self._config.rollout.generate_timeout_s,
            doing="probing the engine",
            setting="rollout.generate_timeout_s",
        )
        return list(probes.values())

    def close(self, timeout_s: float) -> None:
        """Let the engines end the processes that they started."""
        calls = [role.start("close") for role in self.roles]
        ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
