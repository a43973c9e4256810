"""A model's folder may be anybody's: links that lead out of it and what is no file are refused unopened."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlstack.config.schema import RewardModel, RunConfig
from rlstack.config.validate import missing_inputs
from rlstack.config.weight_index import weight_files
from rlstack.data.tokenizer import load_tokenizer
from rlstack.errors import ConfigError
from rlstack.model import files as model_files
from rlstack.model.architecture import LARGEST, Architecture
from rlstack.policy.hf_folder import copy_tokenizer, write_companions
from rlstack.policy.model_folder import check_model_folder
from tests.model_folders import edit, seed_folder

Plant = Callable[[Path], str]  # puts something into a model's folder and returns what is said of it
SECRET = "nobody else's business"


def reward_model(folder: Path) -> None:
    config = RunConfig()
    config.policy.model = str(folder)
    config.reward.models = [RewardModel(name="judge", path=str(folder))]
    for problem in missing_inputs(config):
        raise ConfigError(problem)


def export(folder: Path) -> None:
    (folder.parent / "copy").mkdir(exist_ok=True)
    write_companions(folder, folder.parent / "copy", dtype="float32")


READERS: list[Callable[[Path], object]] = [
    Architecture.from_folder,
    weight_files,
    load_tokenizer,
    reward_model,
    export,
]


@pytest.fixture(autouse=True)
def no_endless_read() -> Iterator[None]:
    """A reader that waits for a pipe is interrupted."""

    def stop(*_: object) -> None:
        raise AssertionError("the file is still being read")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def secret(folder: Path) -> Path:
    path = folder.parent / "secret"
    path.write_text(SECRET)
    return path


def extra_file(folder: Path) -> str:
    (folder / "tokenizer_extra.json").symlink_to(secret(folder))
    return f"tokenizer_extra.json is a link to {folder.parent}/secret, out of the model's folder; put a copy"


def environment(folder: Path) -> str:
    (folder / "chat_template.jinja").symlink_to("/proc/self/environ")
    return "chat_template.jinja is a link to /proc/"


def relative(folder: Path) -> str:
    secret(folder)
    (folder / "vocab.json").symlink_to("../secret")
    return f"vocab.json is a link to {folder.parent}/secret"


def chain(folder: Path) -> str:
    (folder / "inner").mkdir()
    (folder / "inner" / "step").symlink_to(secret(folder))
    (folder / "merges.txt").symlink_to("inner/step")
    return "is a link to"


def chain_that_returns(folder: Path) -> str:
    """What is in between belongs to others, who can exchange it."""
    (folder.parent / "between").symlink_to(folder / "tokenizer.json")
    (folder / "added_tokens.json").symlink_to(folder.parent / "between")
    return f"added_tokens.json is a link to {folder.parent}/between"


def linked_folder(folder: Path) -> str:
    (folder.parent / "others").mkdir()
    (folder.parent / "others" / "a.jinja").write_text(SECRET)
    (folder / "additional_chat_templates").symlink_to(folder.parent / "others")
    return f"additional_chat_templates is a link to {folder.parent}/others"


def parent_folder(folder: Path) -> str:
    (folder / "additional_chat_templates").symlink_to("..")
    return f"additional_chat_templates is a link to {folder.parent}, out"


def file_in_a_folder(folder: Path) -> str:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").symlink_to(secret(folder))
    return "additional_chat_templates/tool.jinja is a link to"


def weights(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder.parent / "weights")
    (folder / "model.safetensors").symlink_to(folder.parent / "weights")
    return "model.safetensors is a link to"


def endless_settings(folder: Path) -> str:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    return "config.json is a link to /dev/zero"


def pipe(folder: Path) -> str:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    return "config.json is a pipe where a file belongs; put the file itself"


def pipe_for_weights(folder: Path) -> str:
    os.mkfifo(folder / "more.safetensors")
    return "more.safetensors is a pipe"


def pipe_for_the_engine(folder: Path) -> str:
    (folder / "1_Pooling").mkdir()
    os.mkfifo(folder / "1_Pooling" / "config.json")
    return "1_Pooling/config.json is a pipe"


def unix_socket(folder: Path) -> str:
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)  # to bind one, the path would have to be short
    os.replace(folder / "socket", folder / "tokenizer_config.json")
    return "tokenizer_config.json is a socket"


def circle(folder: Path) -> str:
    (folder / "vocab.json").symlink_to("vocab.txt")
    (folder / "vocab.txt").symlink_to("vocab.json")
    return "is a link that leads to itself"


def large(name: str, mib: int) -> Plant:
    def plant(folder: Path) -> str:
        with (folder / name).open("wb") as file:
            file.truncate((mib << 20) + (1 << 20))
        return f"{name} has {mib + 1} MiB, and at most {mib} are accepted"

    return plant


PLANTED: list[Plant] = [
    extra_file,
    environment,
    relative,
    chain,
    chain_that_returns,
    linked_folder,
    parent_folder,
    file_in_a_folder,
    weights,
    endless_settings,
    pipe,
    pipe_for_weights,
    pipe_for_the_engine,
    unix_socket,
    circle,
    large("config.json", 4),
    large("generation_config.json", 4),
    large("tokenizer.json", 256),
    large("model.safetensors.index.json", 256),
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__qualname__)
def test_every_reader_of_a_model_refuses_what_is_no_file_of_it(plant: Plant, tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    says = plant(folder)
    for read in READERS:
        with pytest.raises(ConfigError) as refused:
            read(folder)
        assert f" = {folder}: " in str(refused.value) and says in str(refused.value), read
    copied = tmp_path / "copy"
    assert not any(SECRET in path.read_text() for path in copied.rglob("*") if path.is_file())


def test_what_is_exchanged_after_the_check_is_not_copied(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / "vocab.json").symlink_to(secret(folder))
    (tmp_path / "copy").mkdir()
    with pytest.raises(ValueError, match="out of the model's folder"):
        copy_tokenizer(folder, tmp_path / "copy")
    (folder / "vocab.json").unlink()
    os.mkfifo(folder / "vocab.json")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="is a pipe"):
        copy_tokenizer(folder, tmp_path / "other")


def test_what_is_exchanged_while_it_is_opened_is_neither_followed_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / "vocab.json").symlink_to(secret(folder))
    os.mkfifo(folder / "merges.txt")
    monkeypatch.setattr(model_files, "regular_file", lambda folder, name: str(folder / name))  # as before
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        model_files.open_file(folder, "vocab.json")
    with pytest.raises(ValueError, match="is not a file any more"):
        model_files.open_file(folder, "merges.txt")


def test_a_folder_whose_name_begins_alike_is_another_one(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (tmp_path / "model-of-others").mkdir()
    (tmp_path / "model-of-others" / "vocab.json").write_text(SECRET)
    (folder / "vocab.json").symlink_to("../model-of-others/vocab.json")
    with pytest.raises(ConfigError, match=r"vocab\.json is a link to .*/model-of-others/vocab\.json, out"):
        check_model_folder(folder)


def hub_cache(folder: Path) -> Path:
    """A model as the hub's client keeps it: a snapshot of links to blobs."""
    repository = folder / "models--someone--tiny"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    seed_folder(repository / "blobs")
    for blob in (repository / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_a_hubs_cache_is_read_and_copied_as_files(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path)
    (snapshot / "not_downloaded.json").symlink_to("../../blobs/none")
    assert check_model_folder(snapshot).vocab_size == 336
    reward_model(snapshot)
    export(snapshot)
    copied = snapshot.parent / "copy"
    assert (copied / "tokenizer.json").read_bytes() == (snapshot / "tokenizer.json").read_bytes()
    assert not any(path.is_symlink() for path in copied.rglob("*"))


def test_a_hubs_cache_has_the_blobs_of_its_own_model_alone(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path)
    (tmp_path / "models--someone--other" / "blobs").mkdir(parents=True)
    (tmp_path / "models--someone--other" / "blobs" / "0").write_text("{}")
    (snapshot / "vocab.json").symlink_to("../../../models--someone--other/blobs/0")
    with pytest.raises(ConfigError, match=r"vocab\.json is a link to .*models--someone--other/blobs/0, out"):
        check_model_folder(snapshot)


def test_blobs_that_are_a_link_themselves_are_none(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path)
    blobs = snapshot.parents[1] / "blobs"
    shutil.move(blobs, tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"is a link to {tmp_path}/elsewhere/"):
        check_model_folder(snapshot)


def test_links_within_the_folder_and_to_the_folder_are_fine(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / "inner").mkdir()
    (folder / "generation_config.json").rename(folder / "inner" / "settings.json")
    (folder / "generation_config.json").symlink_to("inner/settings.json")
    (tmp_path / "current").symlink_to("model")
    check_model_folder(tmp_path / "current")
    export(tmp_path / "current")
    assert (tmp_path / "copy" / "generation_config.json").is_file()


def test_a_file_that_is_none_of_a_tokenizer_stays_behind(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    for name in ("tokenizer_extra.json", "tokenizer.key", "chat_template.key", "vocab.pem"):
        (folder / name).write_text(SECRET)
    export(folder)
    assert not any(SECRET in path.read_text() for path in (tmp_path / "copy").iterdir())


@pytest.mark.parametrize("key", [*LARGEST])
def test_a_model_beyond_any_size_is_refused_before_it_is_counted(key: str, tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    edit(folder / "config.json", **{key: 10**9 * 2})
    with pytest.raises(ConfigError, match=f"config.json: {key} = 2000000000 is not supported; accepted: a"):
        Architecture.from_folder(folder)
