"""Which sync intervals are tried, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable

from rlstack.errors import ConfigError

Interval = int | None  # s; None: offline, the generator keeps version 0

ONLINE: Interval = 1
OFFLINE: Interval = None
DEFAULT: tuple[Interval, ...] = (1, 2, 5, 10, 20, 50, OFFLINE)
OFFLINE_TEXT = "inf"


def label(interval: Interval) -> str:
    """As --intervals has it."""
    return OFFLINE_TEXT if interval is None else str(interval)


def setting(interval: Interval) -> str:
    """The line for `rlstack train` and for a file of settings."""
    return f"schedule.sync_interval={'null' if interval is None else interval}"


def in_order(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Each once, from online to offline."""
    return tuple(sorted(set(intervals), key=lambda s: float("inf") if s is None else s))


def choose(text: str | None, *, num_steps: int, lag: int) -> tuple[Interval, ...]:
    """The intervals that `text` asks for, in order, online always among them.

    Without a text those of DEFAULT that trials of `num_steps` steps can tell apart.

    Raises ConfigError for what is not an interval, and for one that the trials could not judge.
    """
    if num_steps < 2:
        raise ConfigError(
            f"--steps {num_steps}: at least 2 is accepted, or no trial trains on a sync; raise it"
        )
    if text is None:
        return tuple(s for s in DEFAULT if s == ONLINE or not list(_problems(s, num_steps, lag)))
    asked = parse(text)
    if problems := [problem for s in asked for problem in _problems(s, num_steps, lag)]:
        raise ConfigError("\n".join(problems))
    return in_order([ONLINE, *asked])


def parse(text: str) -> list[Interval]:
    """Those that `text` names, such as "1,10,inf". Raises ConfigError for what is not an interval."""
    return [_parse(part.strip()) for part in text.split(",")]


def fits(interval: Interval, num_steps: int, lag: int = 0) -> bool:
    """Whether a trial trains a whole interval on what a sync has brought; true of offline."""
    return interval is None or 2 * interval + lag <= num_steps


def _parse(text: str) -> Interval:
    if text in (OFFLINE_TEXT, "null"):
        return OFFLINE
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(
        f"--intervals {text!r}: positive integers and {OFFLINE_TEXT} (offline) are accepted, separated by "
        "commas, like 1,5,10,inf"
    )


def _problems(interval: Interval, num_steps: int, lag: int) -> Iterable[str]:
    if interval is None and lag > 0:
        yield (
            f"--intervals {OFFLINE_TEXT}: finite intervals are accepted with schedule.lag = {lag}, for "
            "offline never syncs; leave it out, or set schedule.lag=0"
        )
    if interval is not None and not fits(interval, num_steps, lag):
        yield (
            f"--intervals {interval}: at most {(num_steps - lag) // 2} is accepted with trials of "
            f"{num_steps} steps, so that a whole interval is trained on what a sync has brought; leave it "
            f"out, or raise --steps to {2 * interval + lag}"
        )
