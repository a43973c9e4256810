"""A Hugging Face folder takes another's place whole or not at all, with all that belongs to the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlstack.policy.hf_folder import replaced_at_once, write_companions

KEPT = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
    "generation_config.json",
)


def test_a_folder_is_replaced_with_nothing_left_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with replaced_at_once(folder) as draft:
            (draft / name).touch()
            assert not (folder / name).exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "model",
        "model/second",
    ]


def test_what_ends_badly_leaves_the_old_one_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "of_a_killed_process").touch()
    with pytest.raises(OSError, match="full"), replaced_at_once(folder) as draft:
        assert not list(draft.iterdir())
        (draft / "new").touch()
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in folder.iterdir()] == ["old"]


def test_the_tokenizer_goes_along_and_weights_do_not(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in (*KEPT, "model.safetensors", "model.safetensors.index.json", "README.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    settings = {"vocab_size": 7, "torch_dtype": "float16"}
    (source / "config.json").write_text(json.dumps(settings))
    target.mkdir()
    write_companions(source, target, dtype="bfloat16")
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == {*KEPT, "config.json"}
    assert all((target / name).read_text() == name for name in KEPT)
    assert json.loads((target / "config.json").read_text()) == {"vocab_size": 7, "dtype": "bfloat16"}
