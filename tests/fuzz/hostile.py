"""Bytes and texts that parsers stumble over: anything, what is nearly right, what has done harm before."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from rlstack.errors import ConfigError

# Any code point, halves of surrogate pairs included; often those that editors and parsers trip over.
texts = st.text(
    st.characters() | st.sampled_from("\0\b\x1b\x7f\x85\u200b\u202e\u2028\ufeff\ud800\udfff١１²𝟙")
)
numbers = st.integers() | st.floats() | st.sampled_from([1e308, -1e308, 10**400, -0.0, 2**63, 2**64])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
FRAGMENTS = [
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\r",
    b"\n",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"\\ud800"',
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b'{"a": 1, "a": 2}',
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with up to four places cut out, doubled, overwritten or interrupted."""
    content = whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 20)))
        between = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=8) | st.just(content[start:end] * 2))
        content = content[:start] + between + content[end:]
    return content


def lines(records: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSONL of such records, some of its lines something else."""
    line = records.map(lambda record: json.dumps(record).encode()) | st.binary(max_size=40)
    return st.lists(line | st.sampled_from(FRAGMENTS), max_size=4).map(b"\n".join)


def outcome(call: Callable[[], Any], *accepted: type[Exception]) -> Any:
    """What `call` gives; None for a ConfigError, or one of `accepted`, that is fit to be printed."""
    try:
        return call()
    except (ConfigError, *accepted) as error:
        message = str(error)
        assert message and all(len(line) < 1100 and line.isprintable() for line in message.split("\n"))
        return None
