"""Runs from Python, with code of the user's own, on real engines."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import rlstack

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@dataclass(frozen=True)
class Shaped:
    """DPO's hinge (SLiC, arXiv 2305.10425): the mean over pairs of max(0, 1 - margin)."""

    needs_reference: bool = True
    needs_entropy_gradient: bool = False

    def __call__(self, inputs: rlstack.LossInputs) -> rlstack.LossOutput:
        assert inputs.reference_logprobs is not None
        policy = rlstack.rollout_sums(inputs.policy_logprobs, inputs)
        reference = rlstack.rollout_sums(inputs.reference_logprobs, inputs)
        margins = rlstack.dpo_margins(policy, reference, inputs.pairs, beta=0.1)
        loss = (inputs.pair_weights * (1 - margins).clamp(min=0)).sum()
        total = rlstack.Ratio(loss.detach(), inputs.pair_weights.sum())
        return rlstack.LossOutput(loss=loss, metrics={"custom/hinge": total})


@pytest.mark.slow
def test_a_loop_of_ones_own_with_a_reward_and_a_loss_of_ones_own(tmp_path: Path) -> None:
    def digits(problem: str, answer: str | None, responses: Sequence[str]) -> list[int]:
        return [sum(letter.isdigit() for letter in response) for response in responses]

    config = rlstack.load_config(
        QUICKSTART,
        [f"run.dir={tmp_path}", "run.name=own", "schedule.num_steps=2", "batch.prompts_per_step=4"],
    )
    with rlstack.Session(config, rewards={"fractions": digits}, loss=Shaped) as session:
        for step in range(2):
            scored = session.score(session.sample(session.prompts.take(step, 4), n=4))
            credit = rlstack.assign(scored, config.objective, seed=0, step=step)
            metrics = session.train_step(credit.examples) | credit.metrics() | session.sync()
            session.log(metrics, scored)
        assert session.version == session.engines.version == 2
        (group,) = session.sample(session.held_out[:1], n=3, temperature=0.5)
        assert len(group.rollouts) == 3
        assert {rollout.version for rollout in group.rollouts} == {2}
    rows = [json.loads(line) for line in (session.folder / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 4 * 4
    assert all(row["reward"] == sum(letter.isdigit() for letter in row["text"]) for row in rows)
    record = rlstack.read_record(session.folder)
    first, second = record.steps
    assert first["custom/hinge"] == pytest.approx(1)  # the margin is 0 where the policy is the reference
    assert second["sync/verified"] and second["mismatch/logprob_abs_max"] < 1e-4
    assert record.summary is not None and record.summary["status"] == "completed"
    assert record.settings["data"]["tasks"][0]["reward"] == "__main__:digits"
    assert record.settings["objective"]["loss"].endswith(":Shaped")


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_of_the_docs_runs_as_it_is(path: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "completed after" in done.stdout
