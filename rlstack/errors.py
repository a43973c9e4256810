"""The one exception that speaks to the user rather than to a developer."""


class ConfigError(ValueError):
    """Something the user gave cannot work; the command line prints it without a traceback and exits with 2.

    The message names the setting (or the file and line), what was given, what is accepted and the remedy.
    """
