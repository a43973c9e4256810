"""A table of contents that anyone could have written: read as data, or refused; nothing in it is called."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)

from rlstack.errors import CheckpointError
from rlstack.policy.checkpoint_contents import TensorReader, TensorsOnly, read_contents
from rlstack.policy.checkpoint_weights import CheckpointWeights

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # saving in one process

FILE = "__0_0.distcp"
METADATA = "torch.distributed.checkpoint.metadata"


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class Writer(FileSystemWriter):
    """As the policy's, which does not note where the draft was."""

    def storage_meta(self) -> None:
        pass


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.uint8)}
    dcp.save(tensors, storage_writer=Writer(folder), no_dist=True)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "policy")


def table(folder: Path) -> Any:
    return pickle.loads((folder / ".metadata").read_bytes())


def write(folder: Path, content: bytes) -> None:
    (folder / ".metadata").write_bytes(content)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_table_is_read_as_torch_reads_it(folder, protocol) -> None:
    expected = table(folder)
    write(folder, pickle.dumps(expected, protocol))
    found = read_contents(folder)
    assert found.state_dict_metadata == expected.state_dict_metadata
    assert found.storage_data == expected.storage_data


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (subprocess.Popen, "Popen"),
        (eval, "eval"),
        (getattr, "getattr"),
        (torch.load, "torch.*load"),
    ],
)
def test_a_call_of_anything_else_is_refused_and_not_made(folder, tmp_path, function, name, protocol) -> None:
    made = tmp_path / "made"
    write(folder, pickle.dumps({"deep": [Calls(function, f"touch {made}")]}, protocol))
    with pytest.raises(CheckpointError, match=rf"asks for .*{name}" if protocol else "the opcode DICT"):
        CheckpointWeights(folder)
    assert not made.exists()


def with_bytes(contents: Any) -> None:
    """An entry of bytes that has the size of a tensor, which is all that megatron-core looks at."""
    entry: Any = BytesStorageMetadata()
    entry.size = contents.state_dict_metadata["a"].size
    contents.state_dict_metadata["a"] = entry


def with_place(**changes: Any) -> Callable[[Any], None]:
    def change(contents: Any) -> None:
        for place in contents.storage_data.values():
            vars(place).update(changes)

    return change


def with_entry(**changes: Any) -> Callable[[Any], None]:
    return lambda contents: vars(contents.state_dict_metadata["a"]).update(changes)


def with_chunk(offsets: tuple[Any, ...], sizes: tuple[Any, ...]) -> Callable[[Any], None]:
    """Of the tensor of 2 x 3, with a place for it."""
    chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))

    def change(contents: Any) -> None:
        with_entry(chunks=[chunk])(contents)
        contents.storage_data[MetadataIndex("a", chunk.offsets)] = _StorageInfo(FILE, 0, 24)

    return change


def with_shared_chunks(contents: Any) -> None:
    """A list that takes little of the file, and long to read."""
    entry = contents.state_dict_metadata["a"]
    entry.chunks *= 1000
    contents.state_dict_metadata |= {f"a{index}": entry for index in range(1000)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_bytes, r"asks for .*\.BytesStorageMetadata"),
        (lambda it: it.state_dict_metadata.update(a=it), r"has .*\.Metadata of another form where"),
        (lambda it: it.state_dict_metadata.update({1: it.state_dict_metadata["a"]}), "a key of type int"),
        (lambda it: it.state_dict_metadata.update(a=None), "has NoneType where Instance is due"),
        (lambda it: vars(it).update(unknown=1), r"\.Metadata of another form"),
        (lambda it: vars(it).pop("storage_data"), r"\.Metadata of another form"),
        (lambda it: it.storage_data.clear(), "more pieces of tensors than places"),
        (with_shared_chunks, "more pieces of tensors than places"),
        *(
            (with_place(relative_path=path), f"names {path}, no file beside it")
            for path in ("../secret", "/etc/passwd", "./" + FILE, "sub/" + FILE, "..", "link", "missing")
        ),
        (with_place(relative_path=b"bytes"), "uses the opcode|asks for"),
        (with_place(offset=10**6), f"bytes behind the end of {FILE}"),
        (with_place(length=2**70), f"bytes behind the end of {FILE}"),
        (with_place(offset=-1), "has -1 where a number from 0"),
        (with_place(offset=True), "has bool where int is due"),
        (with_place(length=23), "no place for a piece of a"),
        (with_place(transform_descriptors=("zstd",)), r"_StorageInfo of another form"),
        (with_entry(size=torch.Size([3, 3])), "pieces of a are not as large as it together"),
        (with_entry(size=(2, 3)), "has tuple where Call is due"),
        (with_entry(size=torch.Size([1] * 9)), r"has torch\.Size of another form"),
        (with_entry(chunks=()), "has tuple where list is due"),
        (with_entry(chunks=[SimpleNamespace()]), r"asks for types\.SimpleNamespace"),
        (with_entry(properties=TensorProperties(dtype=torch.complex64)), r"asks for torch\.complex64"),
        (with_entry(properties=torch.float32), "has Global where Instance is due"),
        (with_chunk((1, 0), (2, 3)), "a piece that is not within its tensor"),
        (with_chunk((0,), (1,)), "a piece that is not within its tensor"),
    ],
)
def test_a_table_that_says_anything_else_is_refused(folder, change, message) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "sub").mkdir()
    shutil.copy(folder / FILE, folder / "sub" / FILE)
    contents = table(folder)
    change(contents)
    write(folder, pickle.dumps(contents))
    with pytest.raises(CheckpointError, match=rf"\.metadata: is no table of contents \(.*{message}"):
        CheckpointWeights(folder)


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def attribute(of: str, name: str, value: bytes) -> bytes:
    """Opcodes that give the global `of` an attribute."""
    return b"c" + of.encode() + b"\n" + b"N}" + text(name) + value + b"s\x86b0"


CHUNK = f"{METADATA}\nChunkStorageMetadata"
SIZE = b"ctorch\nSize\n"


LAYOUT = "torch.serialization\n_get_layout"
OPCODES = {
    "a destructor of a class": attribute(CHUNK, "__del__", SIZE),
    "a method of a class": attribute(CHUNK, "__setstate__", SIZE),
    "a method in the place of another": attribute(f"{METADATA}\nTensorProperties", "__setstate__", SIZE),
    "a default of a function": attribute(LAYOUT, "__defaults__", text("x") + b"\x85"),
    "a name of a function": attribute(LAYOUT, "__qualname__", text("x")),
    "a state that is changed": b"c"
    + CHUNK.encode()
    + b"\n)\x81}"
    + text("a")
    + b"Nsb}"
    + text("a")
    + b"Nsb0",
    "an object with arguments": b"c" + CHUNK.encode() + b"\nN\x85\x810",
    "a call without arguments": b"c" + CHUNK.encode() + b"\n)R0",
    "a size of a class": SIZE + b"c" + CHUNK.encode() + b"\n\x85R0",
    "a layout of a class": b"c" + LAYOUT.encode() + b"\n" + SIZE + b"\x85R0",
    "OBJ": b"(" + SIZE + b"o0",
    "INST": b"(itorch\nSize\n0",
    "NEWOBJ_EX": SIZE + b")}\x920",
    "PERSID": b"Pname\n0",
    "BINPERSID": b"K\x01Q0",
    "EXT1": b"\x82\x010",
    "a list that holds itself": b"]q\xf0h\xf0a0",
    "an attribute by GLOBAL": b"ctorch\nSize.__eq__\n0",
    "an attribute by STACK_GLOBAL": b"\x8c\x05torch\x8c\x0bSize.__eq__\x930",
}


@pytest.mark.parametrize("opcodes", OPCODES.values(), ids=OPCODES)
def test_opcodes_before_a_whole_table_do_nothing_but_end_the_reading(folder, opcodes) -> None:
    content = (folder / ".metadata").read_bytes()
    write(folder, b"\x80\x04" + opcodes + content[2:])
    with pytest.raises(CheckpointError, match=r"\.metadata: is no table of contents"):
        CheckpointWeights(folder)
    assert not {"__del__", "__setstate__"} & vars(ChunkStorageMetadata).keys()
    layout = torch.serialization._get_layout
    assert (layout.__qualname__, layout.__defaults__) == ("_get_layout", None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04(((((",
        b"\x80\x04.",
        b"\x80\x04NN.",
        b"\x80\x04(N.",
        b"\x80\x04N.",
        b"\x80\x04h\x05.",
        b"\x80\x04b.",
        b"\x80\x04\x86.",
        b"\x80\x04t.",
        b"\x80\x04}\x8c\x01au.",
        b"\x80\x04\x8c\x02\xff\xff.",
        b"\x80\x04" + b"(" * 30_000 + b"t" * 30_000 + b".",  # tuples in tuples
        b"\x80\x04}" + b"(" * 30_000 + b"t" * 30_000 + b"Ns.",  # as a key
    ],
)
def test_no_table_at_all_is_refused(folder, content) -> None:
    write(folder, content)
    with pytest.raises(CheckpointError, match=r"\.metadata: is no table of contents"):
        CheckpointWeights(folder)


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_that_a_table_takes_does_not_grow_with_the_indices_of_its_memo(folder) -> None:
    content = pickle.dumps(table(folder), protocol=2)
    assert content.count(b"q\x00") == 1 and b"h\x00" not in content
    write(folder, content.replace(b"q\x00", b"r" + (2**22).to_bytes(4, "little")))
    assert peak_bytes(lambda: CheckpointWeights(folder)) < 2**20


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x8d" + (2**40).to_bytes(8, "little"),  # BINUNICODE8
        b"\x8e" + (2**40).to_bytes(8, "little"),  # BINBYTES8
        b"\x96" + (2**40).to_bytes(8, "little"),  # BYTEARRAY8
        b"\x8b" + (2**31 - 1).to_bytes(4, "little"),  # LONG4
        b"X" + (2**32 - 1).to_bytes(4, "little"),  # BINUNICODE
        b"\x95" + (2**40).to_bytes(8, "little") + b"N",  # FRAME
    ],
)
def test_lengths_that_the_file_does_not_have_take_no_memory(folder, opcodes) -> None:
    write(folder, b"\x80\x05" + opcodes + b"ab.")

    def refused() -> None:
        with pytest.raises(CheckpointError):
            CheckpointWeights(folder)

    assert peak_bytes(refused) < 2**20


def test_a_table_that_is_exchanged_after_it_was_checked_is_not_read(folder, tmp_path, monkeypatch) -> None:
    made, begin = tmp_path / "made", FileSystemReader.__init__

    def exchange(self: FileSystemReader, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        write(folder, pickle.dumps(Calls(os.mkdir, str(made))))

    expected = table(folder)
    monkeypatch.setattr(FileSystemReader, "__init__", exchange)
    weights = CheckpointWeights(folder)
    assert weights._contents.state_dict_metadata == expected.state_dict_metadata
    assert not made.exists()


def test_tensors_are_read_by_the_checked_table_and_no_entry_is_unpickled(folder, tmp_path) -> None:
    contents, made = read_contents(folder), tmp_path / "made"
    (folder / ".metadata").unlink()
    found = {"a": torch.zeros(2, 3)}
    dcp.load(found, storage_reader=TensorReader(folder, contents), planner=TensorsOnly(), no_dist=True)
    assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3))
    entry = pickle.dumps(Calls(os.mkdir, str(made)))
    place = _StorageInfo(FILE, (folder / FILE).stat().st_size, len(entry))
    with (folder / FILE).open("ab") as file:
        file.write(entry)
    hostile = Metadata({"a": BytesStorageMetadata()}, storage_data={MetadataIndex("a"): place})
    with pytest.raises(dcp.CheckpointException, match="a is no tensor"):
        dcp.load(
            {"a": io.BytesIO()},
            storage_reader=TensorReader(folder, hostile),
            planner=TensorsOnly(),
            no_dist=True,
        )
    assert not made.exists()
