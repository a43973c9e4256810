"""What a command raises, as the exit status and what the user reads.

0 only if everything asked for was done, 2 for a usage or configuration error, 1 for any other error, 130
after Ctrl-C.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from rlstack.errors import ConfigError, DiskError, UserCodeError


@contextmanager
def exit_status() -> Iterator[None]:
    """Turn what a command raises into the exit status and what the user reads."""
    try:
        yield
    except ConfigError as error:
        for problem in str(error).splitlines():
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    except DiskError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        typer.echo(_in_short(error), err=True)
        raise typer.Exit(1) from None


def _in_short(error: Exception) -> str:
    """One line and where the traceback is; the traceback itself if it has not been written anywhere."""
    notes: list[str] = getattr(error, "__notes__", [])
    if not notes:
        return "".join(traceback.format_exception(error))
    first_line, *more = str(error).splitlines() or [""]
    if isinstance(error, UserCodeError):  # which begins with the user's file and line
        return "\n".join([f"error: {first_line}", *more, *notes])
    return "\n".join([f"error: {type(error).__name__}: {first_line}", *notes])
