from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlstack.data import arrow
from rlstack.data.rows import count_rows, read_rows
from rlstack.errors import ConfigError

Records = list[dict[str, Any]]
Write = Callable[[Path, Records], Path]
RECORDS = [{"problem": f"{n}+{n}", "answer": 2 * n, "nested": [{"role": "user"}]} for n in range(7)]


def write_jsonl(folder: Path, records: Records) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_parquet(folder: Path, records: Records, name: str = "rows.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), folder / name, row_group_size=2)
    return folder / name


def write_saved(folder: Path, records: Records) -> Path:
    """As `Dataset.save_to_disk(folder, num_shards=2)` of datasets 5.2 does."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(records)
    names = [f"data-{shard:05d}-of-00002.arrow" for shard in range(2)]
    for name, rows in zip(names, (table.slice(0, 3), table.slice(3)), strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(rows, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def write_dictionary(folder: Path, records: Records) -> Path:
    write_saved(folder / "train", records)
    write_saved(folder / "test", records[:4])
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder


def write_repository(folder: Path, records: Records) -> Path:
    """As a dataset repository of the hub: numbered shards below data/."""
    write_parquet(folder / "data", records[:5], "train-00000-of-00002.parquet")
    write_parquet(folder / "data", records[5:], "train-00001-of-00002-0123456789abcdef.parquet")
    write_parquet(folder / "data", records[:4], "test-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(
    ("write", "split"),
    [
        (write_jsonl, None),
        (write_parquet, None),
        (write_saved, None),
        (write_saved, "train"),
        (write_dictionary, "train"),
        (write_repository, "train"),
    ],
)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, split: str | None
) -> None:
    monkeypatch.setattr(arrow, "BATCH_ROWS", 2)
    path = write(tmp_path, RECORDS)
    rows = list(read_rows(path, where="path", split=split))
    assert [row.record for row in rows] == RECORDS
    assert [row.index for row in rows] == list(range(7))
    assert all(f"{str(path)!r}" in row.at for row in rows)
    assert count_rows(path, where="path", split=split) == 7


@pytest.mark.parametrize("write", [write_dictionary, write_repository])
def test_a_split_is_chosen_by_name_only(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, RECORDS)
    assert [row.record for row in read_rows(path, where="path", split="test")] == RECORDS[:4]
    with pytest.raises(ConfigError, match=r"has the splits (train, test|test, train); choose one"):
        list(read_rows(path, where="path"))
    with pytest.raises(ConfigError, match="has no split 'dev'; choose from: t"):
        list(read_rows(path, where="path", split="dev"))


def test_one_split_of_a_saved_dictionary_is_a_dataset_itself(tmp_path: Path) -> None:
    rows = read_rows(write_dictionary(tmp_path, RECORDS) / "test", where="path")
    assert [row.record for row in rows] == RECORDS[:4]


@pytest.mark.parametrize("write", [write_parquet, write_saved])
def test_only_the_columns_asked_for_are_read(tmp_path: Path, write: Write) -> None:
    rows = read_rows(write(tmp_path, RECORDS), where="path", columns=("answer", "not there"))
    assert [row.record for row in rows] == [{"answer": 2 * n} for n in range(7)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_text_survives_in_every_format(tmp_path: Path, texts: list[str]) -> None:
    records = [{"problem": text} for text in texts]
    for write in (write_jsonl, write_parquet):
        assert [row.record for row in read_rows(write(tmp_path, records), where="path")] == records


def test_rows_come_before_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1"}\n{"problem": ')
    rows = read_rows(path, where="path")
    assert next(rows).record == {"problem": "1+1"}
    with pytest.raises(ConfigError, match="line 2: not JSON"):
        next(rows)


def test_what_is_not_whole_is_named(tmp_path: Path) -> None:
    def refusal(path: Path, split: str | None = None) -> str:
        with pytest.raises(ConfigError) as raised:
            list(read_rows(path, where="data.tasks[0].path", split=split))
        assert str(raised.value).startswith(f"data.tasks[0].path = {str(path)!r}")
        return str(raised.value)

    repository = write_repository(tmp_path / "repository", RECORDS)
    (repository / "data" / "train-00000-of-00002.parquet").unlink()
    assert "has 1 of the 2 files of the split 'train'; copy" in refusal(repository, "train")
    saved = write_saved(tmp_path / "saved", RECORDS)
    (saved / "data-00001-of-00002.arrow").unlink()
    assert "has 1 of the 2 files" in refusal(saved)
    (saved / "state.json").write_text("[]")
    assert "state.json is not what save_to_disk writes" in refusal(saved)
    parquet = write_parquet(tmp_path, RECORDS)
    parquet.write_bytes(parquet.read_bytes()[:-20])
    assert "rows.parquet cannot be read" in refusal(parquet)
    assert "without a split 'train'; leave the split out" in refusal(parquet, "train")
    (tmp_path / "empty").mkdir()
    assert "folder without a dataset; give" in refusal(tmp_path / "empty")
    assert "none.parquet' cannot be read (there is no such file)" in refusal(tmp_path / "none.parquet")


@pytest.mark.parametrize("name", ["../data.arrow", "/etc/passwd", "..", "", "a\0b", 7, None, {"a": 1}])
def test_a_folder_whose_lists_lead_out_of_it_is_refused(tmp_path: Path, name: object) -> None:
    saved = write_saved(tmp_path / "saved", RECORDS)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    for folder in (saved, splits):
        with pytest.raises(ConfigError, match=r"json names .*, which is nothing beside it; save the dataset"):
            list(read_rows(folder, where="path"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 9, b"\xff" * 100, b'{"problem": "1"}'])
def test_what_is_only_called_a_table_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    for read in (lambda: list(read_rows(path, where="path")), lambda: count_rows(path, where="path")):
        with pytest.raises(ConfigError, match=f"rows.{suffix} cannot be read"):
            read()


LONG = "a" * ((4 << 20) + 1)


def write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as written:
        written.write_table(table)


LONG_THIRD = [
    pa.array(["short", None, LONG]),
    pa.array(["short", None, LONG]).dictionary_encode(),
    pa.array([b"short", b"", LONG.encode()]),
    pa.array([[{"role": "user", "content": text}] for text in ("short", "", LONG)]),
    pa.array([[], [], ["a"] * 400_000]),
    pa.array([[], [], [None] * 600_000], pa.list_(pa.null())),
    pa.array([[], [], [("a", LONG)]], pa.map_(pa.string(), pa.string())),
    pa.array(["short", "", LONG], pa.string_view()),
]
RUNS = pa.RunEndEncodedArray.from_arrays([2, 3], ["short", LONG])  # which Parquet has not


@pytest.mark.parametrize(
    ("suffix", "column"),
    [("parquet", column) for column in LONG_THIRD] + [("arrow", column) for column in [*LONG_THIRD, RUNS]],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_a_row_longer_than_a_line_may_be_is_refused_by_number(
    suffix: str, column: pa.Array, tmp_path: Path
) -> None:
    """A file of a few hundred bytes can hold a row of gigabytes."""
    path, table = tmp_path / f"rows.{suffix}", pa.table({"problem": column})
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        write_arrow(path, table)
    with pytest.raises(ConfigError, match=r"rows\.\w+', row 2 \(from 0\): longer than 4 MiB; drop it"):
        list(read_rows(path, where="path"))


def test_many_rows_that_are_long_together_are_read(tmp_path: Path) -> None:
    records = [{"problem": f"{row}" * (1 << 20)} for row in range(9)]
    path = write_parquet(tmp_path, records)
    pq.write_table(pa.Table.from_pylist(records), path)
    assert [row.record for row in read_rows(path, where="path")] == records


def test_a_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    broken = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"problem": broken}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=r"rows.parquet cannot be read \(.*codec can't decode"):
        list(read_rows(tmp_path / "rows.parquet", where="path"))


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["0000.parquet", "0001.parquet"], None, [0, 1]),
        (["part-00000-u-c000.snappy.parquet", "part-00001-u-c000.snappy.parquet"], None, [0, 1]),
        (["part.0.parquet", "part.1.parquet", "part.10.parquet"], None, [0, 1, 2]),
        (["shard_001.parquet", "shard_002.parquet"], None, [0, 1]),
        (["train_0.parquet", "train_1.parquet", "test.parquet"], "train", [0, 1]),
        (["train-0-of-2.parquet", "train-1-of-2.parquet"], "train", [0, 1]),
        (["aime_24.parquet", "aime_25.parquet"], "aime_25", [1]),
        (["train.parquet", "test.PARQUET"], "test", [1]),
        (["train/0000.parquet", "train/0001.parquet"], "train", [0, 1]),
        (["train/0000.parquet", "test/0000.parquet"], "test", [1]),
        (["train/train-00000-of-00001.parquet", "test/test-00000-of-00001.parquet"], "test", [1]),
        (["default/train/0000.parquet", "default/test/0000.parquet"], "test", [1]),
        (["main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet"], "train", [0]),
        (["data/train/0000.parquet", "data/test/0000.parquet", ".git/x.parquet"], "train", [0]),
        (["README.md", "0000.parquet", "_SUCCESS"], None, [1]),
    ],
)
def test_the_files_of_a_split_are_found(
    tmp_path: Path, names: list[str], split: str | None, expected: list[int]
) -> None:
    for number, name in enumerate(names):
        path = tmp_path / name
        if path.suffix.lower() == ".parquet":
            write_parquet(path.parent, [{"n": number}], path.name)
        else:
            path.write_text("")
    rows = list(read_rows(tmp_path, where="path", split=split))
    assert [row.record["n"] for row in rows] == expected


def test_folders_that_are_datasets_are_named(tmp_path: Path) -> None:
    for name in ("main", "socratic"):
        for split in ("train", "test"):
            write_parquet(tmp_path / name, RECORDS, f"{split}-00000-of-00001.parquet")
    with pytest.raises(ConfigError, match="has the folders main, socratic, each a dataset; add one of them"):
        list(read_rows(tmp_path, where="path", split="train"))
    assert count_rows(tmp_path / "main", where="path", split="train") == 7


def test_files_that_are_datasets_are_named(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl", "README.md"):
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=r"without a dataset; .* for example test.jsonl, train.jsonl\."):
        list(read_rows(tmp_path, where="path"))


TEXTS = [{"problem": "a, b", "answer": "007"}, {"problem": 'two\n"lines"', "answer": "é"}]
LINES = "".join(json.dumps(record) + "\n" for record in TEXTS).encode()
CSV = 'problem,answer\n"a, b",007\n\n"two\n""lines""",é\n'.encode()


def indexed(records: Records) -> bytes:
    """As Feather files are."""
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(records)
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue().to_pybytes()


def columnar(records: Records) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records), sink, compression="gzip")
    return sink.getvalue().to_pybytes()


def zipped(content: bytes) -> bytes:
    """In gzip, without the time of day: the bytes are a part of a test's name, the same in each process."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.PARQUET", columnar(TEXTS)),
        ("rows.parq", columnar(TEXTS)),
        ("rows.parquet.gzip", columnar(TEXTS)),
        ("rows", columnar(TEXTS)),
        ("rows.arrow", indexed(TEXTS)),
        ("rows.feather", indexed(TEXTS)),
        ("rows.JSONL", LINES),
        ("rows.jsonl.gz", zipped(LINES)),
        ("rows.jsonl.bz2", bz2.compress(LINES)),
        ("rows.jsonl.xz", lzma.compress(LINES)),
        ("rows.jsonl.zst", pa.compress(LINES, codec="zstd", asbytes=True)),
        ("rows.json", LINES),
        ("rows.json", json.dumps(TEXTS, indent=1).encode()),
        ("rows.json.gz", zipped(json.dumps(TEXTS).encode())),
        ("rows.csv", CSV),
        ("rows.CSV", b"\xef\xbb\xbf" + CSV.replace(b"\n\n", b"\r\n\r\n")),
        ("rows.csv.gz", zipped(CSV)),
        ("rows.tsv", CSV.replace(b",", b"\t").replace(b"a\t", b"a,")),
    ],
)
def test_files_of_every_kind_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert [row.record for row in read_rows(path, where="path")] == TEXTS
    assert count_rows(path, where="path") == 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.parquet.gz", zipped(columnar(TEXTS)), "is a compressed Parquet file; unpack it"),
        ("rows.jsonl.gz", zipped(LINES)[:-9], "cannot be read"),
        ("rows.jsonl.gz", zipped(LINES)[:30] + b"?" * 40, "cannot be read"),
        ("rows.zip", b"PK\x03\x04", "a .zip file cannot be read; give JSONL"),
        ("rows.xlsx", b"PK\x03\x04", "a .xlsx file cannot be read"),
        ("rows.json", b'[{"problem": 1}, 2]', r"row 1 \(from 0\): 2 is not an object"),
        ("rows.json", b'[{"problem": 1}', "not JSON .*the file must be one JSON array"),
        ("rows.csv", b"problem,problem\na,b\n", "the column 'problem' is there twice"),
        ("rows.csv", b"problem,answer\na,b\na,b,c\n", "line 3: 3 fields, and the first line names 2"),
        ("rows.csv", b"problem,answer\n\xff,b\n", "not UTF-8"),
        ("rows.csv", b'problem,answer\n"a" b,c\n', "not CSV"),
    ],
)
def test_files_that_are_of_no_use_are_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        list(read_rows(tmp_path / name, where="path"))


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table({"problem": ["a"], "answer": ["1"], "other": ["x"]})
    for column in ("answer", "other"):
        pq.write_table(table.append_column(column, [["2"]]), tmp_path / f"{column}.parquet")
    with pytest.raises(ConfigError, match="the column 'answer' is there twice"):
        list(read_rows(tmp_path / "answer.parquet", where="path", columns=("problem", "answer")))
    rows = read_rows(tmp_path / "other.parquet", where="path", columns=("problem", "answer"))
    assert [row.record for row in rows] == [{"problem": "a", "answer": "1"}]


def test_numbers_of_32_bits_are_as_they_were_written(tmp_path: Path) -> None:
    numbers = [1234.567, 0.1, 1e-05, None, float("inf")]
    table = pa.table({"answer": pa.array(numbers, pa.float32()), "other": pa.array(numbers)})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = list(read_rows(tmp_path / "rows.parquet", where="path"))
    assert [row.record for row in rows] == [{"answer": number, "other": number} for number in numbers]
