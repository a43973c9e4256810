"""Addresses where a path is meant, for nothing is fetched from other machines; and those with secrets."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path keeps one of the slashes: Path("s3://a") is s3:/a


def is_url(path: str) -> bool:
    """Whether `path` is an address such as s3://bucket/folder or file:///folder."""
    return _URL.match(path) is not None


def secret_part(url: str) -> str | None:
    """The part of an address in which secrets stand, in words; None if it has none.

    An address is kept and shown as it is, so it may have no user, no password and no query.
    """
    if "?" in url or "#" in url:
        return "a query"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "brackets"
    is_path = parts.scheme == "sqlite" and not parts.netloc  # the name of a folder may have an @
    return "a user or a password" if "@" in url and not is_path else None


def without_secrets(url: str) -> str:
    """`url` for a message, without those parts."""
    return re.sub(r"[?#].*", "?...", re.sub(r"//[^/]*@", "//...@", url), flags=re.DOTALL)


def refusal(setting: str, path: str) -> str:
    """What to say of the URL that `setting` has for a path."""
    path = without_secrets(path)
    path = re.sub(r":/(?!/)", "://", path, count=1)
    if path.startswith("file:"):
        local = unquote(path.removeprefix("file://")).lstrip("/")
        return f"{setting} = {path}: a path is accepted, not a URL; give /{local}"
    return (
        f"{setting} = {path}: a path is accepted, not a URL; copy it to a disk, or mount it as a folder, and "
        "give that path"
    )
