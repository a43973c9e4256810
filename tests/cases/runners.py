"""From cases to outcomes: which runner a case has, and the math verdicts all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.cases import configured, loaded, models, scored
from tests.cases.case import Case, Outcome

MATH = "rlstack score FILE --reward math --out OUT"
# By the beginning of `how`.
RUNNERS: dict[str, Callable[[Case], Outcome]] = {
    'rlstack.load_config("configs/quickstart.yaml"': configured.overridden,
    "rlstack.load_config(FILE)": configured.written,
    "load_config, dump_config": configured.written,
    "rlstack.data.datasets.load_task": loaded.dataset,
    "rlstack.data.datasets.tokenise": loaded.templated,
    "rlstack train configs/quickstart.yaml policy.model=MODEL": loaded.model_with_template,
    "rlstack score FILE": scored.score_command,
    "mkdir adir; rlstack score": scored.folder_as_out,
    "PYTHONIOENCODING=ascii rlstack score": scored.plain_terminal,
    "rlstack score of many rows, stdout closed": scored.closed_terminal,
    "a plug-in that returns None": scored.without_rewards,
    "RewardModel(RewardModel settings": models.equal_answers,
    "RewardModel(...).score": models.written_tokens,
    "task_measures": models.measured,
    "telemetry.mlflow": models.logged_names,
}


def outcomes(cases: Sequence[Case]) -> Iterator[tuple[Case, Outcome]]:
    """Each case with what came of it, the math verdicts first; "crash" for what raised no ConfigError."""
    of_math = [case for case in cases if is_verdict(case)]
    yield from zip(of_math, scored.math_verdicts(of_math) if of_math else [], strict=True)
    for case in cases:
        if not is_verdict(case):
            yield case, _outcome(case)


def is_verdict(case: Case) -> bool:
    """If the case is one row of answers to verify; the score/ kinds are about the command itself."""
    return case.how == MATH and not case.kind.startswith("score/")


def _outcome(case: Case) -> Outcome:
    found = [runner for how, runner in RUNNERS.items() if case.how.startswith(how)]
    if not found:
        return {"crash": "there is no runner for this `how`"}
    try:
        return found[0](case)
    except Exception as error:
        return {"crash": f"{type(error).__name__}: {error}"}
