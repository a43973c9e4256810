"""rollouts.jsonl, its shards and its settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rlstack.config.profiling import num_logged_prompts, rollouts_problems
from rlstack.config.schema import Policy, Run, RunConfig, Telemetry
from rlstack.data.samples import sample_rows
from rlstack.errors import ConfigError
from rlstack.telemetry import rollout_shards
from rlstack.telemetry.log_files import check_lengths, keep_aside, lengths
from rlstack.telemetry.rollout_shards import RolloutLog, num_bytes, read_rollouts, shards
from rlstack.telemetry.rollouts.groups import select
from rlstack.telemetry.run_dir import RunDirectory
from tests.scored import scored_group

ROWS_OF_STEP = 3
SHARD_BYTES = 400  # about two steps


def rows(step: int) -> list[dict[str, object]]:
    group = {"step": step, "task": "sums", "row": step, "version": 0, "problem": "1+1", "answer": "2"}
    rollout = {"text": "x" * 20, "reward": 1.0, "outcome": "ok", "finished": True, "length_tokens": 3}
    return [group | rollout | {"text": f"{step}.{i}"} for i in range(ROWS_OF_STEP)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(rollout_shards, "SHARD_BYTES", SHARD_BYTES)
    return RunDirectory.create(RunConfig(run=Run(dir=str(tmp_path)), policy=Policy(model="/model")))


def found(run: RunDirectory) -> list[tuple[int, str]]:
    return [(row["step"], row["text"]) for row in read_rollouts(run.path / "rollouts.jsonl")]


def expected(num_steps: int) -> list[tuple[int, str]]:
    return [(step, f"{step}.{i}") for step in range(1, num_steps + 1) for i in range(ROWS_OF_STEP)]


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.path.iterdir() if "rollouts" in path.name)


def test_a_small_run_has_all_in_one_file(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(run=Run(dir=str(tmp_path)), policy=Policy(model="/model")))
    for step in range(1, 10):
        run.log_rollouts(rows(step))
    run.close()
    assert names(run) == ["rollouts.jsonl"] and found(run) == expected(9)
    assert set(lengths(run.path)) == {"metrics.jsonl", "rollouts.jsonl"}


def test_a_large_run_has_compressed_shards_that_are_read_with_it(run: RunDirectory) -> None:
    for step in range(1, 12):
        run.log_rollouts(rows(step))
    run.close()
    assert found(run) == expected(11)
    assert names(run)[:2] == ["rollouts-000001.jsonl.gz", "rollouts-000002.jsonl.gz"]
    assert names(run)[-1] == "rollouts.jsonl" and not any(name.endswith("part") for name in names(run))
    total = sum(len(json.dumps(row)) + 1 for step in range(1, 12) for row in rows(step))
    assert num_bytes(run.path / "rollouts.jsonl") == total
    aside = keep_aside(run.path)
    assert list(read_rollouts(aside / "rollouts.jsonl")) == list(read_rollouts(run.path / "rollouts.jsonl"))
    selection = select(run.path / "rollouts.jsonl", n=ROWS_OF_STEP, name="data")
    assert selection is not None and (selection.num_steps, selection.num_rollouts) == (11, 33)


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_run_goes_back_to_any_step(
    is_packed: bool, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a process died before it had compressed a shard."""
    if not is_packed:
        monkeypatch.setattr(RolloutLog, "_pack", lambda self: None)
    positions = [lengths(run.path)]
    for step in range(1, 12):
        run.log_rollouts(rows(step))
        positions.append(lengths(run.path))
    assert len(shards(run.path)) >= 4
    for step in (11, 10, 7, 6, 5, 1, 0):
        run.cut_back(positions[step], last_step=step or 1)
        assert found(run) == expected(step)
        run.log_rollouts(rows(step + 1))  # in the file that is there now
        assert found(run) == expected(step + 1)
    run.close()


def test_a_shard_that_was_cut_short_is_refused_before_anything_changes(run: RunDirectory) -> None:
    run.log_rollouts(rows(1))
    positions = lengths(run.path)
    for step in range(2, 12):
        run.log_rollouts(rows(step))
    run.close()
    first = shards(run.path)[1]
    whole = first.read_bytes()
    first.write_bytes(whole[:-4] + (1).to_bytes(4, "little"))
    with pytest.raises(ConfigError, match="has 1 bytes, and its run had written"):
        check_lengths(run.path, positions)
    middle = len(whole) // 2
    first.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ConfigError, match=r"rollouts-000001\.jsonl\.gz: cannot be decompressed"):
        found(run)
    before = (run.path / "rollouts.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"rollouts-000001\.jsonl\.gz: cannot be decompressed"):
        run.cut_back(positions, last_step=1)
    assert (run.path / "rollouts.jsonl").read_bytes() == before and len(shards(run.path)) > 1


def test_above_the_limit_the_oldest_shards_go_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RolloutLog(tmp_path, max_gib=2000 / 2**30)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 60):
            log.write(json.dumps(row) + "\n" for row in rows(step))
        log.close()
    kept = [row["step"] for row in read_rollouts(tmp_path / "rollouts.jsonl")]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000
    assert kept[0] > 1 and kept[-1] == 59 and sorted(kept) == kept
    assert caplog.text.count("telemetry.rollouts_max_gib") == 1
    assert lengths(tmp_path)["rollouts.shards"] == max(shards(tmp_path)) > len(shards(tmp_path))


@pytest.mark.parametrize(
    ("given", "num"),
    [("all", None), ("none", 0), ("sample:3", 3), ("sample:0", "refused"), ("few", "refused")],
)
def test_rollouts_are_logged_of_as_many_prompts_as_are_wanted(given: str, num: int | str | None) -> None:
    telemetry = Telemetry(rollouts=given)
    problems = list(rollouts_problems(telemetry))
    assert bool(problems) == (num == "refused")
    if num == "refused":
        assert f"telemetry.rollouts = {given}: all | sample:N | none" in problems[0]
        return
    assert num_logged_prompts(telemetry) == num
    groups = [scored_group([1.0, 0.0], row=row) for row in range(8)]
    logged = list(sample_rows(groups, telemetry))
    assert logged == list(sample_rows(groups, telemetry))  # which does not depend on chance
    chosen = [row["row"] for row in logged]
    assert len(chosen) == 2 * (8 if num is None else num) and chosen == sorted(chosen)
    assert all(chosen.count(row) == 2 for row in chosen)
