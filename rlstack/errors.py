"""The exceptions that speak to the user rather than to a developer."""

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


def _line(text: str) -> str:
    if len(text) > MAX_LINE_CHARS:
        half = MAX_LINE_CHARS // 2  # the end has the remedy
        text = f"{text[:half]} ... {text[-half:]}"
    return "".join(character if character.isprintable() else "?" for character in text)
