"""The exceptions that speak to the user rather than to a developer."""


class ConfigError(ValueError):
    """Something the user gave cannot work; the command line prints it without a traceback and exits with 2.

    The message names the setting (or the file and line), what was given, what is accepted and the remedy.
    """


class CheckpointError(ConfigError):
    """A checkpoint that cannot be gone on from: damaged, or of another model. The message names the file."""
