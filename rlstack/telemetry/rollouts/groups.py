"""A run's rollouts for its report: whole groups, as many as a page has room for. Nothing is drawn here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from rlstack.errors import ConfigError
from rlstack.telemetry.html_page import packed
from rlstack.telemetry.rollout_shards import num_bytes, read_rollouts
from rlstack.telemetry.run_dir import to_json

# In the page: less than Plotly's script takes, so that the page can be mailed, and opens at once.
MAX_PACKED_BYTES = 1_500_000
MAX_FILE_BYTES = 40_000_000  # of the rows chosen: what a browser unpacks and searches without a pause
GROUPS_OF_STEP = 8  # that are worth more than a further step
MAX_CHARACTERS = 20_000  # of a text: 64 rollouts of that length still fit

Row = Mapping[str, Any]
Group = dict[str, Any]  # as the page's script reads it
T = TypeVar("T")

_OF_GROUP: dict[str, Any] = {"step": int, "task": str, "row": int, "version": int, "problem": str}
_OF_ROLLOUT: dict[str, Any] = {
    "text": str,
    "reward": int | float | None,
    "outcome": str,
    "finished": bool,
    "length_tokens": int,
}
_TYPES = _OF_GROUP | _OF_ROLLOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a page shows of a run's rollouts, and how many there are."""

    groups: Sequence[Group]
    markup: str  # an element of the page that holds the groups
    num_rollouts: int  # of the run
    num_steps: int

    @property
    def shown_rollouts(self) -> int:
        return sum(len(group["rollouts"]) for group in self.groups)

    @property
    def shown_steps(self) -> int:
        return len({group["step"] for group in self.groups})


def select(path: Path, *, n: int, name: str) -> Selection | None:
    """Groups of evenly chosen steps, the first and the last one included, as many as a page has room for.

    Args:
        path: rollouts.jsonl; it and its shards are read row by row, since they may exceed the memory.
        n: rollouts of a group.
        name: of the element that holds them.

    Returns:
        None if there is no such file, or no rollout in it.

    Raises:
        ConfigError: a row is not a rollout's.
    """
    if not path.exists():
        return None
    of_step = Counter(_value(row, "step", path) for row in read_rollouts(path))
    if not of_step:
        return None
    room = max(2, MAX_FILE_BYTES * len(of_step) // num_bytes(path))
    groups, markup = _fitting(list(read_groups(path, steps=set(evenly(sorted(of_step), room)), n=n)), name)
    return Selection(groups=groups, markup=markup, num_rollouts=of_step.total(), num_steps=len(of_step))


def _fitting(groups: Sequence[Group], name: str) -> tuple[list[Group], str]:
    """Those that a page has room for, and their element.

    First there are fewer groups of each step, down to GROUPS_OF_STEP, then fewer steps, down to two, and
    then fewer groups of these, down to one.
    """
    of_step = Counter(group["step"] for group in groups)
    num_steps, per_step = len(of_step), max(of_step.values())
    while True:
        chosen = choose(groups, num_steps=num_steps, per_step=per_step)
        markup = packed(to_json({"groups": chosen, "verdicts": with_verdicts(chosen)}), name=name)
        if len(markup) <= MAX_PACKED_BYTES or (num_steps <= 2 and per_step == 1):
            return chosen, markup
        share = 0.95 * MAX_PACKED_BYTES / len(markup)
        if per_step > GROUPS_OF_STEP:
            per_step = max(GROUPS_OF_STEP, int(share * per_step))
        elif num_steps > 2:
            num_steps = max(2, int(share * num_steps))
        else:
            per_step = max(1, int(share * per_step))


def read_groups(path: Path, *, steps: Collection[int], n: int) -> Iterator[Group]:
    """The groups of these steps, in the order of the file, where the rows of a group follow each other."""
    rows = (row for row in read_rollouts(path) if row["step"] in steps)
    for _, alike in groupby(rows, lambda row: [_value(row, name, path) for name in _OF_GROUP]):
        found = list(alike)
        for start in range(0, len(found), n):  # a step may have a prompt twice
            yield _group(found[start : start + n], path)


def choose(groups: Sequence[Group], *, num_steps: int, per_step: int) -> list[Group]:
    """At most `per_step` groups of each of at most `num_steps` steps, all of them evenly chosen."""
    by_step: dict[int, list[Group]] = {}
    for group in groups:
        by_step.setdefault(group["step"], []).append(group)
    return [group for step in evenly(list(by_step), num_steps) for group in evenly(by_step[step], per_step)]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, all if there are no more; the first and, from two on, the last one included."""
    if count >= len(items):
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / max(1, count - 1))] for i in range(count)]


def with_verdicts(groups: Sequence[Group]) -> list[str]:
    """The tasks whose rewards are all 1 or 0."""
    rewards: dict[str, set[float]] = {}
    for group in groups:
        found = rewards.setdefault(group["task"], set())
        found |= {each["reward"] for each in group["rollouts"] if each["reward"] is not None}
    return [task for task, found in rewards.items() if found and found <= {0, 1}]


def _group(rows: Sequence[Row], path: Path) -> Group:
    first = rows[0]
    return {
        **{name: first[name] for name in _OF_GROUP},
        "problem": _cut(first["problem"]),
        "answer": first.get("answer"),  # which runs of version 0.1.0 may not have
        "rollouts": [
            {
                "text": _cut(_value(row, "text", path)),
                "reward": _value(row, "reward", path),
                "outcome": _value(row, "outcome", path),
                "finished": _value(row, "finished", path),
                "length": _value(row, "length_tokens", path),
            }
            for row in rows
        ],
    }


def _cut(text: str) -> str:
    left_out = len(text) - MAX_CHARACTERS
    if left_out <= 0:
        return text
    return f"{text[:MAX_CHARACTERS]}\n[{left_out:,} more characters are in rollouts.jsonl]"


def _value(row: Row, name: str, path: Path) -> Any:
    if name not in row or not isinstance(row[name], _TYPES[name]):
        raise ConfigError(
            f"{path}: the {name!r} of a row is not that of a rollout; the file is damaged, take a copy"
        )
    return row[name]
