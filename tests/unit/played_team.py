"""Stand-ins for the processes of a run. What they make depends on the weights: a wrong version shows."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlstack.checkpoint.manifest import POLICY, Digest, Manifest, check_files, share
from rlstack.data.records import Prompt, Rollout, Score, TrainingExample
from rlstack.orchestration import team
from rlstack.orchestration.engine_seat import Sampling
from rlstack.orchestration.roles import BackToCheckpoint
from rlstack.orchestration.weight_sync import Ordered
from rlstack.rewards.scorer import Question


class Killed(BaseException):
    """The driver's end."""


Faults = Callable[[str, int], None]  # is told what happens, and at which version; may raise Killed


class Engines:
    """Rollouts are those of the weights that were held when they were asked for; they come when they like."""

    def __init__(self, jitter: random.Random) -> None:
        self.version: int | None = 0
        self.weights = 1
        self.roles: list[Any] = []
        self._jitter = jitter
        self._threads: list[threading.Thread] = []

    def hold(self, version: int, weights: int) -> None:
        self.finish()
        self.version, self.weights = version, weights

    def submit(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, stream: str, places: Sequence[tuple[int, int]]
    ) -> list[Future[tuple[Rollout, ...]]]:
        values = [self._rollouts(p, sampling.n, stream, at) for p, at in zip(prompts, places, strict=True)]
        answers: list[Future[tuple[Rollout, ...]]] = [Future() for _ in prompts]
        order = self._jitter.sample(range(len(prompts)), len(prompts))
        pauses = [self._jitter.choice([0.0, 0.0, 0.001]) for _ in order]

        def answer() -> None:
            for i, pause_s in zip(order, pauses, strict=True):
                time.sleep(pause_s)
                answers[i].set_result(values[i])

        self._threads.append(threading.Thread(target=answer))
        self._threads[-1].start()
        return answers

    def mend_with(self, mend: object) -> None:
        """None is ever lost."""

    def attend(self) -> None:
        """None is ever lost."""

    def abandon(self) -> None:
        self.finish()
        self.version = None

    def finish(self) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def _held(self) -> int:
        assert self.version is not None, "a sync comes first"
        return self.version

    def _rollouts(self, prompt: Prompt, n: int, stream: str, place: tuple[int, int]) -> tuple[Rollout, ...]:
        drawn = random.Random(f"{self.weights} {stream} {place} {prompt.problem}")
        lengths = [drawn.randrange(1, 30) for _ in range(n)]
        return tuple(
            Rollout(
                token_ids=tuple(drawn.randrange(100) for _ in range(length)),
                generator_logprobs=tuple(-drawn.random() for _ in range(length)),
                text="x" * length,
                finished=True,
                version=self._held,
            )
            for length in lengths
        )


class Policy:
    """Its weights are a number, which each step makes another one of."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.version, self.weights, self.lr = 0, 1, 1.0
        self.served = {0: 1}  # weights of what the engines were sent last, by version
        self.serving: tuple[int, int] | None = None
        self._draft: Path | None = None
        self.verified: Path | None = None  # a checkpoint

    def train_step(self, examples: Sequence[TrainingExample], *, version: int) -> dict[str, float]:
        self.faults("train", self.version)
        assert self.serving is None
        self.weights = hash((self.weights, self.lr, repr(examples))) % 2**31
        age = self.version - version
        self.version += 1
        return {"loss/total": self.weights / 7, "lr": self.lr, "drift/logprob_abs_mean": 0.004 * age}

    def scale_lr(self, factor: float) -> None:
        self.lr *= factor

    def sync_reference(self, version: int) -> None:
        assert version == self.version

    def save(self, folder: Path) -> None:
        assert self._draft is None
        self._draft = folder
        state = {
            "version": self.version,
            "weights": self.weights,
            "lr": self.lr,
            "served": [*self.served.items()],
        }
        (folder / POLICY).mkdir()
        (folder / POLICY / "policy.json").write_text(json.dumps(state))
        self.faults("save", self.version)

    def is_saved(self) -> bool:
        return self.version % 2 == 0

    def finish_save(self) -> dict[str, Digest]:
        assert self._draft is not None
        self.faults("finish", self.version)
        self._draft = None
        return {}

    def verify(self, folder: Path) -> None:
        if self.verified != folder:
            manifest = Manifest.read(folder)
            check_files(folder, manifest, share(manifest, rank=0, num_ranks=1))
        self.verified = folder

    def restore(self, folder: Path) -> None:
        state = json.loads((folder / POLICY / "policy.json").read_text())
        self.version, self.weights, self.lr = state["version"], state["weights"], state["lr"]
        self.served = dict(state["served"])

    def serve(self, version: int) -> None:
        self.serving = version, self.weights if version == self.version else self.served[version]

    def end_serving(self) -> None:
        self.serving = None

    def export(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(str(self.weights))


class Transfers:
    """Stands for a WeightSync."""

    def __init__(self, policy: Policy, engines: Engines) -> None:
        self._policy, self._engines = policy, engines

    def check_loaded(self) -> None:
        assert self._engines.weights == self._policy.weights

    def begin(self, version: int) -> None:
        held, weights = self._policy.serving or (self._policy.version, self._policy.weights)
        assert version == held
        self._policy.faults("sync", version)
        self._policy.served = {version: weights}

    def order(self, version: int) -> Ordered:
        self._engines.hold(version, self._policy.served[version])
        return Ordered(version)

    def end(self, ordered: Ordered) -> dict[str, Any]:
        return {"sync/version": ordered.version, "sync/bytes": 8}

    def run(self, version: int) -> dict[str, Any]:
        self.begin(version)
        return self.end(self.order(version))

    def hold(self, version: int) -> None:
        self._policy.serve(version)
        self.run(version)
        self._policy.end_serving()

    def follow(self, policy: Policy) -> None:
        self._policy = policy


class Lengths:
    """The longer an answer is, the better."""

    depends_on_batch = False
    gives_verdicts = False

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        return [tuple(Score(reward=float(len(text))) for text in q.responses) for q in questions]

    def close(self) -> None:
        pass


class Cluster:
    """Stands for a Cluster, with played roles."""

    host = "127.0.0.1"
    restarts = None

    def __init__(self, faults: Faults, jitter: random.Random) -> None:
        self._faults = faults
        self._engines = Engines(jitter)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._engines.finish()

    def start_reward_models(self) -> dict[str, Lengths]:
        return {"lengths": Lengths()}

    def launch(self) -> tuple[Policy, Engines]:
        return Policy(self._faults), self._engines

    def restart_policy(self, lost: BackToCheckpoint) -> Policy:
        self._engines.abandon()
        return Policy(self._faults)


def play(monkeypatch: pytest.MonkeyPatch, faults: Faults, jitter: random.Random) -> None:
    """Let the teams that come play."""
    monkeypatch.setattr(team, "Cluster", lambda *args, **kwargs: Cluster(faults, jitter))
    monkeypatch.setattr(
        team, "WeightSync", lambda policy, engines, config, host, probe: Transfers(policy, engines)
    )
    monkeypatch.setattr(team, "EngineRecovery", lambda *args: SimpleNamespace(mend=None))
