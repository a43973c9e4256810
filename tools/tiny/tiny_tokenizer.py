"""The tiny task's tokenizer: whole phrases, a few words, and every printable ASCII character.

The fixed text of the production prompt template is two tokens here, so a model of under a million parameters
works on the same template as an 8B one: a fraction-sum prompt is 19 tokens, chat format included.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlstack.data.templates import MATH

ANSWER_PREFIX = "The final answer is $\\boxed{"
ANSWER_SUFFIX = "}$. I hope it is correct."

PAD = "<|pad|>"
BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TURN = "<|eot_id|>"
UNKNOWN = "<|unknown|>"
SPECIAL = (PAD, BEGIN_OF_TEXT, END_OF_TURN, "<|start_header_id|>", "<|end_header_id|>", UNKNOWN)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _listed("Ann Bob Cal Dee Eve Fay Gus Hal Ida Jay Kim Lee Mia Ned Ola Pam")
TOPICS = _listed(
    "book cake lamp song tree boat coat game garden letter picture dinner ticket bicycle holiday lesson"
)
WORDS = _listed(
    """
    Write a note to about the Dear Hi Hey Hello thank you thanks for I we is was it so very really
    lovely nice kind good great wonderful bad dull boring silly ugly and but hope see soon best wishes
    love bye regards from your friend please come visit us next week today tomorrow liked enjoyed hated
    lost kept share with everyone at home school work made happy sad tired smile again tell me more have
    day Whatever Fine no idea
    """
)

CONTEXT_TOKENS = 192
VOCABULARY_MULTIPLE = 8  # so that the embedding splits over tensor-parallel ranks

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that plain `AutoTokenizer` loads and whose decode inverts its encode.

    Exact for printable ASCII and newlines; any other character becomes <|unknown|>.
    """
    before, after = MATH.split("{PROBLEM}")
    phrases = [before, after, ANSWER_PREFIX, ANSWER_SUFFIX, "user", "assistant", "\n\n"]
    words = sorted({*NAMES, *TOPICS, *WORDS})
    words += [" " + word for word in words]
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = list(dict.fromkeys([*SPECIAL, *phrases, *words, *characters]))
    while len(vocabulary) % VOCABULARY_MULTIPLE:
        vocabulary.append(f"<|unused{len(vocabulary)}|>")

    # A word must not be split off the front of a longer one: "a" is a token, the "a" of "apple" a character.
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    pieces = [re.escape(phrase) for phrase in phrases]
    pieces += [re.escape(word) + "(?![A-Za-z])" for word in longest_first]
    pattern = "|".join([*pieces, r"[\s\S]"])

    ids = {token: index for index, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN_OF_TEXT,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_TOKENS,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def prompt_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids [P] of a user's message in chat format, up to where the assistant begins."""
    messages = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return cast("list[int]", ids)


def answer_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids [T] of an assistant's message, the end token included."""
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def answer_text(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> str:
    """The assistant's message without the end token."""
    return cast(str, tokenizer.decode(token_ids, skip_special_tokens=True))
