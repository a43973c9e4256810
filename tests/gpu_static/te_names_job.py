"""Print, as JSON, how many names megatron-core takes of Transformer Engine, and those that are not there.

A name stands with its module, however many files take it.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import te_stand_in  # noqa: F401
import transformer_engine

PACKAGE = "transformer_engine"
ALIASES = ("te", PACKAGE)


def taken() -> set[tuple[str, ...]]:
    """Names with their modules, by what is written in megatron-core."""
    spec = find_spec("megatron.core")
    assert spec is not None and spec.submodule_search_locations
    files = Path(spec.submodule_search_locations[0]).rglob("*.py")
    texts = (path.read_text() for path in files)
    return {name for text in texts if PACKAGE in text for name in names(ast.parse(text))}


def names(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            assert node.module is not None
            yield from ((*node.module.split("."), alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and (parts := chain(node)) is not None:
            yield (PACKAGE, *parts)


def chain(node: ast.Attribute) -> list[str] | None:
    """The attributes of Transformer Engine that `node` ends; None if it begins with something else."""
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.insert(0, inner.attr)
        inner = inner.value
    return parts if isinstance(inner, ast.Name) and inner.id in ALIASES else None


def is_there(name: tuple[str, ...]) -> bool:
    """Return True if `name` can be imported, or is an attribute of a module that can."""
    found: Any = transformer_engine
    for part in name[1:]:
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        found = getattr(found, part)
    return True


if __name__ == "__main__":
    all_names = taken()
    missing = sorted(".".join(name) for name in all_names if not is_there(name))
    print(json.dumps({"num_names": len(all_names), "missing": missing}))
