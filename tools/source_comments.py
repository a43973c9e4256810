"""The comments beside the fields of a class."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize

PRAGMA = re.compile(r"# type: ignore\[[\w-]+\]\s*")


def comments_of(section: type) -> dict[str, str]:
    """What stands after each field, or member of an enumeration, on its last line; its bases' fields too."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if base.__module__ == section.__module__:
            found |= _own_comments(base)
    return found


def _own_comments(section: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(section))
    comments = {
        token.start[0]: PRAGMA.sub("", token.string).lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    return {
        _name(node): " ".join(
            comments[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in comments
        )
        for node in tree.body
        if isinstance(node, ast.AnnAssign | ast.Assign)
    }


def _name(node: ast.AnnAssign | ast.Assign) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    assert isinstance(target, ast.Name)
    return target.id
