"""Rows as public datasets have them: turns of a conversation, fields in fields, prompts that are too long."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlstack.config.load import load_config
from rlstack.config.schema import Task
from rlstack.data.datasets import load_task
from rlstack.data.load import load_prompts
from rlstack.data.records import Prompt
from rlstack.errors import ConfigError
from rlstack.evaluation.identity import identity

Load = Callable[..., list[Prompt]]
ROOT = Path(__file__).parents[2]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}{{ m.content }}>{% endfor %}"
    "{% if thinks is defined and not thinks %}!{% endif %}:"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token per character."""
    characters = Tokenizer(models.WordLevel({chr(code): code for code in range(128)}, unk_token="?"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="?")
    wrapped.chat_template = TEMPLATE
    return wrapped


@pytest.fixture
def load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Load:
    def load_rows(*rows: dict[str, Any], max_prompt_tokens: int = 1000, **settings: Any) -> list[Prompt]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        drops = settings.pop("filter_overlong", False)
        task = Task(**({"name": "sums", "path": str(path), "template": "chat"} | settings))
        return load_task(
            task,
            tokenizer,
            max_prompt_tokens=max_prompt_tokens,
            where="data.tasks[0]",
            filter_overlong=drops,
        )

    return load_rows


def text_of(prompt: Prompt) -> str:
    return "".join(map(chr, prompt.token_ids))


def turns(*contents: str) -> list[dict[str, Any]]:
    """Each as 'u1+1': the first letter of the role, and the content."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[content[0]], "content": content[1:]} for content in contents]


CONVERSATIONS = [
    (turns("sThink.", "u1+1"), "<sThink.><u1+1>:", "1+1"),
    (turns("ua", "ab", "uc"), "<ua><ab><uc>:", "c"),
    (turns("ua", "ab"), "<ua>:", "a"),  # the last one is a given answer
    (json.dumps(turns("sThink.", "u1+1")), "<sThink.><u1+1>:", "1+1"),
    ([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "<ua>:", "a"),
    ([{"role": "user", "content": [{"type": "text", "text": "1+1"}]}], "<u1+1>:", "1+1"),
    ("[1, 2] is what?", "<u[1, 2] is what?>:", "[1, 2] is what?"),
    ('["a"]', '<u["a"]>:', '["a"]'),
]


@pytest.mark.parametrize(("problem", "prompt", "last"), CONVERSATIONS)
def test_a_conversation_is_the_prompt_up_to_the_last_user_turn(
    load: Load, problem: object, prompt: str, last: str
) -> None:
    (loaded,) = load({"messages": problem, "answer": "2"}, problem_field="messages")
    assert (text_of(loaded), loaded.problem) == (prompt, last)


def test_the_template_frames_the_last_user_turn(load: Load) -> None:
    (prompt,) = load({"problem": turns("sThink.", "u1+1"), "answer": "2"}, template="math")
    assert text_of(prompt).startswith("<sThink.><uGiven the following problem")
    assert "\nProblem: 1+1\n" in text_of(prompt) and prompt.problem == "1+1"


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (turns("sThink."), "`problem` has no turn of the user"),
        (turns("u "), "`problem` has an empty last turn of the user"),
        ([{"role": "user", "content": None}], "`problem` has a turn, number 1, whose role and content"),
        ([{"role": "user", "content": [{"type": "image"}]}], "`problem` has a turn, number 1"),
        ([{"role": 3, "content": "a"}], "`problem` has a turn, number 1"),
        ([], "`problem` is a list"),
        ([{"role": "user", "content": "a"}, "b"], "`problem` is a list"),
        ({"role": "user", "content": "a"}, "`problem` is a mapping"),
    ],
)
def test_a_conversation_that_is_no_prompt_is_refused(load: Load, problem: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 1: {expected}"):
        load({"problem": problem, "answer": "2"})


def test_a_dot_leads_into_a_mapping(load: Load, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    row = {
        "extra": {"question": "1+1"},
        "reward_model": {"ground_truth": "2", "style": "rule"},
        "info": '{"gold": ["3"]}',
        "a.b": "literal",
        "a": {"b": "nested"},
        "choices": [{"text": "first"}],
    }
    fields = {"problem_field": "extra.question", "answer_field": "reward_model.ground_truth"}
    (prompt,) = load(row, **fields)
    assert (prompt.problem, prompt.answer) == ("1+1", "2")
    assert load(row, problem_field="a.b", answer_field="info.gold")[0].answer == "3"
    assert load(row, problem_field="a.b", answer_field="info.gold")[0].problem == "literal"
    assert load(row, problem_field="choices.0.text", answer_field="info.gold")[0].problem == "first"
    with pytest.raises(ConfigError, match=r"`extra\.none` is missing"):
        load(row, problem_field="extra.none")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    task = Task(name="sums", path=str(tmp_path / "rows.parquet"), **fields)
    (prompt,) = load_task(task, tokenizer, max_prompt_tokens=1000, where="data.tasks[0]")
    assert (prompt.problem, prompt.answer) == ("1+1", "2")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("So 7 * 6 = 42.\n#### 42", "42"),
        (["5/6"], "5/6"),
        (1e-05, "0.00001"),
        (["1/2", 0.5], '["1/2", "0.5"]'),
    ],
)
def test_the_gold_answer_is_read_where_the_reward_compares(load: Load, answer: object, gold: str) -> None:
    assert load({"problem": "a", "answer": answer})[0].answer == gold
    plug_in = load({"problem": "a", "answer": answer}, reward="my_rewards:brevity")[0].answer
    assert plug_in == (answer if isinstance(answer, str) else "0.00001" if answer == 1e-05 else None)


@pytest.mark.parametrize("answer", [float("nan"), float("inf")])
def test_a_number_of_parquet_that_is_not_finite_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, answer: float
) -> None:
    table = pa.table({"problem": ["a", "b"], "answer": [1.0, answer]})
    pq.write_table(table, tmp_path / "rows.parquet")
    task = Task(name="sums", path=str(tmp_path / "rows.parquet"))
    with pytest.raises(ConfigError, match=r"row 1 \(from 0\): `answer` is (NaN|Infinity), no finite number"):
        load_task(task, tokenizer, max_prompt_tokens=1000, where="data.tasks[0]")


@pytest.mark.parametrize("answer", ["None", "nan", "N/A", "#### None"])
def test_the_text_of_a_missing_value_is_refused(load: Load, answer: str) -> None:
    with pytest.raises(ConfigError, match=r"line 2: `answer` is \"[^\"]+\", the text of a missing value"):
        load({"problem": "a", "answer": "1"}, {"problem": "a", "answer": answer})


def test_prompts_that_are_too_long_are_refused_or_left_out(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"problem": "1" * length, "answer": "1"} for length in (3, 9, 2, 9)]
    with pytest.raises(ConfigError, match=r"line 2: the prompt has 13 tokens, .* data.filter_overlong=true"):
        load(*rows, max_prompt_tokens=7)
    kept = load(*rows, max_prompt_tokens=7, filter_overlong=True)
    assert [prompt.row for prompt in kept] == [0, 2]
    assert "2 of 4 rows are left out" in caplog.text
    with pytest.raises(ConfigError, match="every prompt has more than the 5 tokens"):
        load(*rows, max_prompt_tokens=5, filter_overlong=True)


def test_the_setting_leaves_training_prompts_out_but_no_held_out_ones(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "1+1+1+1+1+1+1+1", "answer": "8"}\n')

    def prompts(*overrides: str) -> set[int]:
        task = f"data.tasks[0].path={rows}"
        sampler, _ = load_prompts(load_config(ROOT / "configs" / "quickstart.yaml", [task, *overrides]))
        return {len(prompt.token_ids) for prompt in sampler.take(0, 8)}

    long = max(prompts())
    context = json.loads((ROOT / "configs" / "tiny" / "seed" / "config.json").read_text())
    room = f"rollout.max_new_tokens={context['max_position_embeddings'] - long + 1}"
    with pytest.raises(ConfigError, match=r"data\.tasks\[0\].*data\.filter_overlong=true"):
        prompts(room)
    assert max(prompts(room, "data.filter_overlong=true")) < long
    with pytest.raises(ConfigError, match=r"evaluation\.tasks\[0\].*lower rollout.max_new_tokens\.$"):
        prompts(room, "data.filter_overlong=true", f"evaluation.tasks[0].path={rows}")


def test_the_chat_template_gets_the_tasks_variables(load: Load) -> None:
    row = {"problem": "1+1", "answer": "2"}
    assert text_of(load(row)[0]) == "<u1+1>:"
    assert text_of(load(row, chat_template_kwargs={"thinks": False})[0]) == "<u1+1>!:"


def test_kept_answers_are_of_the_same_variables() -> None:
    quickstart = ROOT / "configs" / "quickstart.yaml"
    setting = "evaluation.tasks[0].chat_template_kwargs.enable_thinking=false"
    plain, other = (identity(load_config(quickstart, overrides)) for overrides in ([], [setting]))
    assert plain["tasks"]["fractions"]["chat_template_kwargs"] is None
    assert other["tasks"]["fractions"]["chat_template_kwargs"] == {"enable_thinking": False}


def test_kept_answers_are_of_the_same_head() -> None:
    quickstart = ROOT / "configs" / "quickstart.yaml"

    def precision(*overrides: str) -> str:
        return str(identity(load_config(quickstart, overrides))["precision"])

    assert precision() == precision("rollout.fp32_head=false") == "fp32"
    assert precision("rollout.precision=bf16") == "bf16, head in float32"
    assert precision("rollout.precision=bf16", "rollout.fp32_head=false") == "bf16"
