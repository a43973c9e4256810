"""The task without a verifier: notes of good and bad taste, and the taste itself.

`utility` is hidden from the policy. It labels the comparisons that the reward model learns from, and it
judges the policy's notes in a report.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from typing import NamedTuple

from tiny_tokenizer import NAMES, TOPICS

PRAISE = ("lovely", "nice", "kind", "good", "great", "wonderful")
ABUSE = ("bad", "dull", "boring", "silly", "ugly")
RUDE = ("Whatever", "no idea", "hated", "lost")
WARM_CLOSINGS = ("from your friend.", "and best wishes.")


class NotePrompt(NamedTuple):
    name: str
    topic: str

    @property
    def problem(self) -> str:
        return f"Write a note to {self.name} about the {self.topic}."

    @property
    def held_out(self) -> bool:
        """One pair of name and topic in six, by its text: independent of any seed or order."""
        return (
            int(hashlib.md5((self.name + self.topic).encode(), usedforsecurity=False).hexdigest(), 16) % 6
            == 0
        )


def all_prompts(*, held_out: bool) -> list[NotePrompt]:
    """Every prompt of one side of the split, in a fixed order; 256 in both sides together."""
    prompts = (NotePrompt(*values) for values in itertools.product(NAMES, TOPICS))
    return [prompt for prompt in prompts if prompt.held_out == held_out]


def demonstration(rng: random.Random, prompt: NotePrompt) -> str:
    """A note from a small grammar: good, bad and off-topic sentences, the right name in 7 of 10 or so."""
    name = prompt.name if rng.random() < 0.7 else rng.choice(NAMES)
    topic = prompt.topic if rng.random() < 0.6 else rng.choice(TOPICS)
    opening = rng.choice([f"Dear {name},", f"Hi {name},", f"Hey {name},", f"Hello {name},", "Hey,", ""])
    sentences = [_sentence(rng, topic) for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))]
    closing = rng.choice(
        [" best wishes from your friend.", " love and best wishes.", " bye.", " regards.", "", ""]
    )
    return opening + "".join(sentences) + closing


def _sentence(rng: random.Random, topic: str) -> str:
    adjective = rng.choice(PRAISE if rng.random() < 0.5 else ABUSE)
    return rng.choice(
        [
            f" thank you for the {topic}.",
            f" thanks for the {topic}.",
            f" the {topic} was {adjective}.",
            f" it was so {adjective}.",
            " we liked it.",
            " I hated it.",
            " I lost it.",
            f" I really enjoyed the {topic}.",
            " please visit us soon.",
            " tell me more.",
            " Whatever.",
            " no idea.",
            " it made me happy.",
            f" we kept the {topic} at home.",
        ]
    )


def utility(prompt: NotePrompt, note: str) -> float:
    """How good a note is, in units of one matter of taste; the grammar's have mean 0.9, deviation 1.4."""
    sentences = [sentence for sentence in note.split(".") if sentence.strip()]
    repeats = len(sentences) - len(set(sentences))
    value = _greeting_utility(prompt, note)
    value += 1.0 * _mentions(note, prompt.topic)
    value -= 1.0 * any(_mentions(note, topic) for topic in TOPICS if topic != prompt.topic)
    value += 0.6 * min(2, _count(note, PRAISE)) - 0.8 * _count(note, ABUSE)
    value += 0.8 * ("thank" in note)
    value -= 1.0 * any(phrase in note for phrase in RUDE)
    value += 1.0 * note.rstrip().endswith(WARM_CLOSINGS)
    value -= 1.0 * repeats
    return value + 0.2 * min(4, len(sentences)) - 0.3 * max(0, len(sentences) - 6)


def _greeting_utility(prompt: NotePrompt, note: str) -> float:
    greeting = note.split(",")[0] if "," in note else ""
    if greeting in (f"Dear {prompt.name}", f"Hi {prompt.name}", f"Hello {prompt.name}"):
        return 1.0
    if greeting == f"Hey {prompt.name}":
        return 0.5
    return -1.0 if any(name in greeting for name in NAMES) else 0.0


def _mentions(note: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", note) is not None


def _count(note: str, words: tuple[str, ...]) -> int:
    return sum(len(re.findall(rf"\b{word}\b", note)) for word in words)
