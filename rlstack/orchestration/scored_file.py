"""OUT of `rlstack score`: the rows with their rewards, which grows as they are scored."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rlstack.config.reward_names import RewardKind, kind_of
from rlstack.config.schema import RewardModel
from rlstack.data.journal import Journal
from rlstack.data.records import Score
from rlstack.data.rows import Row
from rlstack.errors import ConfigError
from rlstack.rewards.answer_file import Fields, scores_in, with_rewards
from rlstack.telemetry.run_dir import to_json, write_json

WRITE_EVERY_S = 0.5  # at least: to reach the disk takes a while
HEAD_BYTES = 1 << 20  # of a file of weights: its header, which names all tensors


class ScoredFile:
    """The rows that have their rewards; used by one process at a time."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path = path
        self._journal = journal
        self._waiting: list[dict[str, Any]] = []
        self._last_write = time.monotonic()
        self.num_kept = len(journal.rows)  # rows that were there when it was opened

    def kept(self, row: Row, position: int) -> list[Score]:
        """The scores of row number `position` of FILE, which is among the first `num_kept`.

        Raises:
            ConfigError: the row that is there is another one.
        """
        there = self._journal.rows[position]
        try:
            scores = scores_in(there)
            is_same = json.loads(to_json(with_rewards(row.record, scores))) == there
        except (KeyError, TypeError, ValueError):
            is_same = False
        if not is_same:
            raise ConfigError(
                f"--out = {self.path}, line {position + 1}: is not {row.at} with its rewards; give another "
                "--out"
            )
        return scores

    def add(self, row: Row, scores: Sequence[Score]) -> None:
        """Write the row with its scores, at once or with the next ones."""
        self._waiting.append(with_rewards(row.record, scores))
        if time.monotonic() - self._last_write >= WRITE_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written. Raises OSError: the disk is full, for example."""
        waiting, self._waiting = self._waiting, []
        self._journal.append(waiting)
        self._last_write = time.monotonic()


@contextmanager
def scored_file(path: Path, given: Path, identity: Mapping[str, Any]) -> Iterator[ScoredFile]:
    """OUT at `path`; what has been added is in it whatever ends the context, and without a row it is no more.

    given: FILE, whose rows are scored.
    identity: what the rewards depend on besides the rows; it is kept beside OUT, as OUT.settings.json.

    Raises:
        ConfigError: it cannot be written there, or holds something else.
    """
    _refuse_unusable(path, given)
    settings = path.with_name(f"{path.name}.settings.json")
    if path.exists() and path.stat().st_size:
        _refuse_another(path, settings, identity)
    with closing(Journal(path)) as journal:
        try:
            if journal.rows:
                _refuse_another(path, settings, identity)
            else:
                write_json(settings, identity)
            file = ScoredFile(path, journal)
            try:
                yield file
            finally:
                file.flush()
        except BaseException:
            if not path.stat().st_size:
                path.unlink()
                settings.unlink(missing_ok=True)
            raise


def identity_of(reward: str, models: Sequence[RewardModel], fields: Fields) -> dict[str, Any]:
    """What rewards depend on besides the rows: the reward by its name and its content, the rows' fields.

    A reward model counts by its folder's files, wherever they are; a plug-in by its module's source, where
    that is in the working directory.
    """
    identity: dict[str, Any] = {"problem_field": fields.problem, "answer_field": fields.answer}
    for model in models:
        if model.name == reward:
            content = _digest(sorted(Path(model.path).glob("*.*")))
            return {"model": content, "max_tokens": model.max_tokens, **identity}
    if kind_of(reward) is RewardKind.plugin:
        module = Path(*reward.partition(":")[0].split("."))
        files = [file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()]
        return {"reward": reward, "source": _digest(files), **identity}
    return {"reward": reward, **identity}


def _digest(files: Sequence[Path]) -> str:
    """Of the files' names, sizes and beginnings."""
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + hashlib.sha256(head).digest())
    return digest.hexdigest()


def _refuse_unusable(path: Path, given: Path) -> None:
    if path.is_dir():
        why = "Is a directory"
    elif not path.parent.is_dir():
        why = "No such file or directory"
    elif path.exists() and not path.is_file():
        why = "Not a file"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        why = "Permission denied"
    elif path.exists() and path.samefile(given):
        why = "Is FILE itself"
    else:
        return
    raise ConfigError(f"--out = {path}: {why}; give a file in a folder to write to")


def _refuse_another(path: Path, settings: Path, identity: Mapping[str, Any]) -> None:
    """Raise ConfigError if the rows at `path` have not been scored with `identity`."""
    try:
        there = json.loads(settings.read_text(encoding="utf-8"))
    except FileNotFoundError:
        why = f"is there, without the {settings.name} of `rlstack score`"
    except (OSError, ValueError):
        why = f"is there, and its {settings.name} cannot be read"
    else:
        if there == identity:
            return
        names = [name for name in {**there, **identity} if there.get(name) != identity.get(name)]
        why = f"holds rewards with another {', '.join(names)}"
    raise ConfigError(f"--out = {path}: {why}; give another --out, or move it away")
