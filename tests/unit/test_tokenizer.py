"""The tokenizer is tokenizer.json, whatever class its folder asks for; templates that cannot make prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from rlstack.config.schema import Data, Reward, RewardModel, RunConfig, Task
from rlstack.data.chat_template import refuse_template
from rlstack.data.datasets import load_task, tokenise, tokenise_chats
from rlstack.data.load import refuse_reward_models
from rlstack.data.tokenizer import hold_to_file, load_tokenizer
from rlstack.errors import ConfigError
from tests.model_folders import SEED, TEXTS, byte_level_folder, edit, seed_folder

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "mistral": "MistralForCausalLM"}


@pytest.mark.parametrize("name", ["LlamaTokenizerFast", "PreTrainedTokenizerFast", "Qwen2Tokenizer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_and_answers_are_what_the_file_makes_of_them(name: str, family: str, tmp_path: Path) -> None:
    settings = {"model_type": family, "architectures": [FAMILIES[family]], "sliding_window": None}
    file = byte_level_folder(tmp_path / "model", name, **settings)
    tokenizer: Any = load_tokenizer(tmp_path / "model")
    (ids,) = tokenise(tokenizer, TEXTS)
    whole = f"<s><|user|>{TEXTS[0]}<|assistant|>"
    assert list(ids) == file.encode(whole, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXTS[0]
    assert tokenizer.eos_token_id == file.token_to_id("</s>")


def test_another_kind_of_file_under_qwen_keeps_its_spaces(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model", model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    (ids,) = tokenise(load_tokenizer(folder), ["1/2 + 1/3"])
    assert list(ids) == list(tokenise(load_tokenizer(SEED), ["1/2 + 1/3"])[0])


def test_a_tokenizer_that_is_not_the_folders_file_is_refused(tmp_path: Path) -> None:
    byte_level_folder(tmp_path / "model", "PreTrainedTokenizerFast")
    tokenizer: Any = load_tokenizer(tmp_path / "model")
    changed = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    changed.pre_tokenizer.add_prefix_space = True
    changed.save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"^policy.model = .* makes other tokens of a prompt than"):
        tokenise(tokenizer, TEXTS)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["{", "\ufeff{}", "[]"])
def test_a_damaged_file_is_refused_by_name(name: str, content: str, tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^reward.models.0..path = .*: {name} "):
        load_tokenizer(folder, setting="reward.models[0].path")


def test_a_file_that_the_library_cannot_read_is_refused_by_name(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^policy.model = .*: its tokenizer cannot be used"):
        load_tokenizer(folder)


PANICS = {"type": "Split", "pattern": {"Regex": "(a+)+$b"}, "behavior": "Isolated", "invert": False}


def test_a_panic_of_the_library_is_one_refusal(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    edit(folder / "tokenizer.json", pre_tokenizer=PANICS)
    with pytest.raises(ConfigError, match=r"^policy.model = .*retry-limit-in-match over"):
        tokenise(load_tokenizer(folder), ["a" * 80])
    with pytest.raises(
        ConfigError, match=r"^policy.model = .*: its tokenizer cannot be used \(PanicException"
    ):
        hold_to_file(load_tokenizer(folder), ["a" * 80], setting="policy.model")


def test_memory_that_a_template_asks_for_in_vain_is_one_refusal() -> None:
    with pytest.raises(ConfigError, match=r"^policy.model = .*: the chat template refuses .*: MemoryError"):
        refuse_template(with_template("{{ 'a' * 10 ** 15 }}"), setting="policy.model")


def with_template(template: Any) -> Any:
    tokenizer: Any = load_tokenizer(SEED)
    tokenizer.chat_template = template
    return tokenizer


PARTS = "{%- for m in messages %}{%- for c in m['content'] %}{{- c['text'] }}{%- endfor %}{%- endfor %}"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (None, "no chat template; add chat_template.jinja"),
        ({"rag": "x", "tool_use": "y"}, "has the chat templates rag, tool_use and no default"),
        (
            "{{ raise_exception('a system message is needed') }}",
            "refuses a chat with one user turn: a system",
        ),
        ("{% if messages %}", "does not compile, line 1"),
        ("{{ messages[1]['content'] }}", "refuses a chat with one user turn"),
        ("{{ 1 + messages[0]['content'] }}", "refuses a chat with one user turn"),
        (PARTS, "makes an empty prompt of the row"),
        (f"{PARTS}<|start_header_id|>", "leaves the text of the last turn out"),
        (
            "{{ range(99999) | list | random }}{{ messages[0]['content'] }}",
            "another prompt of the same chat",
        ),
    ],
)
def test_a_template_that_cannot_make_prompts_is_refused(template: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"^policy.model = .*({found})"):
        tokenise(with_template(template), ["1+1"])


@pytest.mark.parametrize("options", [{}, {"date_string": "1 Jan 2000"}])
def test_a_template_with_the_date_makes_the_same_prompt_every_day(
    options: dict[str, str],
) -> None:
    template = (
        "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
        "{{ date_string }}{{ messages[0]['content'] }}"
    )
    refuse_template(with_template(template), setting="policy.model", options=options)
    (ids,) = tokenise(with_template(template), ["1+1"])
    assert list(ids) == list(tokenise(with_template("26 Jul 2024{{ messages[0]['content'] }}"), ["1+1"])[0])


def test_a_template_is_tried_on_the_turns_that_rows_have() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    tokenizer = with_template(template + "{{ m.content }}{% endfor %}")
    user = {"role": "user", "content": "1+1"}
    tokenise_chats(tokenizer, [[user]], {})
    with pytest.raises(ConfigError, match="refuses a chat with the turns system, user: no system"):
        tokenise_chats(tokenizer, [[user], [{"role": "system", "content": "Think."}, user]], {})


def test_a_control_token_in_a_problem_is_text() -> None:
    tokenizer = load_tokenizer(SEED)
    ids = tokenise(tokenizer, ["1+1<|eot_id|>"])[0].tolist()
    assert ids.count(2) == 1 and ids.index(2) == max(i for i, token in enumerate(ids[:-4]) if token == 2)
    assert len(ids) > len(tokenise(tokenizer, ["1+1"])[0])


def test_a_reward_models_tokenizer_is_refused_by_its_own_setting(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    edit(folder / "tokenizer_config.json", chat_template="{{ raise_exception('two turns') }}")
    config = RunConfig(
        data=Data(tasks=[Task(name="t", path="x.jsonl", reward="judge")]),
        reward=Reward(models=[RewardModel(name="judge", path=str(folder))]),
    )
    with pytest.raises(ConfigError, match=r"^reward.models\[0\].path = .* refuses a chat with the turns"):
        refuse_reward_models(config)


def test_tokens_that_the_model_does_not_have_are_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"problem": p, "answer": "1"}) + "\n" for p in ("1", "1/2 + 1/3")))
    task = Task(name="t", path=str(path), template="chat")
    tokenizer = load_tokenizer(SEED)
    prompts = load_task(task, tokenizer, max_prompt_tokens=100, where="data.tasks[0]")
    most = [max(prompt.token_ids) for prompt in prompts]
    assert most[0] < most[1]
    with pytest.raises(ConfigError, match=rf"line 2: the prompt has token {most[1]}, .* of {most[1]};"):
        load_task(task, tokenizer, max_prompt_tokens=100, where="data.tasks[0]", vocab_size=most[1])
