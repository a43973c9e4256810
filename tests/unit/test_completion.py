"""What a shell is offered, by the function and by the command itself."""

import os
import subprocess
import sys

import pytest

from rlstack.cli.completion import complete_setting
from rlstack.config.load import load_config
from tests.heavy import HEAVY

GIVEN = ["policy.model=model"]  # which has no default


def test_every_offer_is_a_setting_that_loads() -> None:
    offers = [offer for offer in complete_setting("") if not offer.endswith("=")]
    assert len(offers) > 100
    for offer in offers:
        load_config(None, [*GIVEN, offer])
    without_default = sorted({offer for offer in complete_setting("") if offer.endswith("=")})
    assert without_default == [
        "cluster.env=",
        "data.tasks=",
        "evaluation.tasks=",
        "policy.model=",
        "reward.models=",
    ]


def test_words_are_offered_with_the_default_first() -> None:
    assert complete_setting("objective.name=g") == [
        "objective.name=group_dpo",
        "objective.name=grpo",
        "objective.name=group_dpo_grpo",
    ]
    assert complete_setting("rollout.overl") == ["rollout.overlap=true", "rollout.overlap=false"]
    assert complete_setting("schedule.adaptive.m")[0] == "schedule.adaptive.min=1"
    assert complete_setting("nonsense") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["rlstack", "plan"], ["plan", "plan-transfer"]),
        (["rlstack", "train", "a.yaml", "schedule.sync"], ["schedule.sync_interval=1"]),
    ],
)
def test_a_shell_gets_the_offers_at_once(words: list[str], offered: list[str]) -> None:
    code = (
        "import sys; from rlstack.cli import app\n"
        "try: app(prog_name='rlstack')\n"
        f"finally: assert not {set(HEAVY)} & set(sys.modules)"
    )
    asked = {
        "_RLSTACK_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked}
    )
    assert done.stdout.split() == offered, done.stderr
