"""Unicode characters of mathematics in LaTeX. Pure."""

from __future__ import annotations

import re
import unicodedata

# Characters that mean the same, by what they become. No invisible characters and no digits but the full-width
# ones: what a reader cannot see, or would not read as a number, is no answer.
SAME = {
    "-": "−–—‒﹣‐‑",
    "*": "∗",
    "/": "∕⁄",
    ",": "、，",
    ".": "。",
    " ": "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000",
    "'": "′’‘",
    "": "“”„",
    "[": "【",
    "]": "】",
    r"\langle ": "⟨〈",
    r"\rangle ": "⟩〉",
    r"\times ": "×✕",
    r"\cdot ": "·⋅∙",
    r"\div ": "÷",
    r"\le ": "≤⩽≦",
    r"\ge ": "≥⩾≧",
    r"\ne ": "≠",
    r"\approx ": "≈",
    r"\equiv ": "≡",
    r"\pm ": "±",
    r"\mp ": "∓",
    r"\to ": "→",
    r"\infty ": "∞",
    r"^\circ ": "°º˚",
    r"\cup ": "∪",
    r"\cap ": "∩",
    r"\in ": "∈",
    r"\setminus ": "∖",
    r"\mid ": "∣",
    r"\emptyset ": "∅",
    r"\mathbb{R}": "ℝ",
    r"\mathbb{Z}": "ℤ",
    r"\mathbb{N}": "ℕ",
    r"\mathbb{Q}": "ℚ",
    r"\mathbb{C}": "ℂ",
    r"\angle ": "∠",
    r"\triangle ": "△",
    r"\sum ": "∑",
    r"\int ": "∫",
    r"\ldots ": "…",
    r"\land ": "∧",
    r"\lor ": "∨",
    r"\pi ": "π",
}
GREEK = {
    r"\alpha ": "α",
    r"\beta ": "β",
    r"\gamma ": "γ",
    r"\delta ": "δ",
    r"\epsilon ": "ε",
    r"\zeta ": "ζ",
    r"\eta ": "η",
    r"\theta ": "θ",
    r"\lambda ": "λ",
    r"\mu ": "μ",
    r"\rho ": "ρ",
    r"\sigma ": "σ",
    r"\tau ": "τ",
    r"\phi ": "φ",
    r"\chi ": "χ",
    r"\psi ": "ψ",
    r"\omega ": "ω",
}
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
TABLE: dict[int, int | str] = {
    **FULL_WIDTH,
    **{ord(character): text for text, characters in (SAME | GREEK).items() for character in characters},
}

RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ"
LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎"
LEVEL = str.maketrans(RAISED + LOWERED, "0123456789+-()ni" + "0123456789+-()")
RAISED_RUN = re.compile(f"[{RAISED}]+")
LOWERED_RUN = re.compile(f"[{LOWERED}]+")
VULGAR = re.compile("[¼-¾⅐-⅞]")
ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
ROOT = re.compile(r"([√∛∜])\s*(?:(\d+(?:\.\d+)?|[A-Za-z]|\\[a-z]+)|\(([^()]*)\)|\{([^{}]*)\})")


def latex_characters(text: str) -> str:
    r"""`text` with LaTeX in place of Unicode's mathematics: `2√5` is `2\sqrt{5}`, `½` `\frac{1}{2}`."""
    if text.isascii():
        return text
    text = RAISED_RUN.sub(lambda run: "^{" + run.group().translate(LEVEL) + "}", text)
    text = LOWERED_RUN.sub(lambda run: "_{" + run.group().translate(LEVEL) + "}", text)
    text = VULGAR.sub(_vulgar, text).translate(TABLE)
    return ROOT.sub(_root, text)


def _vulgar(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match.group()).partition("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _root(match: re.Match[str]) -> str:
    sign, *radicands = match.groups()
    return f"{ROOTS[sign]}{{{next(text for text in radicands if text is not None)}}}"
