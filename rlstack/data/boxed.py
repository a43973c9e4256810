"""The answer in the box that the prompt template MATH calls for."""

from __future__ import annotations

MARKER = "The final answer is"  # of the prompt template MATH
MAX_TAIL_CHARS = 2000


def boxed_answer(text: str) -> str | None:
    """The content of the last complete \\boxed{...} after the last MARKER (or in a text without one).

    None without one among the last MAX_TAIL_CHARS characters. The last box counts, as in the MATH data set's
    own grader; finding it here rather than by math-verify's patterns leaves no way around the box ("The final
    answer is $5$") and no pattern to run over a long text.
    """
    tail = text[max(text.rfind(MARKER), 0) :][-MAX_TAIL_CHARS:]
    end = len(tail)
    while (start := tail.rfind("\\boxed{", 0, end)) >= 0:
        if (answer := _braced(tail, start + len("\\boxed{"))) is not None:
            return answer
        end = start
    return None


def _braced(text: str, start: int) -> str | None:
    """`text` from `start` to the brace that closes the one before `start`; None if it is never closed."""
    depth, position = 1, start
    while position < len(text):
        character = text[position]
        if character == "\\":  # an escaped brace does not count
            position += 2
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start:position].strip() or None
        position += 1
    return None
