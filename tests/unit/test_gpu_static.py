"""The tool that tests the packages for GPUs: what it installs of the newest, and what it reads of pytest."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PYTEST = """\
..F.
FAILED tests/distributed/test_checkpoint.py::test_one - TypeError: async_save() takes 3 arguments
ERROR tests/distributed/test_checkpoint.py::test_two
=========== 1 failed, 2 passed, 3 skipped, 1 error in 12.30s ===========
"""


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    names = ("setup", "setup_gpu", "gpu_environment", "gpu_static")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield {name: importlib.import_module(name) for name in names}
        for name in names:
            sys.modules.pop(name, None)


def test_the_newest_are_named_without_versions_and_without_transformer_engine(tools) -> None:
    names = tools["gpu_environment"].names_wanted()
    assert {"vllm", "torch", "megatron-core", "ray", "math-verify[antlr4_13_2]"} <= set(names)
    assert not [name for name in names if name.startswith("transformer-engine")]
    assert not [name for name in names if set(name) & set("<>=!~; ")]


def test_what_breaks_is_what_pytest_names(tools) -> None:
    lines = PYTEST.splitlines()
    assert tools["gpu_static"].breaks_in(lines) == lines[1:3]
    assert tools["gpu_static"].breaks_in(["no summary"]) == ["no summary"]


def test_a_part_alone_leaves_the_rows_of_others_and_the_setup_as_they_are(tools, tmp_path: Path) -> None:
    tool, out = tools["gpu_static"], tmp_path / "out.json"
    first, second = (
        tool.Outcome(part=name, command="c", passed=True, seconds=1.0, counts={}, breaks=[])
        for name in list(tool.PARTS)[:2]
    )
    tool.write(out, [first], {"torch": "1"}, setup_s=60.0, gigabytes=1.0)
    tool.write(out, [second], {"torch": "1"}, setup_s=2.0, gigabytes=1.0)
    found = json.loads(out.read_text())
    assert [row["part"] for row in found["parts"]] == [first.part, second.part]
    assert found["setup_s"] == 60
    tool.write(out, [second], {"torch": "2"}, setup_s=2.0, gigabytes=1.0)
    assert [row["part"] for row in json.loads(out.read_text())["parts"]] == [second.part]


def test_a_source_archive_replaces_what_was_there(tools, tmp_path: Path) -> None:
    archive, place = tmp_path / "a-1.tar.gz", tmp_path / "a"
    with tarfile.open(archive, "w:gz") as file:
        entry = tarfile.TarInfo("a-1/setup.py")
        entry.size = 4
        file.addfile(entry, io.BytesIO(b"pass"))
    place.mkdir()
    (place / "old").touch()
    tools["gpu_environment"].unpack(archive, to=place)
    assert [path.name for path in place.iterdir()] == ["setup.py"]
