"""Ray's token: whoever reaches the ports of a Ray without one can run code as its user. Pure Python."""

from __future__ import annotations

import os
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def mode_problem() -> str | None:
    """The refusal of an environment that turns the token off, with the remedy; None where it does not."""
    mode = os.environ.get(MODE, "")
    if mode.lower() in ("", "token"):
        return None
    return (
        f"{MODE}={mode} in the environment: only token is accepted, for without one everybody who reaches "
        f"Ray's ports can run code as you; unset {MODE}"
    )


def token_problem() -> str | None:
    """The refusal of the token that a cluster is joined with; None where there is one for its owner only.

    Ray looks into RAY_AUTH_TOKEN, into the file that RAY_AUTH_TOKEN_PATH names and into ~/.ray/auth_token.
    """
    if os.environ.get(TOKEN):
        return None
    path = Path(_token_path())
    try:
        found = path.stat()
        is_empty = not path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return (
            f"this user has no token for the cluster ({path}: {error.strerror}); put the head node's token "
            f"there (mode 0600), or into {TOKEN}"
        )
    if found.st_uid not in (0, os.getuid()):
        return f"{path} belongs to another user (uid {found.st_uid}); keep the token in a file of your own"
    if found.st_mode & 0o077:
        return (
            f"{path} has mode {found.st_mode & 0o777:04o}, and 0600 is accepted, for a token is as good as a "
            f"login; chmod 600 {path}, and renew the token if somebody may have read it"
        )
    if is_empty:
        return (
            f"this user has no token for the cluster ({path} is empty); put the head node's token there, or "
            f"into {TOKEN}"
        )
    return None


def token_source() -> str:
    """The variable or the file that a cluster's token is read from, in the order in which Ray looks."""
    return TOKEN if os.environ.get(TOKEN) else _token_path()


def _token_path() -> str:
    return os.environ.get(TOKEN_PATH) or str(Path.home() / ".ray" / "auth_token")
