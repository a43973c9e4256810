"""One engine's place in a run: what it was asked for and has not answered outlives the process in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from rlstack.config.schema import Rollout as RolloutSettings
from rlstack.data.records import Prompt, Rollout
from rlstack.orchestration.protocols import GeneratorEngine
from rlstack.orchestration.reader import Reader
from rlstack.orchestration.roles import Role, yielded

Answer = tuple[Rollout, ...]  # the n rollouts of a prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn; n of them per prompt."""

    n: int
    temperature: float
    top_p: float


class Request(NamedTuple):
    """A prompt to be answered."""

    prompt: Prompt
    seed: int
    answer: Future[Answer]
    is_profiled: bool = False  # its step is one of telemetry.profile_steps


class Batch(NamedTuple):
    """A request to an engine, profiled or not, and the version that has to answer."""

    requests: Sequence[Request]
    sampling: Sampling
    version: int


class EngineSeat:
    """Asks the engine in it, and asks the next one again for what it has not answered."""

    def __init__(self, start: Callable[[], Role[GeneratorEngine]], settings: RolloutSettings) -> None:
        self._start = start
        self._settings = settings
        self._batches: list[Batch] = []  # in their order; those that are answered may still be there
        self._number = 0  # of the next stream
        self.role = start()
        self._reader = Reader(self.role.name)

    @property
    def failure(self) -> BaseException | None:
        """What keeps answers from coming, for good."""
        return self._reader.failure

    def ask(self, batch: Batch) -> None:
        """Have `batch` answered after what was asked for before."""
        self._batches = [*filter(_is_open, self._batches), batch]
        self._read(batch)

    def open_before(self, version: float) -> list[Future[Answer]]:
        """The answers that are still to come from versions older than `version`."""
        older = (batch for batch in self._batches if batch.version < version)
        return [r.answer for batch in older for r in batch.requests if not r.answer.done()]

    def withdraw(self) -> None:
        """Let the engine, if there is one, drop what it was asked for, and take no more answers from it.

        Returns at once; what is open stays so until ask_again().
        """
        self._reader.close()
        self.role.start_beside(GeneratorEngine.drop_streams, before=self._number)
        self._reader = Reader(self.role.name)

    def ask_again(self) -> None:
        """Ask for what is open, after withdraw()."""
        self._batches = [
            batch._replace(requests=[r for r in batch.requests if not r.answer.done()])
            for batch in self._batches
            if _is_open(batch)
        ]
        for batch in self._batches:
            self._read(batch)

    def forget(self) -> None:
        """Nobody waits for what is open any more."""
        for batch in self._batches:
            for request in batch.requests:
                request.answer.cancel()
        self._batches = []

    def replace(self) -> None:
        """Kill the engine and start another one in its place, which then has to load its weights."""
        self._reader.close()
        self.role.kill()
        self.role = self._start()
        self._reader = Reader(self.role.name)

    def close(self) -> None:
        """Take no more answers, so that nothing asks Ray when it is gone."""
        self._reader.close()
        self.forget()

    def _read(self, batch: Batch) -> None:
        number, self._number = self._number, self._number + 1
        stream = self.role.stream(
            GeneratorEngine.generate_stream,
            [request.prompt for request in batch.requests],
            n=batch.sampling.n,
            temperature=batch.sampling.temperature,
            top_p=batch.sampling.top_p,
            seeds=[request.seed for request in batch.requests],
            version=batch.version,
            number=number,
            is_profiled=any(request.is_profiled for request in batch.requests),
        )
        answers = partial(
            yielded,
            stream,
            is_needed=self._reader.is_open,
            timeout_s=self._settings.generate_timeout_s,
            doing="sampling rollouts",
            setting="rollout.generate_timeout_s",
        )
        self._reader.read(answers, [request.answer for request in batch.requests])


def _is_open(batch: Batch) -> bool:
    return any(not request.answer.done() for request in batch.requests)
