"""Whether a model's folder is what its config.json says, for the policy and for vLLM alike.

What one of them leaves out and the other stumbles over is refused before any process starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlstack.config.weight_index import BUFFERS, EMBEDDING, OUTPUT_HEAD, same_content, tensor_entries
from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture
from rlstack.model.files import GENERATION, end_token_ids
from rlstack.model.weight_names import wire_rules

DTYPES = ("F32", "BF16", "F16", "F64")  # of safetensors

Entries = Mapping[str, tuple[Path, Mapping[str, Any]]]


def check_model_folder(folder: Path) -> Architecture:
    """The architecture of the model in `folder`, whose files fit it and each other.

    Reads the headers of the weights, and the output head of a tied model that has one in its files.

    Raises:
        ConfigError: config.json or generation_config.json cannot be used, or the weights are not those that
            config.json asks for: missing, surplus, of another shape or type.
    """
    architecture = Architecture.from_folder(folder)
    entries = tensor_entries(folder)
    for problem in _problems(folder, entries, architecture):
        raise ConfigError(f"policy.model = {folder}: {problem}")
    return architecture


def _problems(folder: Path, entries: Entries, architecture: Architecture) -> Iterator[str]:
    yield from _end_tokens(folder, architecture)
    rules = wire_rules(architecture).values()
    expected = {part.name: part.shape for rule in rules for part in rule.parts}
    yield from _missing(entries, expected)
    yield from _surplus(entries, expected, tied=architecture.tied)
    for name, shape in expected.items():
        path, entry = entries[name]
        if (found := tuple(entry["shape"])) != shape:
            yield f"{path.name}: {name} is {found}, but config.json makes it {shape}; get both again"
        if entry["dtype"] not in DTYPES:
            yield (
                f"{path.name}: {name} is of type {entry['dtype']}; {' | '.join(DTYPES)} is accepted; use the "
                "unquantised weights that it was made of"
            )
    if architecture.tied and OUTPUT_HEAD in entries and not same_content(folder, OUTPUT_HEAD, EMBEDDING):
        yield (
            f"config.json has tie_word_embeddings = true, and {OUTPUT_HEAD} in the weights differs from "
            f"{EMBEDDING}; set tie_word_embeddings to false, or take {OUTPUT_HEAD} out of the file"
        )


def _end_tokens(folder: Path, architecture: Architecture) -> Iterator[str]:
    for token in end_token_ids(folder):
        if token >= architecture.vocab_size:
            yield (
                f"eos_token_id {token} of config.json or {GENERATION} is beyond the model's vocab_size of "
                f"{architecture.vocab_size}; use the files that belong to the weights"
            )


def _missing(entries: Entries, expected: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    missing = [name for name in expected if name not in entries]
    if not missing:
        return
    # Weights of a model without its head, or of one inside another, have the same names but for a prefix.
    for name in entries:
        for wanted in missing:
            if name != wanted and (name.endswith(f".{wanted}") or wanted.endswith(f".{name}")):
                yield (
                    f"the weights have {name} where config.json asks for {wanted}, with another prefix; save "
                    "it anew with AutoModelForCausalLM and save_pretrained"
                )
                return
    others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
    yield f"the weights lack {missing[0]}{others}, which config.json asks for; get both again"


def _surplus(entries: Entries, expected: Mapping[str, tuple[int, ...]], *, tied: bool) -> Iterator[str]:
    known = {*expected, *([OUTPUT_HEAD] if tied else [])}
    surplus = sorted(name for name in entries if name not in known and not name.endswith(BUFFERS))
    if not surplus:
        return
    path, _ = entries[surplus[0]]
    if path.name.startswith("adapter_"):
        remedy = "merge the adapter with PEFT's merge_and_unload(), or move the file out of the folder"
    elif all(entries[name][0] != path for name in expected):
        remedy = "move the file out of the folder"
    else:
        remedy = "save it anew with AutoModelForCausalLM and save_pretrained, or correct config.json"
    tensors = f"{surplus[0]} and {len(surplus) - 1} more tensors" if len(surplus) > 1 else surplus[0]
    yield f"{path.name} holds {tensors} that config.json does not ask for; {remedy}"
