r"""Gold answers that no answer in a box could equal, by how they are written. Pure.

Everything equals itself, a whole solution too; what a policy can write in \boxed{} is a value or a few words.
"""

from __future__ import annotations

import re

from rlstack.data.boxed import boxed_answer

PAPER_FORM = r"The final answer is $\boxed{%s}$. I hope it is correct."  # of the prompt template MATH
MAX_WORDS = 7  # of an answer in words
MAX_WORDS_BY_VALUE = 2  # of an answer that holds a value
MAX_UNIT_WORDS = 5  # 12 cubic centimetres per second
MAX_CJK_BY_VALUE = 5  # characters

JSON = re.compile(r"[\[{]\s*\"")
# What words in an expression are: text that is set as such, environments, commands.
SET_AS_TEXT = re.compile(
    r"\\(?:text\w*|mathrm|mathbf|mathsf|mathit|mbox|hbox|operatorname|begin|end)\*?\s*\{[^{}]*\}"
)
COMMAND = re.compile(r"\\[A-Za-z]+")
WORD = re.compile(r"[^\W\d_]{2,}")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Words of expressions as programs write them, and between two values.
NO_PROSE = re.compile(
    r"and|or|if|to|mod|base|(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln|exp|sqrt|pi|max|min|gcd|lcm|infinity"
    r"|inf|theta|alpha|beta",
    re.IGNORECASE,
)
VERBS = frozenset(["is", "are", "was", "were", "has", "have", "takes", "makes", "equals", "gives", "costs"])
VALUE = re.compile(r"[\d$=^]|\\(?!text|mbox|mathrm)")
WITH_UNIT = re.compile(r"\\?\$?-?[\d.,/ ]+\\?%?(?: [^\W\d_]+\.?)+")


def flaw(gold: str) -> str | None:
    """What keeps an answer in the paper's form from being `gold`, in words; None if nothing does."""
    if "\n" in gold:
        return "a line break"
    if JSON.match(gold):
        return "JSON"
    if boxed_answer(PAPER_FORM % gold) != gold.strip():
        return "too long for a box, or with braces that do not close"
    return "prose around the value" if _is_prose(gold) else None


def _is_prose(gold: str) -> bool:
    bare = COMMAND.sub(" ", SET_AS_TEXT.sub(" ", gold))
    words = [word for word in WORD.findall(bare) if not word.isupper() and not NO_PROSE.fullmatch(word)]
    if not VALUE.search(gold):
        return len(words) > MAX_WORDS
    if len(CJK.findall(bare)) > MAX_CJK_BY_VALUE:
        return True
    if not VERBS.isdisjoint(word.lower() for word in words):
        return True
    most = MAX_UNIT_WORDS if WITH_UNIT.fullmatch(gold) else MAX_WORDS_BY_VALUE
    return len(words) > most
