"""Runs a list of checks: each that can be, whatever the others find, and those that wait side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from rlstack.child_process import kill_all
from rlstack.errors import ConfigError
from rlstack.preflight.planned import Planned


class Check(NamedTuple):
    """Yields a line for each problem, or raises ConfigError with them; it changes nothing on any disk."""

    name: str
    find: Callable[[Planned], Iterable[str]]
    needs: Sequence[
        str
    ] = ()  # names of checks before it that must have found nothing; otherwise it is skipped
    waits: bool = False  # for another process: the checks after it go on meanwhile, in another thread
    is_slow: bool = False  # skipped once any check before it has found something


def find_problems(planned: Planned, checks: Sequence[Check]) -> dict[str, list[str]]:
    """What each of the checks that were made finds, by name, in their order."""
    made: dict[str, list[str] | Future[list[str]]] = {}
    with ThreadPoolExecutor(max_workers=max(len(checks), 1), thread_name_prefix="check") as pool:
        try:
            for check in checks:
                if _is_skipped(check, made):
                    continue
                made[check.name] = (
                    pool.submit(_lines, check, planned) if check.waits else _lines(check, planned)
                )
            return {name: _result(found) for name, found in made.items()}
        except BaseException:  # Ctrl-C, which does not reach sessions of their own
            pool.shutdown(wait=False, cancel_futures=True)
            kill_all(planned.children)
            raise


def refuse(planned: Planned, checks: Sequence[Check]) -> None:
    """Raise one ConfigError with everything that the checks find, one line each."""
    found = find_problems(planned, checks)
    if problems := [line for lines in found.values() for line in lines]:
        raise ConfigError("\n".join(problems))


def _is_skipped(check: Check, made: Mapping[str, list[str] | Future[list[str]]]) -> bool:
    if any(name not in made or _result(made[name]) for name in check.needs):
        return True
    # What is still waited for does not count: its time is there to be used.
    return check.is_slow and any(
        _result(found) for found in made.values() if not isinstance(found, Future) or found.done()
    )


def _result(found: list[str] | Future[list[str]]) -> list[str]:
    return found.result() if isinstance(found, Future) else found


def _lines(check: Check, planned: Planned) -> list[str]:
    try:
        return list(check.find(planned))
    except ConfigError as error:
        return str(error).splitlines()
