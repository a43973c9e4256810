r"""The words of an answer: what it is the answer to, and its unit. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

# Currencies, which say nothing that the number does not.
CURRENCY = re.compile(
    r"\\text ?\{ ?\\?[$€£¥₹] ?\}|\\?\$|[€£¥₹₽₩]|\\(?:pounds|euro|yen|textdollar|texteuro)(?![A-Za-z])"
    r"|(?<![A-Za-z])(?:USD|EUR|GBP|INR|CNY)(?![A-Za-z])|(?<![A-Za-z])Rs\.?(?= ?\d)"
)
PERCENT = re.compile(
    r" ?(?:\\text ?\{ ?)?(?<![A-Za-z])(?:percentage|percent|per cent|pct)(?![A-Za-z]) ?\}?|(?<!\\)%"
)
TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
UNIT = r"\\text ?\{[^{}]*\}(?: ?\^ ?\{? ?-?\d ?\}?)?"
# 9.8 \frac{\text{m}}{\text{s}^2}, 9.8 \text{m}/\text{s}^2
UNIT_FRACTION = re.compile(rf"(?<=[A-Za-z\d)}}]) ?\\frac ?\{{ ?{UNIT} ?\}} ?\{{ ?{UNIT}(?: ?{UNIT})* ?\}}$")
UNIT_PRODUCT = re.compile(rf"(?<=[A-Za-z\d)}}]) ?{UNIT}(?: ?(?:/|\\cdot) ?{UNIT})*$")
# Beside a number or a choice, all text is plain: 2:30 \text{ p.m.}, \text{(B) }12
PLAIN_REST = re.compile(r"[-\d .,:;()\[\]/+%\\]*[A-Z]?[-\d .,:;()\[\]/+%\\]*")

# Words before a value, which may stand between any others but these.
LEAD = re.compile(r"(?:\\text ?\{([^{}\d]*)\}|([A-Za-z][A-Za-z ]*:?)) ?[:=]? ?(?=[-\d(.]|\\(?!text))")
LEADING_WORDS = {
    "the", "a", "an", "final", "answer", "result", "value", "solution", "total", "sum", "is", "are",
    "equals", "equal", "to", "about", "approximately", "approx", "around", "roughly", "nearly",
    "exactly", "therefore", "thus", "so", "hence", "we", "get", "have", "it", "that", "of",
}  # fmt: skip
LEADING_SIGNS = re.compile(
    r"(?:=|\\approx|\\sim|\\therefore|\\Rightarrow|\\implies|约为?|大约|答案[是为]?:?|共有?) ?(?=.)"
)

# Words behind a number, which are its unit if none of these is among them.
VALUE = r"-?(?:\d+ \d+/\d+|\d+/\d+|\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\})"
COUNTED = re.compile(rf"({VALUE}) ?([A-Za-z][A-Za-z .'/^\d-]*)")
NOT_UNITS = {
    "and", "or", "to", "of", "more", "less", "least", "most", "fewer", "greater", "than", "not", "mod",
    "base", "times", "over", "plus", "minus", "by", "with", "in", "if", "for", "a.m.", "p.m.", "a.m",
    "p.m", "am", "pm", "noon", "midnight", "is", "are", "squared", "cubed", "th", "alpha", "beta",
    "gamma", "delta", "epsilon", "theta", "lambda", "mu", "rho", "sigma", "tau", "phi", "psi", "omega",
    "pi", "infinity", "sin", "cos", "tan", "ln", "log", "exp", "sqrt", "e", "i", "x", "y", "z", "n", "k",
}  # fmt: skip
CJK_UNIT = re.compile(rf"({VALUE}) ?([\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+)")
CJK_NOT_UNITS = frozenset("或和与及到至上下前后多少")

MULTIPLES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "lakhs": 5,
    "crore": 7, "crores": 7, "百": 2, "千": 3, "万": 4, "亿": 8,
}  # fmt: skip
MULTIPLIED = re.compile(
    rf"(-?\d+(?:\.\d+)?) ?({'|'.join(sorted(MULTIPLES, key=len, reverse=True))})(?![A-Za-z]) ?(.*)", re.DOTALL
)


def without_words(text: str) -> str:
    r"""`text` without what only names its value: `\text{about } 30`, `30 \text{ apples}`, `€30` are `30`.

    Words that say something stay: `30 \text{ and } 40`, `5 or more`, `2:30 \text{ p.m.}`.
    `2.5 \text{ million}` is `2500000`, `5 \text{ percent}` `5\%`.
    """
    text = PERCENT.sub(r"\\%", CURRENCY.sub("", text)).strip()
    if text.isascii() and not re.search("[A-Za-z]{2}|[:=]", text):
        return text
    plain = _unwrapped(text)
    is_text = plain != text
    text = LEADING_SIGNS.sub("", plain, count=1) if LEADING_SIGNS.match(plain) else plain
    text = _without_unit(_without_lead(text))
    text = _multiplied(text)
    return _without_counted(text, is_text)


def _unwrapped(text: str) -> str:
    if "\\text" not in text or not PLAIN_REST.fullmatch(TEXT.sub("", text)):
        return text
    return " ".join(TEXT.sub(r" \1 ", text).replace(r"\ ", " ").split())


def _without_lead(text: str) -> str:
    lead = LEAD.match(text)
    if lead is None:
        return text
    words = (lead[1] or lead[2] or "").strip()
    known = words and all(word in LEADING_WORDS for word in re.findall("[a-z]+", words.lower()))
    return text[lead.end() :] if known else text


def _without_unit(text: str) -> str:
    for pattern in (UNIT_FRACTION, UNIT_PRODUCT):
        match = pattern.search(text)
        if match and match.start() and _is_unit(" ".join(TEXT.findall(match.group()))):
            return text[: match.start()].strip()
    return text


def _without_counted(text: str, is_text: bool) -> str:
    if match := COUNTED.fullmatch(text):
        words = match[2].split()
        if _is_unit(match[2]) and (is_text or all(_is_word(word) for word in words)):
            return match[1]
    if (match := CJK_UNIT.fullmatch(text)) and not CJK_NOT_UNITS & set(match[2]):
        return match[1]
    return text


def _is_unit(words: str) -> bool:
    return all(word not in NOT_UNITS for word in words.lower().split())


def _is_word(word: str) -> bool:
    """Whether letters without \\text around them are a word, not a product of variables."""
    return word.isalpha() and len(word) > 3 and not set("aeiou").isdisjoint(word)


def _multiplied(text: str) -> str:
    match = MULTIPLIED.fullmatch(text)
    if match is None or (
        match[3] and not COUNTED.fullmatch(f"1 {match[3]}") and not CJK_UNIT.fullmatch(f"1{match[3]}")
    ):
        return text
    if match[3] and not _is_unit(match[3]):
        return text
    return format(Decimal(match[1]).scaleb(MULTIPLES[match[2]]), "f")
