r"""One notation for the many that an expression is written in: text to text. Pure.

`normalise` changes how an expression is written, never what it says, and treats gold answers and answers
alike: `\textbf{(B)}\ 12` stays a choice and a number, `2 1/4` becomes `\frac{9}{4}`, `1,\,2` stays a list.
Every rule stands in a table with an example.
"""

from __future__ import annotations

import re

from rlstack.rewards.math_brackets import without_redundant_brackets
from rlstack.rewards.math_characters import latex_characters
from rlstack.rewards.math_numbers import plain_numbers, without_digit_groups
from rlstack.rewards.math_words import without_words

MAX_CHARS = 2000  # a longer text is left alone

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# Layout and fonts. `(?![A-Za-z])` ends a command; `(?<!\\)` keeps `\\`, a row's end, from starting one.
DRESSING = _rules(
    (r"^\s*(?:\\\(|\\\[|\$+)|(?:\\\)|\\\]|\$+)[\s.]*$", " "),  # \[5\], $5$
    (r"(?<!\\)\\(?:text|math)?color\s*(?:\[\w+\])?\{[^{}]*\}", " "),  # \color{red}{5}, \textcolor{blue}{5}
    (r"(?<!\\)\\colorbox\s*\{[^{}]*\}", " "),
    (r"(?<!\\)\\q?quad(?=\s*[A-Za-z]\s*=)", ", "),  # x=1 \quad y=2
    (r"(?<!\\)\\(?:hspace|vspace|hphantom|phantom|tag|label)\*?\s*\{[^{}]*\}", " "),
    (r"(?<!\\)\\(?:left|right)\s*\.", " "),  # \left. x \right|
    (r"(?<!\\)\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*", ""),  # \left( x \right)
    (r"(?<!\\)\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|strut|hfill)(?![A-Za-z])", " "),
    (r"(?<!\\)\\(?:bf|rm|it|sf|tt|bfseries|boldmath|normalsize|large|Large|huge)(?![A-Za-z])", " "),  # \bf 5
    (r"(?<!\\)\\(?:mathbb|Bbb)\s*\{?\s*([RZNQC])\s*\}?(?![A-Za-z])", r"\\mathbb{\1} "),  # \mathbb R
    (r"(?<!\\)\\R(?:eals)?(?![A-Za-z])", r"\\mathbb{R} "),
    (r"^\s*\\(?:mathbf|mathrm|bf)\s*\{?([RZNQC])\}?\s*$", r"\\mathbb{\1}"),
    (r"(?<!\\)\\mathrm\s*\{([eidT])\}", r" \1 "),
    (r"(?<!\\)\\(?:mathrm|mbox|hbox|textrm|textbf|textit|textsf|texttt|textnormal|emph)\s*\{", r"\\text{"),
    (r"(?<!\\)\\(?:mathbf|mathsf|mathit|mathtt|mathcal|boldsymbol|bm|pmb)\s*\{([^{}]*)\}", r" \1 "),
    (
        r"(?<!\\)\\(?:mathbf|mathsf|mathit|mathtt|mathcal|boldsymbol|bm|pmb|underline|uline|boxed|fbox"
        r"|ensuremath)(?![A-Za-z])",
        " ",
    ),
    (r"(?<!\\)\\(?:hat|vec|mathbf)\s*\{?\s*\\?([ij])(?:math)?\s*\}?(?![A-Za-z])", r" \1 "),  # \hat{\imath}
    (r"(?<!\\)\\(?:hat|vec)\s*\{?\s*k\s*\}?(?![A-Za-z])", " k "),
)

# Names that differ only in spelling.
SPELLING = _rules(
    (r"(?<!\\)\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),  # \frac12
    (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    (r"\\frac\s*\{([^{}]*)\}\s*(\d)", r"\\frac{\1}{\2}"),
    (r"(\\frac|\})\s+\{", r"\1{"),
    (r"(?<![A-Za-z ])\{\s*([:.,])\s*\}", r"\1"),  # 6{:}05
    (r"(?<![\\A-Za-z}\]])\{\}", ""),  # {}_8C_3
    (r"(?<!\\)\\(?:leq|leqslant|leqq|le)(?![A-Za-z])\s*", r"\\le "),
    (r"(?<!\\)\\(?:geq|geqslant|geqq|ge)(?![A-Za-z])\s*", r"\\ge "),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"!=|(?<!\\)\\neq(?![A-Za-z])", r"\\ne "),
    (r"(?<!\\)\\lt(?![A-Za-z])", "<"),
    (r"(?<!\\)\\gt(?![A-Za-z])", ">"),
    (r"(?<!\\)\\lbrace(?![A-Za-z])", r"\\{"),
    (r"(?<!\\)\\rbrace(?![A-Za-z])", r"\\}"),
    (r"(?<!\\)\\lbrack(?![A-Za-z])", "["),
    (r"(?<!\\)\\rbrack(?![A-Za-z])", "]"),
    (r"(?<!\\)\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
    (r"(?<!\\)\\(?:degree|textdegree)(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\degree", r"^\\circ "),
    (r"\{?\b(\w+)\s*\\choose\s*(\w+)\}?", r"\\binom{\1}{\2}"),
    (r"^(?:\\text\s*\{)?\s*[Aa]ll real(?: number)?s\s*\}?$", r"\\mathbb{R}"),
    (r"(?<!\\)\\lg(?![A-Za-z])", r"\\log_{10}"),
    (r"(?<!\\)\\tg(?![A-Za-z])", r"\\tan"),
    (r"(?<!\\)\\ctg(?![A-Za-z])", r"\\cot"),
    (r"(?<!\\)\\arctg(?![A-Za-z])", r"\\arctan"),
    (r"(?<!\\)\\pmod\s*(\w)(?!\w)", r"\\pmod{\1}"),
    (r"\(\s*(?:\\text\s*\{\s*mod\s*\}|\\bmod|\\mod|mod)\s*(\w+)\s*\)", r"\\pmod{\1}"),  # (mod 7)
    (r"\\text\s*\{\s*,?\s*(and|or)\s*,?\s*\}", r" \1 "),
    (r"(?<![\\A-Za-z])infinity(?![A-Za-z])", r"\\infty "),
    (r"\\(?:infin|infinity)(?![A-Za-z])", r"\\infty "),
)

GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|psi|omega|pi"
FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|max|min"
# Mathematics as programs write it.
PLAIN = _rules(
    (rf"(?<![\\A-Za-z])({FUNCTIONS})(?=\s*[(\^_])", r"\\\1"),  # sin(x)
    (r"(?<![\\A-Za-z])(sin|cos|tan|ln|log)(?=\s+(?:[a-z]\b|\d|\\pi|\())", r"\\\1"),  # sin x
    (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),  # pi/2
    (rf"(?<![\\A-Za-z])({GREEK})(?=\s*(?:[-+*/^=,)]|$))", r"\\\1 "),  # theta/2
    (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<![\\A-Za-z])abs\s*\(([^()]*)\)", r"|\1|"),
    (r"(?<![\\A-Za-z])cbrt\s*\(([^()]*)\)", r"\\sqrt[3]{\1}"),
    (r"\*\*\s*(-?\d+|\w)", r"^{\1}"),  # x**2
    (r"\*\*\s*\(([^()]*)\)", r"^{\1}"),
    (r"(?<=[\w)}\]])\s*\*\s*(?=[\w(\\])", r" \\cdot "),  # 2*x
    (r"(?<![A-Za-z\\])[_^]?\{?(\d+)\}?C_?\{?(\d+)\}?(?![A-Za-z\d])", r"\\binom{\1}{\2}"),  # _{10}C_3
    (r"(?<![A-Za-z\\])C\(\s*(\d+)\s*,\s*(\d+)\s*\)", r"\\binom{\1}{\2}"),  # C(10,3)
)

TRIG = r"\\(?:sin|cos|tan|cot|sec|csc)(?:\s*\^\s*(?:\{[^{}]*\}|\d))?"
ARGUMENT = r"(-?\d+(?:\.\d+)?|[a-z]|\\[a-z]+)"
FUNCTION_RULES = _rules(
    (rf"({TRIG}\s*[({{]?\s*){ARGUMENT}\s*\^\s*\\circ\s*", r"\1{(\\frac{\2\\pi}{180})}"),  # \sin 45^\circ
    (
        r"\\sqrt\s*\[\s*(\d*[13579])\s*\]\s*\{\s*-\s*(\d+|\\frac\{\d+\}\{\d+\})\s*\}",
        r"-\\sqrt[\1]{\2}",
    ),  # \sqrt[3]{-8}
    (r"\\sqrt\s*\{\s*-\s*1\s*\}", "i"),  # \sqrt{-1}
    (r"\\sqrt\s*\{\s*-\s*(\d+|\d*[a-z])\s*\}", r"i\\sqrt{\1}"),
)

CASES = re.compile(
    r"(?:\\\{\s*)?\\begin\{(cases|array|aligned|align\*?|gathered)\}(?:\s*\{[lcr|]*\})?(.*?)\\end\{\1\}",
    re.DOTALL,
)
ASSIGNMENT = re.compile(r"\s*[A-Za-z](?:_\{?\w+\}?)?\s*&?\s*=[^=<>&]+")
SPACES = re.compile(
    r"(?<!\\)\\[,;:> ]|(?<!\\)\\(?:quad|qquad|enspace|thinspace|space|nobreakspace)(?![A-Za-z])|[~\s]"
)
REASON = re.compile(r"[\s,;]*\(?\s*\\text\s*\{[\s,(]*(?:since|because|as)\b.*$", re.DOTALL)  # (since x>0)
DOTS = re.compile(r"(?:\.\.\.|\\[lc]?dots)\s*$")


def normalise(text: str) -> str:
    r"""`text` in the notation that all answers are compared in; "" if it says nothing.

    `12\,345.` is `12345`, `√2` is `\sqrt{2}`, `\text{30 apples}` is `30`. A text of more than MAX_CHARS
    characters is only stripped.
    """
    if len(text) > MAX_CHARS:
        return text.strip()
    text = _applied(DRESSING, latex_characters(" ".join(text.split())))
    text = without_digit_groups(REASON.sub("", text))
    text = " ".join(SPACES.sub(" ", text).replace(r"\!", "").split())
    text = _applied(SPELLING, without_end(text))
    text = CASES.sub(_system, text)
    text = without_words(text)
    text = _applied(FUNCTION_RULES, _applied(PLAIN, text))
    text = without_redundant_brackets(plain_numbers(text))
    return " ".join(without_end(text).split())


def compact(text: str) -> str:
    """`text` without the spaces that separate nothing: those of `a + b`, not that of `1 2`."""
    return re.sub(r"(?<![A-Za-z\d])\s+|\s+(?![A-Za-z\d])", "", text)


def without_end(text: str) -> str:
    """`text` without the punctuation of a sentence at its end: `42.` is `42`; `0.333...` keeps its dots."""
    while not DOTS.search(text):
        shorter = text.rstrip(" .,;:?").removesuffix("\\\\")
        if shorter == text:
            break
        text = shorter
    return text.strip()


def _applied(rules: Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _system(match: re.Match[str]) -> str:
    r"""The rows of a system as a list: `x=1, y=2`; anything else, as a function by cases, as it is."""
    rows = [row for row in re.split(r"\\\\", match.group(2)) if row.strip(" .,&")]
    if not rows or not all(ASSIGNMENT.fullmatch(row) for row in rows):
        return match.group()
    return ", ".join(row.replace("&", "").strip(" .,") for row in rows)
