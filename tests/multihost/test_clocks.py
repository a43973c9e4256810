"""A host whose clock is wrong: it is named, and what was measured there is moved to the driver's time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.timelines import check_timeline
from tests.multihost.cluster import launch, start_ray
from tests.multihost.hosts import Hosts, address
from tests.run_files import Results, results_in

pytestmark = [pytest.mark.multihost, pytest.mark.thorough]

SKEW_S = 600.0  # far beyond the length of the run: spans that are not moved lie outside of it


@pytest.mark.parametrize("skew_s", [2.0, -SKEW_S])
def test_a_clock_that_is_wrong_changes_no_share_of_time(
    skew_s: float, tmp_path: Path, alone: Results
) -> None:
    with Hosts(2, shared=tmp_path) as hosts:
        hosts.skew_clock(2, skew_s)
        start_ray(hosts, num_cpus=[2, 2])
        driver = launch(hosts, log=tmp_path / "driver.log")
        assert driver.wait(400) == 0, (tmp_path / "driver.log").read_text()
    record = check_timeline(tmp_path / "run", num_ranks=2)
    generating = [span for span in record.times.spans if (span.role, span.phase) == ("engine 0", "generate")]
    in_steps = [span for span in generating if span.step]
    first, last = record.times.steps[0].start_s, record.times.steps[-1].end_s
    assert in_steps and all(first - 1 < span.start_s < span.end_s < last + 1 for span in in_steps)
    assert sum(row.get("time/sampling_s", 0.0) for row in record.steps) > 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["clocks"][address(2)] == pytest.approx(skew_s, abs=0.5)
    (alarm,) = [row for row in summary["alarms"] if row["alarm"] == "clocks"]
    assert address(2) in alarm["reason"]
    steps, rollouts = results_in(tmp_path / "run")
    assert (steps, rollouts) == alone
