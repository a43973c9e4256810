"""The scripts that prepare NuminaMath and WildChat, on files made here: every reason, counted exactly."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import overlap
import prepare_numinamath
import prepare_wildchat
import preparing

Record = dict[str, Any]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, records: list[Record]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record, default=str) + "\n" for record in records))
    return path


def prepare(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: object) -> Record:
    """Run a script; its report with the rows that it wrote as `rows`."""
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    preparing.run(main)
    out = Path(str(arguments[arguments.index("--out") + 1]))
    report = json.loads((out / "report.json").read_text())
    report["rows"] = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in out.glob("*.jsonl")
    }
    return report


def numina(problem: str, solution: str = "So it is $\\boxed{7}$.", **fields: Any) -> Record:
    return {"source": "olympiads", "problem": problem, "solution": solution} | fields


TEST_PROBLEM = "Tom has 3 red and 4 blue marbles and gives 2 of them away. How many marbles does he keep?"
GOOD = [numina(f"What is ${n} + {n}$?", f"First $\\boxed{{1}}$, then $\\boxed{{{2 * n}}}$") for n in range(9)]
BAD = {
    "synthetic subset": [
        numina("What is 1?", source="synthetic_math"),
        numina("What is 2?", source="synthetic_amc"),
        numina("What is 3?", source="orca_math"),
        numina("What is 4?", synthetic=True),
    ],
    "no problem": [numina(" "), numina("x") | {"problem": None}],
    "marked invalid": [numina("What is 5?", problem_is_valid="Yes", solution_is_valid="Incomplete")],
    "proof": [
        numina("Prove that 2 is even."),
        numina("Let $n$ be even.\nShow that $n^2$ is even."),
        numina("Is 6 even?", question_type="proof"),
        numina("Is 8 even?", answer="proof"),
    ],
    "multiple choice": [
        numina("What is it? $\\textbf{(A)}\\ 1\\qquad\\textbf{(B)}\\ 2\\qquad\\textbf{(C)}\\ 3$"),
        numina("What is it?\nA. $1$\nB. $2$\nC. $3$\nD. $4$"),
        numina("Which one of the four is it?", "$\\boxed{\\text{(B)}}$"),
        numina("Which one?", question_type="MCQ", answer="12"),
    ],
    "no final answer": [
        numina("What is 10?", "It is 10."),
        numina("What is 11?", "$\\boxed{}$"),
        numina("What is 12?", "$\\boxed{12}$" + " and so on" * 20_000),
        numina("What is 13?", "", answer="notfound"),
    ],
    "duplicate": [numina("what is  $ 3+3 $ ?"), numina("What is \\(4 + 4\\)?")],
    "overlap with a test set": [
        numina(TEST_PROBLEM.upper()),
        numina(f"A riddle for you, dear reader. {TEST_PROBLEM.replace('red', 'green')} Write a number."),
    ],
}
NOT_BAD = [
    numina("Let \\(A\\), \\(B\\), \\(C\\) be points and dot(A); dot(B); dot(C). How far is $A$ from $B$?"),
    numina("Ann needs to show that she has 80 points, a proof. Alice: Bob: Carl: 3. How many has she?"),
    numina("Tom has 3 red and 4 blue marbles. How many marbles does Tom have in all his pockets?"),
    numina("What is a half?", answer="\\frac{1}{2}", question_type="math-word-problem", synthetic=False),
]


@pytest.fixture
def numina_records() -> list[Record]:
    records = [*GOOD, *NOT_BAD, *(record for group in BAD.values() for record in group)]
    fields = ("answer", "question_type", "synthetic", *prepare_numinamath.VALIDITY)
    return [dict.fromkeys(fields) | record for record in records]


def test_numinamath_is_sifted_for_the_reasons_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numina_records: list[Record]
) -> None:
    write(tmp_path / "in" / "data" / "train-00000-of-00001.parquet", numina_records)
    excluded = write(tmp_path / "excluded.jsonl", [{"question": TEST_PROBLEM}])
    report = prepare(
        monkeypatch, prepare_numinamath.main, tmp_path / "in", "--out", tmp_path / "out", "--heldout", 3,
        "--exclude", excluded, "--split", "train",
    )  # fmt: skip
    assert report["dropped"] == {reason: len(records) for reason, records in BAD.items()}
    assert report["read"] == len(numina_records)
    assert report["written"] == {"train": 7, "validation": 3, "test": 3}
    assert {name: len(rows) for name, rows in report["rows"].items()} == report["written"]
    rows = {row["problem"]: row for part in report["rows"].values() for row in part}
    assert set(rows) == {record["problem"] for record in [*GOOD, *NOT_BAD]}
    assert rows["What is $4 + 4$?"] == {"problem": "What is $4 + 4$?", "answer": "8", "source": "olympiads"}
    assert rows["What is a half?"]["answer"] == "\\frac{1}{2}"


def test_what_is_held_out_depends_on_the_problems_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numina_records: list[Record]
) -> None:
    parts = []
    for name in ("one.jsonl", "two.jsonl"):
        random.Random(name).shuffle(numina_records)
        source = write(tmp_path / name, numina_records)
        arguments = (source, "--out", tmp_path / source.stem, "--heldout", 3)
        rows = prepare(monkeypatch, prepare_numinamath.main, *arguments)["rows"]
        # which of two duplicates is kept does depend on the order
        parts.append({part: {overlap.normalised(row["problem"]) for row in rows[part]} for part in rows})
    assert parts[0] == parts[1]


def test_answers_that_the_verifier_cannot_read_can_be_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [*GOOD, numina("Where to?", answer="\\text{}")])
    arguments = (source, "--out", tmp_path / "out", "--heldout", 1, "--verify-workers", 1)
    report = prepare(monkeypatch, prepare_numinamath.main, *arguments)
    assert report["dropped"] == {"unverifiable": 1}
    assert report["written"]["train"] == len(GOOD) - 2


def chat(*texts: str, language: str = "English", toxic: bool = False, turn: Record | None = None) -> Record:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    blank = {"language": "English", "toxic": False, "timestamp": at}
    roles = ("user", "assistant")
    conversation = [
        blank | {"content": text, "role": roles[i % 2]} | (turn or {}) for i, text in enumerate(texts)
    ]
    return {"conversation": conversation, "language": language, "toxic": toxic, "timestamp": at}


ARENA = "Write a Python function that sorts a list of numbers without using the built-in sort."
GOOD_CHATS = [chat(f"Tell me a story about {n} cats.", "No.", "Why not?") for n in range(8)]
BAD_CHATS = {
    "no first turn": [
        chat(),
        chat(" "),
        chat("How can I help you?", turn={"role": "assistant"}),
        chat("x") | {"conversation": None},
    ],
    "language": [
        chat("Erzähl mir was.", language="German"),
        chat("Raconte-moi.", turn={"language": "French"}),
    ],
    "toxic": [chat("A bad question.", toxic=True), chat("Another bad one.", turn={"toxic": True})],
    "too short": [chat("Hello.")],
    "too long": [chat("More " * 1000)],
    "duplicate": [chat("tell me a  STORY about 3 cats.\n"), chat("Tell me a story about 5 cats.", "Yes.")],
    "overlap with a test set": [chat(ARENA), chat(f"Hi! {ARENA} Add comments.")],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_wildchat_is_sifted_for_the_reasons_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str
) -> None:
    records = [*GOOD_CHATS, *(record for group in BAD_CHATS.values() for record in group)]
    excluded = write(tmp_path / "arena.jsonl", [{"prompt": ARENA, "uid": "1"}])
    report = prepare(
        monkeypatch, prepare_wildchat.main, write(tmp_path / f"in{suffix}", records), "--heldout", 2,
        "--out", tmp_path / "out", "--exclude", excluded,
    )  # fmt: skip
    assert report["dropped"] == {reason: len(group) for reason, group in BAD_CHATS.items()}
    assert report["read"] == len(records)
    assert report["written"] == {"train": 6, "heldout": 2}
    rows = [row for part in report["rows"].values() for row in part]
    expected = {record["conversation"][0]["content"] for record in GOOD_CHATS}
    assert {row["problem"] for row in rows} == expected and len(rows) == 8


def test_the_report_and_the_reason_come_when_too_little_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [*GOOD_CHATS, chat("Hello.")])
    with pytest.raises(SystemExit) as raised:
        prepare(monkeypatch, prepare_wildchat.main, source, "--out", tmp_path / "out", "--heldout", 8)
    printed = capsys.readouterr()
    assert raised.value.code == 2
    assert "dropped: too short" in printed.out
    assert "--heldout = 8: 8 rows are left after dropping, too few for heldout; lower it" in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("$\\dfrac12$ of\n  it", "\\(\\frac12\\) OF it", True),
        ("$\\left( x \\right)$", "$(x)$", True),
        ("1 + 1", "1 - 1", False),
        ("$\\leftarrow$", "$arrow$", False),
        ("What is 5²?", "What is 52?", False),
        ("cafe\u0301", "CAF\u00c9", True),
    ],
)
def test_texts_are_the_same_but_for_their_looks(one: str, other: str, same: bool) -> None:
    assert (overlap.normalised(one) == overlap.normalised(other)) == same


def test_overlap_is_half_of_a_texts_ngrams() -> None:
    words = [f"w{i}" for i in range(27)]  # 20 n-grams of 8 words
    held = overlap.HeldTexts([" ".join(words), "one two three"])
    assert held.overlap_with(" ".join(["before", *words[:17], "after"]))  # 10 of them
    assert not held.overlap_with(" ".join(["before", *words[:16], "after"]))
    assert held.overlap_with("One, two three") is False
    assert held.overlap_with("ONE two\nthree")
    assert not held.overlap_with("zero one two three")


def test_real_problems_pass_but_for_true_multiple_choice() -> None:
    if not SHARED.exists():
        pytest.skip("the shared data is not there")
    dropped = []
    for name in ("math500", "amc23", "gsm8k_test"):
        for line in (SHARED / f"{name}.jsonl").read_text().splitlines():
            try:
                prepare_numinamath.judge(json.loads(line), synthetic=())
            except prepare_numinamath.Dropped as reason:
                dropped.append((name, str(reason)))
    assert dropped == [("math500", "multiple choice")] * 3
