"""The exceptions that speak to the user rather than to a developer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_LINE_CHARS = 1000  # of a message, which repeats what was given


class ConfigError(ValueError):
    """Something the user gave cannot work; the command line prints it without a traceback and exits with 2.

    The message names the setting (or the file and line), what was given, what is accepted and the remedy. It
    is fit for a terminal: what a file made it say neither moves the cursor nor fills the screen.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(_line, message.split("\n"))))


class CheckpointError(ConfigError):
    """A checkpoint that cannot be gone on from: damaged, or of another model. The message names the file."""


class StrangerError(ConfigError):
    """A process that is not of the run has spoken to it, or could: what it sent has not been used."""


class UserCodeError(RuntimeError):
    """An exception that code of the user's own has raised; the message begins with its file and line."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.line = line


class UnreadableCheckpoint(CheckpointError):
    """A checkpoint that the file system does not give out at the moment; it may be whole all the same."""


class DiskError(RuntimeError):
    """A file system that cannot take what a command is to write; the message says where, and the remedy."""


@contextmanager
def refusing(say: Callable[[BaseException], str]) -> Iterator[None]:
    """Raise a ConfigError with what `say` makes of whatever code of others raises on files of others.

    That is no Exception where it is a panic of a library in Rust.
    """
    try:
        yield
    except (ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ConfigError(say(error)) from None


def reason_of(error: BaseException) -> str:
    """The first line of what `error` says, or its type if it says nothing."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def for_terminal(text: str) -> str:
    """`text`, of whatever file or process, with what is not printable escaped; ends of lines stay."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def _line(text: str) -> str:
    return _cut(for_terminal(_cut(text)))  # escapes are longer than what they stand for


def _cut(text: str) -> str:
    if len(text) <= MAX_LINE_CHARS:
        return text
    half = MAX_LINE_CHARS // 2  # the end has the remedy
    return f"{text[:half]} ... {text[-half:]}"
