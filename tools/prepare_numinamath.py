"""NuminaMath to train.jsonl, validation.jsonl and test.jsonl with `problem`, `answer` and `source`.

Takes NuminaMath-CoT (source, problem, solution) and NuminaMath-1.5 (which adds answer, question_type,
synthetic and two marks of validity), as the hub has them or in any other format that rlstack reads. Drops

  synthetic subset    whose problems a model wrote: --synthetic names them, or the row is marked so
  no problem          its text is empty
  marked invalid      problem or solution, by the data set itself
  proof               marked so, or the problem asks to prove or to show that
  multiple choice     marked so, or the problem lists options A, B, C, or the answer is the letter of one
  no final answer     neither an answer nor a complete \\boxed{...} among the solution's last 2000 characters
  duplicate           the same text as an earlier row, but for case, spaces and the looks of formulas
  overlap with a test set   the same text as a problem in --exclude, or half of that one's runs of 8 words
  unverifiable        only with --verify-workers: math-verify does not find the answer equal to itself

Example:
  python tools/prepare_numinamath.py NuminaMath-CoT --split train --out data/numinamath \\
      --exclude math500.jsonl amc23.jsonl gsm8k_test.jsonl
"""

from __future__ import annotations

import re
from functools import partial

from preparing import arguments_for, finish, records_of, run, test_sets_of
from rich.console import Console
from rich.progress import track
from sifting import Dropped, Record, Row, Sifted, sift, text_of

from rlstack.data.boxed import boxed_answer
from rlstack.rewards.math import MathVerifier

HELDOUT = 1980  # rows of validation, and again of test
SYNTHETIC = ("synthetic_math", "synthetic_amc", "orca_math", "metamath")
VALIDITY = ("problem_is_valid", "solution_is_valid")
COLUMNS = ("source", "problem", "solution", "answer", "question_type", "synthetic", *VALIDITY)
VERIFIED_TOGETHER = 1000
VERIFY_TIMEOUT_S = 5.0

# Not: her card needs to show that she passed.
PROOF = re.compile(
    r"\b(?:dis)?prove\b|(?<!to )\b(?:show|demonstrate|verify) that\b|\bproof (?:of|that)\b", re.I
)
# (A) 1 (B) 2 (C) 3, but not the points \(A\), \(B\), \(C\), nor dot(A); or A. 1 B. 2 C. 3 after spaces.
OPTIONS = re.compile(
    r"(?<![\\\w])\(A\).*?(?<![\\\w])\(B\).*?(?<![\\\w])\(C\)"
    r"|(?:^|\s)A[.:)]\s?\S.*?\sB[.:)]\s?\S.*?\sC[.:)]\s?\S",
    re.S,
)
FONT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\b|[{}\s.]")
OPTION = re.compile(r"[A-E]|\([A-E]\).*")


def judge(record: Record, *, synthetic: tuple[str, ...]) -> Row:
    """The row to write; raises Dropped with the reason otherwise."""
    source, problem = text_of(record, "source"), text_of(record, "problem")
    kind, given = text_of(record, "question_type").lower(), text_of(record, "answer")
    if source in synthetic or record.get("synthetic") is True:
        raise Dropped("synthetic subset")
    if not problem:
        raise Dropped("no problem")
    if any(text_of(record, field) not in ("", "Yes") for field in VALIDITY):
        raise Dropped("marked invalid")
    if kind == "proof" or given == "proof" or PROOF.search(problem):
        raise Dropped("proof")
    answer = given if given not in ("", "notfound") else boxed_answer(text_of(record, "solution"))
    if kind == "mcq" or OPTIONS.search(problem) or (answer and _is_option(answer)):
        raise Dropped("multiple choice")
    if not answer:
        raise Dropped("no final answer")
    return {"problem": problem, "answer": answer, "source": source}


def _is_option(answer: str) -> bool:
    return OPTION.fullmatch(FONT.sub("", answer)) is not None


def drop_unverifiable(sifted: Sifted, *, workers: int) -> None:
    """Take the rows out whose answer, in a box, does not earn the reward of the math verifier."""
    starts, kept = range(0, len(sifted.kept), VERIFIED_TOGETHER), []
    with MathVerifier(workers=workers, timeout_s=VERIFY_TIMEOUT_S) as verifier:
        for start in track(starts, "verifying", console=Console(stderr=True)):
            chunk = sifted.kept[start : start + VERIFIED_TOGETHER]
            scores = verifier.score([(f"\\boxed{{{row['answer']}}}", row["answer"]) for row in chunk])
            kept += [row for row, score in zip(chunk, scores, strict=True) if score.reward == 1.0]
    sifted.dropped["unverifiable"] += len(sifted.kept) - len(kept)
    sifted.kept = kept


def main() -> None:
    parser = arguments_for(__doc__, heldout=HELDOUT)
    parser.add_argument(
        "--synthetic", nargs="*", default=SYNTHETIC, metavar="SOURCE", help=f"default: {' '.join(SYNTHETIC)}"
    )
    parser.add_argument(
        "--verify-workers", type=int, default=0, metavar="N", help="processes that verify the answers"
    )
    arguments = parser.parse_args()
    verdict = partial(judge, synthetic=tuple(arguments.synthetic))
    sifted = sift(records_of(arguments, COLUMNS), verdict, test_sets=test_sets_of(arguments))
    if arguments.verify_workers:
        drop_unverifiable(sifted, workers=arguments.verify_workers)
    finish(sifted, {"validation": arguments.heldout, "test": arguments.heldout}, arguments)


if __name__ == "__main__":
    run(main)
