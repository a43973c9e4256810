"""The controller's cost per step and per token, with the product's own loop and records through Ray.

`rlstack.train.train` runs as ever; only what the roles' processes hold is played: engines that give back one
prepared group for each prompt, ranks that train nothing, and a reward by the answer's length. One run, in a
process of its own, for each size:

    wall_s, cpu_s       of the controller per step, from the second step on
    ns_per_token        of the controller's CPU, all its threads
    receive, ...        of that the parts: other threads (receiving answers), metrics, credit, packing,
                        sending the batches, the log of rollouts; `rest` is what is left of the main thread
    held_b, save_ns, save_b, read_ns  of rollouts that wait: bytes of memory per token, CPU to write them to
                        a checkpoint with its digest, bytes of that file, CPU to read it
    sent_b              bytes of the batches in Ray's object store per token, each data-parallel shard once
    peak_mib            of the controller

The last row is the reference size, 512 prompts x 16 x 4,096 tokens, from the exponent of cpu_s over the sizes
measured; it is extrapolated, as its `source` says.

    python benchmarks/control_plane.py --out benchmarks/results/control_plane.json
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from report import write

from rlstack.checkpoint.run_state import read_rollouts, write_rollouts
from rlstack.config.load import load_config
from rlstack.data.records import Prompt, Rollout, RolloutGroup, Score
from rlstack.data.sampling import PromptSampler

SEED = Path(__file__).parents[1] / "configs" / "tiny" / "seed"
SIZES = ((16, 16, 1024), (32, 16, 2048), (64, 16, 4096))  # prompts, n, tokens of an answer
REFERENCE = (512, 16, 4096)
PROMPT_TOKENS = 1024
TASK = "fractions"  # of configs/quickstart.yaml
VOCABULARY = 128_000
CHARACTERS = 4  # of text to a token
BUDGET = 32_768


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, ranks=arguments.ranks, interval=arguments.interval)))
        return
    rows = []
    for size in SIZES:
        command = [sys.executable, __file__, "--one", *map(str, size), "--ranks", str(arguments.ranks)]
        command += ["--interval", str(arguments.interval)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    write([*rows, at_reference(rows)], arguments.out, title="the controller")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--ranks", type=int, default=2, help="data-parallel ranks of the policy")
    parser.add_argument("--interval", type=int, default=5, help="schedule.sync_interval; two are run")
    parser.add_argument("--one", type=int, nargs=3, help="measure this size alone: prompts, n, tokens")
    return parser.parse_args()


class PlayedEngine:
    """Gives the same prepared answers for every prompt, at once."""

    def __init__(self, n: int, num_tokens: int) -> None:
        self._rollouts = rollouts(n, num_tokens)
        self._version = 0

    def warm_up(self) -> None: ...

    def generate_stream(
        self, prompts: Sequence[Prompt], *, version: int, **_: Any
    ) -> Iterator[list[tuple[int, tuple[Rollout, ...]]]]:
        for index in range(len(prompts)):
            yield [(index, tuple(replace(rollout, version=version) for rollout in self._rollouts))]

    def drop_streams(self, *, before: int) -> None: ...

    def open_transfer(self, host: str, port: int, **_: Any) -> None: ...

    def begin_receive(self, *_: Any) -> None: ...

    def commit_receive(self, *_: Any) -> dict[str, float]:
        return {"bytes": 0, "receive_s": 0.0, "wait_s": 0.0, "land_s": 0.0, "verified": True}

    def probe(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        return (-1.0,) * (len(token_ids) - 1)

    def quantised_weights(self) -> list[str]:
        return []

    def close(self) -> None: ...


class PlayedRank:
    """Takes its shard of the batch and gives metrics back, at once."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def serve(self, host: str | None) -> tuple[str, int]:
        return "127.0.0.1", 0

    def start(self, *_: Any) -> None: ...

    def train_step(self, batches: Sequence[Any]) -> dict[str, float] | None:
        metrics = {"loss/total": 0.1, "lr": 1e-6, "grad_norm": 1.0, "policy/entropy": 1.0}
        return metrics if self._rank == 0 else None

    def skip_step(self) -> None: ...

    def sync_reference(self, version: int) -> None: ...

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def open_transfer(self, host: str, port: int, **_: Any) -> None: ...

    def close_transfer(self, *_: Any) -> None: ...

    def begin_send(self, *_: Any) -> None: ...

    def fence(self, *_: Any) -> dict[str, float]:
        return {}

    def probe(self, token_ids: Sequence[int]) -> tuple[float, ...] | None:
        return (-1.0,) * (len(token_ids) - 1) if self._rank == 0 else None

    def quantised_weights(self) -> list[str]:
        return []


class PlayedScorer:
    """Rewards the first half of a group's answers."""

    depends_on_batch = False
    gives_verdicts = True

    def score(self, questions: Sequence[Any]) -> list[tuple[Score, ...]]:
        return [
            tuple(Score(reward=float(i < len(q.responses) // 2)) for i in range(len(q.responses)))
            for q in questions
        ]

    def close(self) -> None: ...


def measure(num_prompts: int, n: int, num_tokens: int, *, ranks: int, interval: int) -> dict[str, Any]:
    """One row: a run of two intervals, after what is measured of rollouts that wait."""
    row = {"prompts": num_prompts, "n": n, "tokens": num_tokens, "engines": 1, "ranks": ranks}
    row |= {"interval": interval, "source": "measured"}
    waiting = of_waiting(num_prompts, n, num_tokens)
    with tempfile.TemporaryDirectory(prefix="controller-") as folder:
        return row | run(num_prompts, n, num_tokens, ranks, interval, Path(folder)) | waiting


def run(
    num_prompts: int, n: int, num_tokens: int, ranks: int, interval: int, folder: Path
) -> dict[str, float]:
    from rlstack import train as loop
    from rlstack.orchestration import engine_group, policy_group
    from rlstack.rewards import router
    from rlstack.telemetry import recorder

    engine_group.build_engine = lambda **_: PlayedEngine(n, num_tokens)  # type: ignore[assignment]
    policy_group.build_policy_worker = (  # type: ignore[assignment]
        lambda *, rank, **_: PlayedRank(rank)
    )
    router.start_scorer = lambda *_, **__: PlayedScorer()  # type: ignore[assignment]
    parts = Parts()
    parts.time(loop, "metrics", "rollout_metrics", "dynamics", "pair_yield")
    parts.time(loop, "credit", "assign")
    parts.time(policy_group, "pack", "pack")
    parts.time(policy_group, "send", "shared")
    parts.time(recorder.Recorder, "log", "samples")
    sent = []
    shared = policy_group.shared
    policy_group.shared = lambda shard: (sent.append(array_bytes(shard)), shared(shard))[1]
    laps = []
    step = recorder.Recorder.step

    def note(self: Any, version: int, metrics: Any) -> Any:
        laps.append((time.monotonic(), time.process_time(), time.thread_time(), dict(parts.seconds)))
        return step(self, version, metrics)

    recorder.Recorder.step = note  # type: ignore[method-assign]
    num_steps = 2 * interval
    loop.train(
        settings(num_prompts, n, num_tokens, ranks, interval, folder), prompts=(prompts(num_prompts), [])
    )
    (wall, cpu, main_s, before), (wall_end, cpu_end, main_end, after) = laps[0], laps[-1]
    steps, tokens = num_steps - 1, num_prompts * n * num_tokens
    spent = {name: (after[name] - before[name]) / steps for name in after}
    per_step = (cpu_end - cpu) / steps
    main_step = (main_end - main_s) / steps
    spent |= {"receive": per_step - main_step, "rest": main_step - sum(spent.values())}
    return {
        "wall_s": (wall_end - wall) / steps,
        "cpu_s": per_step,
        "ns_per_token": 1e9 * per_step / tokens,
        **{name: 1e9 * seconds / tokens for name, seconds in spent.items()},
        "sent_b": sum(sent) / num_steps / tokens,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


class Parts:
    """CPU seconds of the main thread in functions of the loop, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def time(self, owner: Any, part: str, *names: str) -> None:
        """Replace the functions `names` of `owner` by ones that are timed."""
        self.seconds[part] = 0.0
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.thread_time() - started

        return timed


def settings(num_prompts: int, n: int, num_tokens: int, ranks: int, interval: int, folder: Path) -> Any:
    config = load_config(
        Path(__file__).parents[1] / "configs" / "quickstart.yaml",
        [
            f"run.dir={folder}",
            "run.name=run",
            f"policy.model={SEED}",
            f"policy.data_parallel={ranks}",
            "policy.pipeline_parallel=1",
            f"policy.micro_batch_tokens={BUDGET}",
            f"rollout.n={n}",
            f"rollout.max_new_tokens={num_tokens}",
            f"batch.prompts_per_step={num_prompts}",
            f"schedule.num_steps={2 * interval}",
            f"schedule.sync_interval={interval}",
            "schedule.save_every=null",
            "schedule.evaluate_every=null",
            "evaluation.tasks=[]",
            "objective.name=grpo",
            "cluster.object_store_mib=1024",
        ],
    )
    return config


def prompts(num_prompts: int) -> PromptSampler:
    numbers = np.random.default_rng(1)
    rows = [
        Prompt(
            task=TASK,
            row=row,
            problem="p" * PROMPT_TOKENS * CHARACTERS,
            token_ids=numbers.integers(0, VOCABULARY, PROMPT_TOKENS),
            answer="1",
        )
        for row in range(4 * num_prompts)
    ]
    return PromptSampler({TASK: rows}, {TASK: 1.0}, seed=0)


def rollouts(n: int, num_tokens: int) -> tuple[Rollout, ...]:
    numbers = np.random.default_rng(0)
    words = np.array([" the", " sum", " of", " six", " and", " ten", " is", " so", " x", " =", " 10", "."])
    return tuple(
        Rollout(
            token_ids=numbers.integers(0, VOCABULARY, num_tokens),
            generator_logprobs=-numbers.random(num_tokens),
            text="".join(numbers.choice(words, num_tokens)),
            finished=True,
            version=0,
        )
        for _ in range(n)
    )


def of_waiting(num_prompts: int, n: int, num_tokens: int) -> dict[str, float]:
    """Memory per token of groups that have come as pickled bytes, and what a checkpoint of them takes."""
    pickled, tokens = pickle.dumps(rollouts(n, num_tokens), protocol=5), num_prompts * n * num_tokens
    prompt = Prompt(task=TASK, row=0, problem="p", token_ids=(1,))
    process = psutil.Process()
    before = process.memory_info().rss
    groups = {
        position: RolloutGroup(step=0, prompt=prompt, rollouts=pickle.loads(pickled))
        for position in range(num_prompts)
    }
    held = process.memory_info().rss - before
    with tempfile.TemporaryDirectory(prefix="controller-") as folder:
        started = time.process_time()
        digest = write_rollouts(Path(folder), {0: groups})
        written = time.process_time()
        read_rollouts(Path(folder))
        read = time.process_time()
    return {
        "held_b": held / tokens,
        "save_ns": 1e9 * (written - started) / tokens,
        "save_b": digest.num_bytes / tokens,
        "read_ns": 1e9 * (read - written) / tokens,
    }


def array_bytes(shard: Sequence[Any]) -> int:
    """Bytes of the arrays of a shard's micro-batches."""
    fields = ("token_ids", "labels", "loss_mask", "generator_logprobs")
    return sum(getattr(batch, name).nbytes for batch in shard for name in fields)


def at_reference(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last row scaled to the reference size by the exponent of cpu_s over the sizes."""
    sizes = [math.log(row["prompts"] * row["n"] * row["tokens"]) for row in rows]
    exponent = float(np.polyfit(sizes, [math.log(row["cpu_s"]) for row in rows], 1)[0])
    num_prompts, n, num_tokens = REFERENCE
    tokens = num_prompts * n * num_tokens
    scale = math.exp(exponent * (math.log(tokens) - sizes[-1]))
    row = dict.fromkeys(rows[-1], "")
    row |= {"prompts": num_prompts, "n": n, "tokens": num_tokens}
    row |= {"source": f"extrapolated, exponent {exponent:.2f}"}
    cpu_s = rows[-1]["cpu_s"] * scale
    return row | {"cpu_s": cpu_s, "ns_per_token": 1e9 * cpu_s / tokens}


if __name__ == "__main__":
    main()
