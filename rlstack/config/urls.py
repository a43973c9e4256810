"""Addresses where a path is meant: nothing is fetched from other machines, and nothing written to them."""

from __future__ import annotations

import re
from urllib.parse import unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path keeps one of the slashes: Path("s3://a") is s3:/a


def is_url(path: str) -> bool:
    """Whether `path` is an address such as s3://bucket/folder or file:///folder."""
    return _URL.match(path) is not None


def refusal(setting: str, path: str) -> str:
    """What to say of the URL that `setting` has for a path."""
    path = re.sub(r":/(?!/)", "://", path, count=1)
    if path.startswith("file:"):
        local = unquote(path.removeprefix("file://")).lstrip("/")
        return f"{setting} = {path}: a path is accepted, not a URL; give /{local}"
    return (
        f"{setting} = {path}: a path is accepted, not a URL; copy it to a disk, or mount it as a folder, and "
        "give that path"
    )
