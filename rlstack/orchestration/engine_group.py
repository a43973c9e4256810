"""The generator: all vLLM engines as one, prompts dealt out in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import ray

from rlstack.config.profiling import is_profiled
from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt
from rlstack.errors import ConfigError
from rlstack.orchestration.dealing import deal
from rlstack.orchestration.engine_seat import Answer, Batch, EngineSeat, Request, Sampling
from rlstack.orchestration.home import Home
from rlstack.orchestration.protocols import GeneratorEngine
from rlstack.orchestration.roles import POLL_S, Call, EngineLost, Role, RoleError, wait_for
from rlstack.rollout.sampling import prompt_seed
from rlstack.telemetry import sampled


def build_engine(*, config: RunConfig, index: int, max_prompt_tokens: int | None) -> GeneratorEngine:
    from rlstack.rollout.engine import Engine

    return Engine(config, index=index, max_prompt_tokens=max_prompt_tokens)


class EngineGroup:
    """The engines of a run. Each works through its calls in the order in which they were made.

    Whoever waits for answers calls attend() meanwhile, in the main thread.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        logs: Path,
        home_of: Callable[[str], Home],
        max_prompt_tokens: int | None = None,
    ) -> None:
        """home_of: the home of an engine that is started, by its name.

        max_prompt_tokens: as of rollout.engine.Engine.
        """
        self._config = config
        self._max_prompt_tokens = max_prompt_tokens
        self._mend: Callable[[RoleError], None] = _raise
        self._before_work: Callable[[], None] = _nothing
        self.version: int | None = 0  # of what is asked for from now on; None: not all hold the same
        self._seats = [
            EngineSeat(partial(_start, config, index, logs, home_of, max_prompt_tokens), config.rollout)
            for index in range(config.rollout.engines)
        ]

    @property
    def roles(self) -> list[Role[GeneratorEngine]]:
        return [seat.role for seat in self._seats]

    def wait_until_ready(self) -> None:
        """Return when all engines have loaded version 0, which is that of `policy.model`."""
        self._wait([role.start(GeneratorEngine.warm_up) for role in self.roles], doing="loading the engine")
        for role in self.roles:
            role.note_processes()

    def submit(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        stream: str,
        places: Sequence[tuple[int, int]],
    ) -> list[Future[Answer]]:
        """Start sampling; one future of n rollouts for each prompt, which the engines begin in their order.

        `places` are the prompts' steps and their positions within them. The same (run.seed, `stream`,
        place, prompt, version) gives the same rollouts, on an engine whose arithmetic does not depend on what
        is decoded together; on others it takes the same prompts too.

        Raises ConfigError for a prompt that is longer than the engines were started for.

        An engine is lost if it fails, dies, or finishes no prompt within rollout.generate_timeout_s; attend()
        is told.
        """
        self._refuse_long(prompts)
        self._before_work()
        assert self.version is not None, "a sync comes first"
        seed = self._config.run.seed
        seeds = [prompt_seed(seed, stream=stream, step=step, position=i) for step, i in places]
        profiled = [stream == "train" and is_profiled(self._config.telemetry, s + 1) for s, _ in places]
        requests = [
            Request(prompt, s, Future(), p) for prompt, s, p in zip(prompts, seeds, profiled, strict=True)
        ]
        for seat, share in zip(self._seats, deal(requests, len(self._seats)), strict=True):
            for _, part in groupby(share, key=attrgetter("is_profiled")):
                seat.ask(Batch(list(part), sampling, self.version))
        for request in requests:
            request.answer.add_done_callback(_count)
        return [request.answer for request in requests]

    def _refuse_long(self, prompts: Sequence[Prompt]) -> None:
        most = self._max_prompt_tokens
        longest = max((len(prompt.token_ids) for prompt in prompts), default=0)
        if most is not None and longest > most:
            raise ConfigError(
                f"a prompt has {longest} tokens, and the engines were started for up to {most}, the longest "
                f"of the run's own; give rlstack.Session max_prompt_tokens={longest}"
            )

    def mend_with(self, mend: Callable[[RoleError], None]) -> None:
        """Have `mend` called with what has happened to an engine, which is raised otherwise."""
        self._mend = mend

    def before_work(self, do: Callable[[], None]) -> None:
        """Have `do` called before the engines are asked for anything."""
        self._before_work = do

    def finish(self) -> None:
        """Wait until the engines have answered all that they were asked for; see attend()."""
        while answers := [answer for seat in self._seats for answer in seat.open_before(math.inf)]:
            self.attend()
            wait(answers, timeout=POLL_S, return_when=FIRST_COMPLETED)

    def sleep(self) -> None:
        """Have all engines give up the memory of their GPUs. Raises EngineLost."""
        self._wait(
            [role.start(GeneratorEngine.sleep) for role in self.roles], doing="putting the engines to sleep"
        )

    def wake(self, *, weights_only: bool = False) -> None:
        """Have all engines take it again; `weights_only` as in rollout.engine.Engine. Raises EngineLost."""
        calls = [role.start(GeneratorEngine.wake, weights_only=weights_only) for role in self.roles]
        self._wait(calls, doing="waking the engines")

    def attend(self) -> None:
        """See to engines that have failed since the last time; raises what cannot be put right."""
        while failures := [seat.failure for seat in self._seats if seat.failure is not None]:
            # One that was lost may be why another one refuses to go on.
            failures.sort(key=lambda failure: not isinstance(failure, EngineLost))
            if not isinstance(failures[0], RoleError):
                raise failures[0]
            self.mend(failures[0])

    def mend(self, error: RoleError) -> None:
        """Put right what has happened to an engine, so that it never happened; raises what cannot be."""
        self._mend(error)

    def seat_of(self, role: Role[object]) -> EngineSeat | None:
        """Where `role` is; None if another one has taken its place."""
        return next((seat for seat in self._seats if seat.role is role), None)

    def finish_before(self, version: int) -> None:
        """Wait for the answers of older versions than `version`.

        Raises RoleError if an engine that has yet to give one fails.
        """
        while answers := [answer for seat in self._seats for answer in seat.open_before(version)]:
            for seat in self._seats:
                if seat.failure is not None and seat.open_before(version):
                    raise seat.failure
            wait(answers, timeout=POLL_S, return_when=FIRST_COMPLETED)

    def withdraw(self) -> None:
        """Let all engines drop what they were asked for, which stays open."""
        for seat in self._seats:
            seat.withdraw()

    def ask_again(self) -> None:
        """Ask for all that is open, after withdraw()."""
        for seat in self._seats:
            seat.ask_again()

    def abandon(self) -> None:
        """Let all engines drop what they were asked for, which nobody waits for any more.

        What they hold is not known after that, and has to be brought to them.
        """
        self.withdraw()
        for seat in self._seats:
            seat.forget()
        self.version = None

    def load(self, role: Role[GeneratorEngine]) -> None:
        """Wait until `role`, which was started as a replacement, has loaded version 0."""
        self._wait([role.start(GeneratorEngine.warm_up)], doing="loading the engine again")
        role.note_processes()

    def stop_reading(self) -> None:
        """Take no more results, so that nothing asks Ray when it is gone."""
        for seat in self._seats:
            seat.close()

    def close(self, timeout_s: float) -> None:
        """Let the engines end the processes that they started."""
        calls = [role.start(GeneratorEngine.close).ref for role in self.roles]
        ray.wait(calls, num_returns=len(calls), timeout=timeout_s)

    def _wait(self, calls: Sequence[Call[None]], *, doing: str) -> None:
        wait_for(
            calls,
            timeout_s=self._config.rollout.start_timeout_s,
            doing=doing,
            setting="rollout.start_timeout_s",
        )


def _start(
    config: RunConfig,
    index: int,
    logs: Path,
    home_of: Callable[[str], Home],
    max_prompt_tokens: int | None,
) -> Role[GeneratorEngine]:
    name = f"engine {index}"
    return Role(
        name,
        log=logs / f"engine-{index}.log",
        build=partial(build_engine, config=config, index=index, max_prompt_tokens=max_prompt_tokens),
        home=home_of(name),
        beside=True,
        lost=EngineLost,
    )


def _count(answer: Future[Answer]) -> None:
    if not answer.cancelled() and answer.exception() is None:
        sampled.add(sum(len(rollout.token_ids) for rollout in answer.result()))


def _nothing() -> None:
    pass


def _raise(error: RoleError) -> None:
    raise error
