"""What the paths among the settings lead to, as digests, by which a run is known wherever its files are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlstack.checkpoint.manifest import digest_of
from rlstack.config.reward_names import used_models
from rlstack.config.schema import RunConfig, Task
from rlstack.config.weight_index import INDEX
from rlstack.data.rows import files_of_dataset
from rlstack.model.files import CONFIG, companions

# Weights in larger files are known by their sizes, their headers and samples: with the files of a model of
# 70 billion parameters, reading all of them would take minutes.
WHOLE_BYTES = 256 * 1024**2
SAMPLE_BYTES = 1024**2
NUM_SAMPLES = 64

File = tuple[str, str, Path]  # the setting, the file's name in what the path leads to, and where it is


def contents_of(config: RunConfig) -> dict[str, dict[str, str]]:
    """SHA-256 of each file that the run reads, by the setting of the path and the file's name.

    Files below WHOLE_BYTES and datasets are read whole. What is not there is left out.

    Raises ConfigError if a dataset is not one, OSError if a file cannot be read.
    """
    files = list(_files(config))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = list(pool.map(_digest, [path for _, _, path in files]))
    contents: dict[str, dict[str, str]] = {}
    for (setting, name, _), digest in zip(files, digests, strict=True):
        contents.setdefault(setting, {})[name] = digest
    return contents


def _files(config: RunConfig) -> Iterator[File]:
    yield from _of_model("policy.model", Path(config.policy.model))
    used = used_models(config)
    for i, model in enumerate(config.reward.models):
        if model in used:
            yield from _of_model(f"reward.models[{i}].path", Path(model.path))
    for section, tasks in (("data", config.data.tasks), ("evaluation", config.evaluation.tasks)):
        for i, task in enumerate(tasks):
            yield from _of_task(f"{section}.tasks[{i}].path", task)
    if (replay := config.schedule.adaptive.replay) is not None and Path(replay).is_file():
        yield "schedule.adaptive.replay", "log", Path(replay)


def _of_model(setting: str, folder: Path) -> Iterator[File]:
    """Settings, tokenizer and weights of the Hugging Face folder."""
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    for name in (CONFIG, INDEX, *weights, *companions(folder)):
        if (folder / name).is_file():
            yield setting, name, folder / name


def _of_task(setting: str, task: Task) -> Iterator[File]:
    path = Path(task.path)
    if not path.exists():
        return
    for file in files_of_dataset(path, task.split, here=f"{setting} = {task.path!r}"):
        yield setting, "file" if file == path else file.relative_to(path).as_posix(), file


def _digest(path: Path) -> str:
    is_sampled = path.suffix == ".safetensors" and path.stat().st_size > WHOLE_BYTES
    return _sampled(path) if is_sampled else digest_of(path).sha256


def _sampled(path: Path) -> str:
    """Of the size, the header with the tensors' names, shapes and dtypes, and blocks all over the file."""
    size = path.stat().st_size
    hashed = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        length = file.read(8)
        hashed.update(length + file.read(min(int.from_bytes(length, "little"), SAMPLE_BYTES * NUM_SAMPLES)))
        for number in range(NUM_SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (NUM_SAMPLES - 1))
            hashed.update(file.read(SAMPLE_BYTES))
    return hashed.hexdigest()
