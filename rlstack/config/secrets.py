"""Secrets in settings, which are kept in the run's files and sent to loggers, where they do not belong."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

# Of variables that hold secrets: HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_PASSWORD.
_NAME = re.compile(
    r"SECRET|PASSW|PASSPHRASE|CREDENTIAL|(TOKEN|APIKEY|(^|_)(KEY|PASS|PAT|PW|AUTH|PRIVATE|COOKIE))S?(_|$|\d)",
    re.IGNORECASE,
)
_PLACE = re.compile(r"_(PATH|FILE|DIR|HOME|NAME|ID|URL|TYPE|MODE|SOCK)$", re.IGNORECASE)  # of a secret
_LOOKED_UP = re.compile(r"oc\.env\s*:\s*['\"]?([A-Za-z_]\w*)")
MIN_CHARS = 6  # of a value that is looked for: a shorter one may stand in any text


def secret_in(text: str, variables: Mapping[str, str] = os.environ) -> str | None:
    """The environment variable whose secret `text` holds, or refers to as ${oc.env:NAME}; None: none.

    That a variable is secret is told by its name.
    """
    named = next((name for name in _LOOKED_UP.findall(text) if "${" in text and _is_secret(name)), None)
    return named or next((name for name, value in _secrets(variables) if value in text), None)


def _secrets(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in variables.items():
        if len(value.strip()) >= MIN_CHARS and _is_secret(name):
            yield name, value.strip()


def _is_secret(name: str) -> bool:
    return _NAME.search(name) is not None and _PLACE.search(name) is None
