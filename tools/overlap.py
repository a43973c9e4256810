"""When two texts count as the same, and when one holds another: for duplicates and for test sets."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

NGRAM_WORDS = 8
MIN_SHARE = 0.5  # of a test problem's n-grams

# What changes how a formula looks and not what it says: spaces, delimiters, sizes.
LOOKS = re.compile(r"\s|[$~]|\\[()\[\],;:!]|\\(?:left|right|displaystyle|quad|qquad)(?![a-z])")
FRACTIONS = re.compile(r"\\[dt]frac(?![a-z])")
WORDS = re.compile(r"[^\W_]+")


def normalised(text: str) -> str:
    """Equal for texts that differ only in case, spaces, Unicode form and the looks of their formulas."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return FRACTIONS.sub(r"\\frac", LOOKS.sub("", folded))


def fingerprint(text: str) -> bytes:
    """16 bytes that are equal for texts that are equal when normalised, and otherwise as if random."""
    return hashlib.sha256(normalised(text).encode("utf-8", "replace")).digest()[:16]


def ngrams(text: str) -> set[str]:
    """Every run of NGRAM_WORDS words; a word is letters and digits, whatever stands in between."""
    words = WORDS.findall(unicodedata.normalize("NFC", text).casefold())
    return {" ".join(words[i : i + NGRAM_WORDS]) for i in range(len(words) - NGRAM_WORDS + 1)}


class HeldTexts:
    """Texts that nothing may be trained on.

    A text overlaps with them if it equals one of them, normalised, or has at least MIN_SHARE of the n-grams
    of one. So what surrounds the match does not matter, nor do a few words or numbers that were changed; of
    a text with fewer than NGRAM_WORDS words only its equals overlap.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._fingerprints = {fingerprint(text) for text in texts}
        self._num_ngrams: list[int] = []
        self._holders: dict[str, list[int]] = {}  # the texts that have an n-gram
        for text in texts:
            grams = ngrams(text)
            for gram in grams:
                self._holders.setdefault(gram, []).append(len(self._num_ngrams))
            self._num_ngrams.append(len(grams))

    def overlap_with(self, text: str) -> bool:
        """Whether nothing may be trained on `text`, as the class says."""
        if fingerprint(text) in self._fingerprints:
            return True
        shared = Counter(self._all_holders(ngrams(text)))
        return any(count >= MIN_SHARE * self._num_ngrams[holder] for holder, count in shared.items())

    def _all_holders(self, grams: Iterable[str]) -> Iterable[int]:
        return (holder for gram in grams for holder in self._holders.get(gram, ()))
