"""Which differences between two copies of a model are found, and how little is read for that."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlstack.config import model_digests
from rlstack.config.model_digests import BLOCK_BYTES, NUM_BLOCKS, digests_of_model
from rlstack.model.files import open_file
from tests.model_folders import SEED, edit, seed_folder, stale_folder

WEIGHTS = "model.safetensors"


def differing(folder: Path) -> set[str]:
    """The files of `folder` whose digests are not those of the seed's."""
    here, there = digests_of_model(SEED), digests_of_model(folder)
    return {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}


def test_a_copy_with_a_readme_beside_it_does_not_differ(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "copy")
    shutil.copyfile(SEED / "config.json", folder / "config.json")
    (folder / "README.md").write_text("This is a copy.")
    (folder / "training_args.bin").write_bytes(b"x")
    assert differing(folder) == set()
    assert WEIGHTS in digests_of_model(folder)


def test_weights_of_another_training_with_one_config_differ(tmp_path: Path) -> None:
    folder = stale_folder(tmp_path / "stale")
    assert (folder / WEIGHTS).stat().st_size == (SEED / WEIGHTS).stat().st_size
    assert differing(folder) == {WEIGHTS}


@pytest.mark.parametrize("seed", range(8))
def test_one_bit_anywhere_in_a_file_of_up_to_four_mib_makes_a_difference(tmp_path: Path, seed: int) -> None:
    drawn = random.Random(seed)
    content = bytearray(drawn.randbytes(drawn.randrange(9, NUM_BLOCKS * BLOCK_BYTES + 1)))
    content[:8] = (64).to_bytes(8, "little")
    path = tmp_path / WEIGHTS
    path.write_bytes(content)
    before = digests_of_model(tmp_path)
    content[drawn.randrange(8, len(content))] ^= 1 << drawn.randrange(8)
    path.write_bytes(content)
    assert digests_of_model(tmp_path)[WEIGHTS] != before[WEIGHTS]


def test_a_large_file_is_read_at_its_header_and_in_blocks_up_to_its_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, read = 20 * 2**30, 0
    path = tmp_path / WEIGHTS
    with path.open("wb") as file:
        file.write((2).to_bytes(8, "little") + b"{}")
        file.truncate(size)  # which takes no room on the disk

    def counted(folder: Path, name: str) -> object:
        file = open_file(folder, name)
        real_read = file.read

        class Counting:
            seek = file.seek

            def read(self, count: int) -> bytes:
                nonlocal read
                read += count
                return real_read(count)

            def __enter__(self) -> Counting:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

        return Counting()

    monkeypatch.setattr(model_digests, "open_file", counted)
    before = digests_of_model(tmp_path)[WEIGHTS]
    assert before.num_bytes == size and read == 8 + 2 + NUM_BLOCKS * BLOCK_BYTES
    for place in (9, size // 63 * 31 + 17, size - 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\x01")
        changed = digests_of_model(tmp_path)[WEIGHTS]
        assert changed != before, place
        before = changed
    os.truncate(path, size - 1)
    assert digests_of_model(tmp_path)[WEIGHTS] != before


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_other_settings_of_model_generation_and_tokenizer_differ(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(SEED, folder)
    edit(folder / name, changed=1)
    assert differing(folder) == {name}


def test_a_tokenizer_and_a_template_of_the_model_differ_where_they_are_other_or_missing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(SEED, folder)
    (folder / "tokenizer.json").unlink()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    assert differing(folder) == {
        "tokenizer.json",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    }


def test_of_sharded_weights_those_that_the_index_names_count(tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"t{number}": torch.zeros(4)}, tmp_path / name)
    index = {f"t{number}": name for number, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    edit(tmp_path / "model.safetensors.index.json", weight_map=index)
    save_file({"old": torch.zeros(4)}, tmp_path / "consolidated.safetensors")
    assert set(digests_of_model(tmp_path)) == {*names, "model.safetensors.index.json"}
    (tmp_path / names[1]).unlink()
    assert set(digests_of_model(tmp_path)) == {names[0], "model.safetensors.index.json"}


def test_a_link_out_of_the_folder_is_not_followed_and_a_pipe_not_waited_for(tmp_path: Path) -> None:
    folder, secret = tmp_path / "copy", tmp_path / "secret"
    shutil.copytree(SEED, folder)
    secret.write_text("{}")
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").symlink_to(secret)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    found = digests_of_model(folder)
    assert "out of the model's folder" in found["generation_config.json"].trouble
    assert "is a pipe" in found[WEIGHTS].trouble
    assert found["config.json"] == digests_of_model(SEED)["config.json"]


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert digests_of_model(tmp_path / "missing") == {}
