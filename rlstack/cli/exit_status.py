"""What a command raises, as the exit status and what the user reads.

0 only if everything asked for was done, 2 for a usage or configuration error, 1 for any other error, 130
after Ctrl-C.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from rlstack.errors import ConfigError, DiskError, UserCodeError, for_terminal


@contextmanager
def exit_status() -> Iterator[None]:
    """Turn what a command raises into the exit status and what the user reads."""
    try:
        yield
    except (typer.Exit, SystemExit):
        raise
    except ConfigError as error:
        raise _ended(2, *(f"error: {problem}" for problem in str(error).splitlines())) from None
    except DiskError as error:
        raise _ended(1, f"error: {error}") from None
    except KeyboardInterrupt:
        raise _ended(130, "interrupted") from None
    except BaseException as error:  # a panic of a library in Rust is no Exception
        raise _ended(1, _in_short(error)) from None


def _ended(status: int, *texts: str) -> typer.Exit:
    for text in texts:
        typer.echo(for_terminal(text), err=True)
    return typer.Exit(status)


def _in_short(error: BaseException) -> str:
    """One line and where the traceback is; the traceback itself if it has not been written anywhere."""
    notes: list[str] = getattr(error, "__notes__", [])
    if not notes:
        return "".join(traceback.format_exception(error))
    first_line, *more = str(error).splitlines() or [""]
    if isinstance(error, UserCodeError):  # which begins with the user's file and line
        return "\n".join([f"error: {first_line}", *more, *notes])
    return "\n".join([f"error: {type(error).__name__}: {first_line}", *notes])
