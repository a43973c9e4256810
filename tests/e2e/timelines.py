"""What the timeline of every finished run has to say."""

import json
from itertools import pairwise

import pytest

from rlstack.telemetry.occupancy import Occupancy
from rlstack.telemetry.run_record import read_record


def check_timeline(folder, *, num_ranks):
    """Every role is accounted for, in each step and over the run; the record of the run."""
    record = read_record(folder)
    roles = {"controller", "engine 0", "rewards math", *(f"policy rank {i}" for i in range(num_ranks))}
    assert {span.role for span in record.times.spans} == record.summary["roles"].keys() == roles
    for seconds in record.summary["roles"].values():
        assert Occupancy(**seconds).total_s == pytest.approx(record.summary["wall_s"], abs=0.5)
    for row in record.steps:
        shares = {name: value for name, value in row.items() if name.startswith(("busy/", "idle/", "wait/"))}
        assert all(-1e-9 < share < 1 + 1e-9 for share in shares.values())
        waits = sum(value for name, value in shares.items() if name.startswith("wait/"))
        assert waits + shares["busy/policy"] + shares["idle/policy"] == pytest.approx(1)
    steps = record.times.steps
    assert [lap.step for lap in steps] == [row["step"] for row in record.steps]
    assert all(before.end_s <= after.start_s for before, after in pairwise(steps))
    steps_s = sum(lap.end_s - lap.start_s for lap in steps)
    for seconds in record.times.all_steps.roles.values():
        assert seconds.total_s == pytest.approx(steps_s, abs=1e-6 * 10 * len(steps))
    assert {"train", "forward", "backward", "optimizer"} <= {
        span.phase for span in record.times.spans if span.role == "policy rank 0"
    }
    assert "Where the time went" in (folder / "report.html").read_text()
    events = json.loads((folder / "timeline.json").read_text())
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == roles
    return record


def seconds_side_by_side(record):
    """How long the engine sampled rollouts while the policy trained."""
    generate = [s for s in record.times.spans if (s.role, s.phase) == ("engine 0", "generate") and s.step]
    train = [s for s in record.times.spans if (s.role, s.phase) == ("policy rank 0", "train") and s.step]
    return sum(max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s)) for a in generate for b in train)
