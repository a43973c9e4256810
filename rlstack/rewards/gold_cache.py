"""Gold answers that have been checked, on disk: in $XDG_CACHE_HOME/rlstack/golds, or below ~/.cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from rlstack.files import cache_folder, written_at_once

PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")
RULES = Path(__file__).parent  # whose math*.py decide

logger = logging.getLogger(__name__)


def recall(golds: Sequence[str]) -> set[str] | None:
    """Those of `golds` that cannot be verified; None if they have not been checked together."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        places = json.loads(_path(golds).read_text(encoding="utf-8"))["unverifiable"]
        return {golds[place] for place in places}
    return None


def remember(golds: Sequence[str], unverifiable: set[str]) -> None:
    """Keep for `recall` what has been found; a folder that cannot be written to keeps nothing."""
    path = _path(golds)
    places = [place for place, gold in enumerate(golds) if gold in unverifiable]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_at_once(path) as file:
            json.dump({"unverifiable": places}, file)
    except OSError as error:
        logger.info("gold answers are checked again next time: %s", error)


def _path(golds: Sequence[str]) -> Path:
    digest = hashlib.sha256(json.dumps([_rules(), list(golds)]).encode())
    return cache_folder("golds") / f"{digest.hexdigest()}.json"


@cache
def _rules() -> str:
    """A digest of all that decides whether a gold answer can be verified."""
    code = b"".join(path.read_bytes() for path in sorted(RULES.glob("math*.py")))
    return hashlib.sha256(code + repr([version(name) for name in PACKAGES]).encode()).hexdigest()
