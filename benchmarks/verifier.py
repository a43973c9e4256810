"""How long the math verifier takes per answer, against math-verify alone on the same answers.

The answers are the boxed ones of FILE's rows (`answer`, `responses`), each distinct pair of gold and answer
once, in CPU time of one process for each verifier. A first call, which pays for the imports, comes before;
no verdict is kept. `cold` is the first pass over the pairs, `warm` the second, with what is kept of parsed
texts.

    by              rlstack: normaliser, comparisons by kind, math-verify last
                    math_verify: its parse of both and its verify
    equal           pairs that it takes for equal
    raised          pairs without a verdict
    differ          pairs of which math_verify says something else
    mean_ms, ...    milliseconds per pair
    to_baseline     mean_ms / that of math_verify
    controller      instead: CPU time of the process that has the answers verified, in groups of 16 by two
                    worker processes, per answer

    python benchmarks/verifier.py tests/cases/math.jsonl --out benchmarks/results/verifier.json
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from math_verify import LatexExtractionConfig, parse, verify
from report import write

from rlstack.data.boxed import boxed_answer, num_parts
from rlstack.data.gold import accepted_answers, read_gold
from rlstack.rewards.lane import Lane
from rlstack.rewards.math import MathScorer
from rlstack.rewards.math_compare import is_equal
from rlstack.rewards.scorer import Question

Pair = tuple[str, str]  # gold, answer
Timed = tuple[float, bool | None]  # CPU seconds, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, nargs="+", help="JSONL with `answer` and `responses`")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    pairs = list(dict.fromkeys(pair for file in arguments.file for pair in read_pairs(file)))
    write(measure(pairs), arguments.out, title=f"The verifier, {len(pairs)} pairs")


def read_pairs(file: Path) -> Iterator[Pair]:
    """Each gold answer of each row with each response's boxed answer."""
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        row = record.get("input", {}).get("row", record)  # a case of tests/cases, or a row itself
        if not isinstance(row.get("answer"), str | list | int | float):
            continue
        for gold in accepted_answers(read_gold(row["answer"])):
            for response in row.get("responses", ()):
                answer = boxed_answer(response, num_parts=num_parts(gold))
                if answer is not None:
                    yield gold, answer


def measure(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """One row for each verifier and pass."""
    timed = {}
    for name in VERIFIERS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            timed[name] = process.submit(passes, name, pairs).result()
    baseline = timed["math_verify"]
    rows: list[dict[str, Any]] = [
        {
            "by": name,
            "pass": state,
            "pairs": len(pairs),
            "equal": sum(verdict is True for _, verdict in results),
            "raised": sum(verdict is None for _, verdict in results),
            "differ": sum(a != b for (_, a), (_, b) in zip(results, baseline[state], strict=True)),
            **figures(results),
            "to_baseline": mean_ms(results) / mean_ms(baseline[state]),
        }
        for name, states in timed.items()
        for state, results in states.items()
    ]
    controller = {"by": "controller", "pass": "cold", "pairs": len(pairs), "mean_ms": controller_ms(pairs)}
    return [*rows, {**dict.fromkeys(rows[0]), **controller}]


def controller_ms(pairs: Sequence[Pair]) -> float:
    """CPU milliseconds of this process per answer, its workers' own time left out."""
    scorer = MathScorer(workers=2, timeout_s=30.0)
    lane = Lane("math", scorer, num_workers=2)
    groups = [pairs[start : start + 16] for start in range(0, len(pairs), 16)]
    questions = [
        Question(problem="", answer=group[0][0], responses=tuple(f"\\boxed{{{text}}}" for _, text in group))
        for group in groups
    ]
    started = time.process_time()
    for future in [lane.start([question]) for question in questions]:
        future.result()
    spent_s = time.process_time() - started
    lane.close()
    scorer.close()
    return 1e3 * spent_s / len(pairs)


def passes(name: str, pairs: Sequence[Pair]) -> dict[str, list[Timed]]:
    """The pairs twice over, in this process."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeouts are off
    compare = VERIFIERS[name]
    compare("x+1/2", "2/4+x")
    return {state: [timed_verdict(compare, pair) for pair in pairs] for state in ("cold", "warm")}


def timed_verdict(compare: Callable[[str, str], bool], pair: Pair) -> Timed:
    """`compare` of one pair; no verdict where it raises."""
    started = time.process_time()
    verdict: bool | None = None
    with suppress(Exception):
        verdict = bool(compare(*pair))
    return time.process_time() - started, verdict


def figures(results: Sequence[Timed]) -> dict[str, float]:
    milliseconds = [1e3 * seconds for seconds, _ in results]
    return {
        "mean_ms": mean_ms(results),
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "max_ms": max(milliseconds),
    }


def mean_ms(results: Sequence[Timed]) -> float:
    return 1e3 * sum(seconds for seconds, _ in results) / len(results)


def by_math_verify(gold: str, answer: str) -> bool:
    """math-verify with its reading of boxed LaTeX and nothing before it."""
    return bool(verify(_parsed(gold), _parsed(answer), timeout_seconds=None, raise_on_error=True))


@lru_cache(maxsize=16384)
def _parsed(expression: str) -> list[Any]:
    config = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    return list(
        parse(
            f"$\\boxed{{{expression}}}$",
            extraction_config=[config],
            parsing_timeout=None,
            raise_on_error=True,
        )
    )


VERIFIERS: Mapping[str, Callable[[str, str], bool]] = {"math_verify": by_math_verify, "rlstack": is_equal}

if __name__ == "__main__":
    main()
