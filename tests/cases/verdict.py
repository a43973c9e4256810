"""Says if an outcome is the right one: by its parts, or by a rule for each kind of case written in prose."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tests.cases.case import Case, Outcome

CONTAINED = ("error", "output")  # texts that an expected text is a part of


def is_right(case: Case, got: Outcome) -> bool:
    """If `got` has every part of `expected`, or follows the rule for `expected` in prose.

    Raises:
        KeyError: there is no rule for the kind.
    """
    if "crash" in got:  # an exception that is no ConfigError is right nowhere
        return False
    if isinstance(case.expected, dict):
        return all(_has(got, key, value) for key, value in case.expected.items())
    return RULES[case.kind](case, got)


def _has(got: Outcome, key: str, value: Any) -> bool:
    if key in CONTAINED and key in got:
        texts = value if isinstance(value, list) else [value]
        return value is True or all(text in got[key] for text in texts)
    return key in got and got[key] == value and type(got[key]) is type(value)


def _refused(case: Case, got: Outcome) -> bool:
    return "error" in got


def _text_as_typed(case: Case, got: Outcome) -> bool:
    setting, _, text = case.input["override"].partition("=")
    typed = os.path.abspath(text) if setting.endswith(("path", "model")) else text
    return got.get("value") == typed


def _list_is_named(case: Case, got: Outcome) -> bool:
    return case.input["override"].partition("=")[0] in got.get("error", "")


def _value_of_environment(case: Case, got: Outcome) -> bool:
    expected = yaml.safe_load(case.expected.split(" ")[0])
    return "value" in got and got["value"] == expected and type(got["value"]) is type(expected)


def _anchored(case: Case, got: Outcome) -> bool:
    """The path is below the file's folder, which the runner took off, in both."""
    path = re.search(r'"([^"]*)"', case.input["file"])[1]  # type: ignore[index]
    for name, value in case.input["env"].items():
        path = path.replace(f"${{oc.env:{name}}}", value)
    return got.get("value") == path == got.get("again")


def _turns(case: Case, got: Outcome) -> bool:
    turns = case.input["rows"][0][case.input["task"]["problem_field"]]
    rows = got.get("rows") or [{"problem": "", "prompt": ""}]
    texts = [turn["content"] for turn in turns]
    in_order = ".*".join(map(re.escape, texts))
    return rows[0]["problem"] == texts[-1] and re.search(in_order, rows[0]["prompt"], re.DOTALL) is not None


def _nested(case: Case, got: Outcome) -> bool:
    (row,), task = case.input["rows"], case.input["task"]
    fields = task.get("problem_field", "problem"), task.get("answer_field", "answer")
    expected = [_field(row, name) for name in fields]
    return [[each["problem"], each["answer"]] for each in got.get("rows", [])] == [expected]


def _field(row: Mapping[str, Any], dotted: str) -> Any:
    value: Any = row
    for name in dotted.split("."):
        value = value[name]
    return value


def _one_of_the_list(case: Case, got: Outcome) -> bool:
    golds = case.input["rows"][0]["answer"]
    return len(got.get("rows", [])) == 1 and (len(golds) > 1 or got["rows"][0]["answer"] in (*golds, golds))


def _refused_or_warned(case: Case, got: Outcome) -> bool:
    return "error" in got or bool(got.get("warnings"))


def _gold_of_solution(case: Case, got: Outcome) -> bool:
    solution = case.input["rows"][0]["answer"]
    gold = solution.rpartition("####")[2].strip()
    return "error" in got or [row["answer"] for row in got["rows"]] == [gold]


def _all_rows(case: Case, got: Outcome) -> bool:
    problems = sorted(row["problem"] for row in case.input["rows"])
    return sorted(row["problem"] for row in got.get("rows", [])) == problems


def _read_or_kind_named(case: Case, got: Outcome) -> bool:
    told = re.search(r"compress|gzip|Parquet file|as Parquet|rename", got.get("error", ""))
    return _all_rows(case, got) or (told is not None and "UTF-8" not in got["error"])


def _characters(case: Case, got: Outcome) -> bool:
    return "error" in got or got["num_turn_ends"] == 1


def _labels(case: Case, got: Outcome) -> bool:
    (num,) = {len(case.input["row"]["correct"])}
    return got["exit_code"] == 2 or f"labels: {num} of {num}" in got["output"]


RULES: Mapping[str, Callable[[Case, Outcome], bool]] = {
    "config/list-setting": _list_is_named,
    "config/text-setting": _text_as_typed,
    "config/env": _value_of_environment,
    "config/env-path": _anchored,
    "config/dump": lambda case, got: got.get("same") is True,
    "data/chat-prompt": _turns,
    "data/nested-field": _nested,
    "data/list-answer": _one_of_the_list,
    "data/gold-not-a-value": _refused_or_warned,
    "data/gold-is-a-solution": _gold_of_solution,
    "data/folder": _all_rows,
    "data/file-kind": _read_or_kind_named,
    "data/duplicate-column": lambda case, got: "twice" in got.get("error", ""),
    "data/overlong": lambda case, got: len(got.get("rows", [])) == 1,
    "template/special-token-in-text": _characters,
    "template/empty-prompt": _refused,
    "template/template-fails": lambda case, got: "policy.model" in got.get("error", ""),
    "score/labels": _labels,
    "score/duplicate-ids": lambda case, got: "100.0%" in got["output"],
    "score/out": lambda case, got: got["exit_code"] == 2 and not got["started"],
    "score/terminal": lambda case, got: got["exit_code"] == 0,
    "score/interrupted": lambda case, got: bool(got["kept"]) and got["exit_code"] == 0,
    "score/fields": lambda case, got: got.get("rewards") == [[1.0]],
    "score/none": lambda case, got: "error" not in got["outcomes"][0] and ", 0 errors" in got["output"],
    "reward-model/equal-answers": lambda case, got: set(got["num_rewards"]) == {1},
    "reward-model/special-token-in-answer": lambda case, got: set(got["num_more_control_tokens"]) == {0},
    "evaluation/kind-by-value": lambda case, got: got["measures"][0] == got["measures"][1],
    "loggers/name-collision": lambda case, got: got["num_names"] == 2,
}
