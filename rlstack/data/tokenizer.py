"""A model's tokenizer, as its tokenizer.json has it: the one place that loads one.

transformers chooses a class by the names in tokenizer_config.json and config.json, and some classes put the
tokenizer together by rules of their own: of a byte-level file LlamaTokenizerFast makes one that loses all
spaces, and Qwen2Tokenizer does the same to files that are not byte-level.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from rlstack.errors import ConfigError, reason_of, refusing
from rlstack.model.files import CONFIG, TOKENIZER, TOKENIZER_FILES, refuse_damaged

logger = logging.getLogger(__name__)

PARTS = ("normalizer", "pre_tokenizer", "model", "decoder")  # what text and tokens pass through
NUM_HELD = 64  # texts of a task that are tokenised by the file itself too
SAMPLE = "Two lines, with\n  spaces: f(x) = 12.5*x - 3/4, caf\u00e9 \u221a2."
SHOWN_TOKENS = 8  # of either side of a difference


def load_tokenizer(folder: Path, *, setting: str = "policy.model") -> PreTrainedTokenizerBase:
    """The tokenizer of the model in `folder`, which `setting` names.

    Where there is a tokenizer.json, the tokenizer is that file, whatever class the folder asks for; special
    tokens and the chat template come from the other files, as transformers reads them.

    Raises ConfigError if a file is damaged, or if transformers cannot load them.
    """
    transformers_logging.set_verbosity_error()  # a prompt that is too long is told once, by load_task
    refuse_damaged(folder, (CONFIG, *TOKENIZER_FILES), setting=setting)
    with refusing(lambda error: _unusable(setting, folder, error)):
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        if not (folder / TOKENIZER).is_file():
            return loaded
        file = read_tokenizer_file(folder)
        return loaded if _is_file(loaded, file) else _from_file(folder, loaded, file)


def _unusable(setting: str, folder: Path, error: BaseException) -> str:
    return (
        f"{setting} = {folder}: its tokenizer cannot be used ({type(error).__name__}: {reason_of(error)}); "
        f"get {TOKENIZER} and tokenizer_config.json again"
    )


def read_tokenizer_file(folder: Path) -> Tokenizer:
    """tokenizer.json as the tokenizers library reads it, without truncation and padding."""
    file: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    file.no_truncation()
    file.no_padding()
    return file


def hold_to_file(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, setting: str) -> None:
    """Raise ConfigError if tokenizer.json has other tokens for one of `texts`, whole prompts, or loses one.

    setting: the folder's, for the message. Says nothing of a folder without that file.
    """
    folder = Path(tokenizer.name_or_path)
    if not (folder / TOKENIZER).is_file():
        return
    with refusing(lambda error: _unusable(setting, folder, error)):
        file = _with_added_tokens(folder, tokenizer)
        both = [
            (
                tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"],
                file.encode(text, add_special_tokens=False).ids,
            )
            for text in texts[:NUM_HELD]
        ]
    for found, expected in both:
        if list(found) != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), 0)
            part = slice(at, at + SHOWN_TOKENS)
            raise ConfigError(
                f"{setting} = {folder}: {type(tokenizer).__name__} makes other tokens of a prompt than "
                f"{TOKENIZER}, {list(found[part])} instead of {expected[part]} from token {at} on; bring "
                f"tokenizer_config.json and {TOKENIZER} into line"
            )


def _is_file(tokenizer: Any, file: Tokenizer) -> bool:
    """Whether text and tokens pass through the same parts as in the file."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    own = tokenizer.backend_tokenizer
    return all(_state(getattr(own, part)) == _state(getattr(file, part)) for part in PARTS)


def _state(part: Any) -> Any:
    """A part as the file has it, in bytes."""
    return None if part is None else part.__getstate__()


def _from_file(folder: Path, loaded: Any, file: Tokenizer) -> PreTrainedTokenizerBase:
    """The file itself, with the special tokens that the class of `loaded` knows of besides the folder's."""
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    known = {n: t for n, t in loaded.special_tokens_map.items() if file.token_to_id(str(t)) is not None}
    for name, token in known.items():
        if getattr(tokenizer, name, None) is None:
            setattr(tokenizer, name, token)
    if not _is_file(tokenizer, file):
        raise ValueError(f"{type(loaded).__name__} makes another tokenizer of {TOKENIZER}")
    expected = file.encode(SAMPLE, add_special_tokens=False).ids
    if list(loaded(SAMPLE, add_special_tokens=False)["input_ids"]) != expected:
        logger.warning(
            "%s: %s is used as it is; transformers reads it as %s, which makes other tokens of the same text",
            folder,
            TOKENIZER,
            type(loaded).__name__,
        )
    return tokenizer


def _with_added_tokens(folder: Path, tokenizer: Any) -> Tokenizer:
    """The file, with the tokens that other files of the folder add behind its own."""
    file = read_tokenizer_file(folder)
    for token_id, token in sorted(tokenizer.added_tokens_decoder.items()):
        if file.token_to_id(token.content) is None and token_id == file.get_vocab_size():
            file.add_tokens([token])
    return file
