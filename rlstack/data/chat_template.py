"""Chat templates that cannot frame prompts: found on one chat, before any process starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rlstack.errors import ConfigError, reason_of, refusing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = Sequence[Mapping[str, Any]]

WORD = "Zanzibar"  # no template has it of its own
SAMPLE_CHAT: Chat = [{"role": "user", "content": f"{WORD} 7/2 - 2/5"}]
CLOCK = "strftime_now"  # the function by which templates read the date
DAY = date(2024, 7, 26)  # which the templates of Llama 3 have where they are not given another


def clock(format: str) -> str:
    """What templates get for today: the same on every day, or a run that is resumed would change its prompts.

    A task's chat_template_kwargs may have another date, for templates that take one.
    """
    return DAY.strftime(format)


def refuse_template(
    tokenizer: PreTrainedTokenizerBase,
    *,
    setting: str,
    chat: Chat = SAMPLE_CHAT,
    options: Mapping[str, Any] | None = None,
    add_generation_prompt: bool = True,
) -> None:
    """Raise ConfigError if the chat template cannot make a prompt of `chat`, which has WORD in its last turn.

    Args:
        tokenizer: of a model's folder.
        setting: what names that folder, for messages: policy.model.
        chat: what the template is tried on.
        options: variables of the template besides those of transformers, enable_thinking for example; the
            date is always that of clock().
        add_generation_prompt: whether the assistant's turn is begun.
    """
    model = f"{setting} = {tokenizer.name_or_path}"
    template = tokenizer.chat_template
    if not template:
        raise ConfigError(
            f"{model}: the tokenizer has no chat template; add chat_template.jinja to the folder, or "
            "chat_template to its tokenizer_config.json"
        )
    if isinstance(template, dict) and "default" not in template:
        raise ConfigError(
            f"{model}: the tokenizer has the chat templates {', '.join(sorted(template))} and no default; "
            "name one of them default in tokenizer_config.json"
        )
    given = {CLOCK: clock, "add_generation_prompt": add_generation_prompt, **(options or {})}
    with refusing(lambda error: f"{model}: {template_failure(error, chat)}"):  # a template is a program
        texts = [_render(tokenizer, chat, given) for _ in range(2)]
    if not texts[0].strip():
        raise ConfigError(f"{model}: {EMPTY}")
    if WORD not in texts[0]:
        raise ConfigError(
            f"{model}: the chat template leaves the text of the last turn out; give one that "
            "takes contents as texts, not as lists of parts"
        )
    if texts[0] != texts[1]:
        raise ConfigError(
            f"{model}: the chat template makes another prompt of the same chat each time; take what is drawn "
            "at random out of it"
        )


EMPTY = "the chat template makes an empty prompt of the row; give one that takes contents as texts"


def template_failure(error: BaseException, chat: Chat = ()) -> str:
    """What to say of a template that raised `error` on `chat`, or on one of many."""
    reason = reason_of(error)
    if type(error).__name__ == "TemplateSyntaxError":
        line = getattr(error, "lineno", "?")
        return f"the chat template does not compile, line {line}: {reason}; get the file again"
    roles = [str(turn["role"]) for turn in chat]
    turns = f"the turns {', '.join(roles)}" if roles else "these turns"
    if roles == ["user"]:
        turns = "one user turn"
    return (
        f"the chat template refuses a chat with {turns}: {reason}; give the turns that it takes, or another "
        "template"
    )


def _render(tokenizer: PreTrainedTokenizerBase, chat: Chat, options: Mapping[str, Any]) -> str:
    text: Any = tokenizer.apply_chat_template([dict(turn) for turn in chat], tokenize=False, **options)
    return str(text)
