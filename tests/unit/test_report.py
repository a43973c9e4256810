"""A run's report: what it shows is what the run's files say."""

import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from rlstack.cli.report import report
from rlstack.errors import ConfigError
from rlstack.telemetry import nvml, timeline
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy, Piece, State
from rlstack.telemetry.report import write_outputs, write_report
from rlstack.telemetry.run_record import Lap, RunRecord, StepTimes, Times, read_record
from rlstack.telemetry.settings_section import flat
from rlstack.telemetry.time_figures import MAX_PIECES, over_steps, shares
from rlstack.telemetry.time_sections import longest_whole, window
from rlstack.telemetry.time_tables import Use, gpu_rows, interval_rows, percentages, share_rows
from rlstack.telemetry.timeline import CONTROLLER, Span
from tests.played_run import NUM_STEPS, make_run

ROLES = [CONTROLLER, "engine 0", "policy rank 0", "policy rank 1", "rewards math"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return read_record(make_run(tmp_path_factory.mktemp("runs"), gpus=True))


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def figures(page: str) -> list[go.Figure]:
    """Every one, checked by Plotly."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return [go.Figure(json.loads(each)) for each in found]


def test_a_run_leaves_its_report_and_its_trace(run: RunRecord) -> None:
    page = (run.path / "report.html").read_text()
    assert titles(page) == [
        "Outcome",
        "Course",
        "Rollouts",
        "Where the time went",
        "Timeline",
        "Throughput",
        "Weight sync",
        "Sync intervals",
        "GPUs",
        "Settings",
    ]
    assert "<h1>a &lt;run&gt;</h1>" in page
    assert "completed after 4 steps" in page
    for role in ROLES:
        assert f"<td>{role}</td>" in page
    shown = [figure.layout.title.text for figure in figures(page)]
    assert {"Reward", "Held-out accuracy", "What each role does", "Shares of the steps' time", "Power"} <= {
        *shown
    }
    events = json.loads((run.path / "timeline.json").read_text())
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {*ROLES}
    assert [event for event in events if event["ph"] == "C"]


def test_the_throughput_is_that_of_the_summary(run: RunRecord) -> None:
    page = (run.path / "report.html").read_text()
    assert "<dt>trained tokens per second and rank</dt><dd>200</dd>" in page
    assert "<dt>TFLOP/s per policy rank</dt><dd>2</dd>" in page
    assert "<dt>model FLOPs utilisation</dt><dd>not measured</dd>" in page
    assert run.summary is not None
    assert run.summary["throughput"]["train_tflops_per_rank"] == 2
    assert run.summary["throughput"]["mfu"] is None


def test_the_report_of_a_run_that_goes_on_has_no_outcome_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "summary.json").unlink()
    (path, _) = write_outputs(read_record(folder))
    page = path.read_text()
    assert "Outcome" not in titles(page)
    assert "going on, 4 steps so far" in page


def test_the_outcome_says_what_was_replaced_and_where_the_run_was_taken_up(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    before = write_report(read_record(folder)).read_text()
    assert "taken up again" not in before and ">what followed</th>" not in before
    summary = json.loads((folder / "summary.json").read_text())
    older = {"step": 3, "role": "engine 0", "reason": "sampling rollouts: engine 0 died", "seconds": 7.25}
    moved = older | {"role": "engine 1", "moved_to": "10.0.0.3", "failed": False}
    failed = older | {"role": "engine 2", "failed": True, "error": "no room"}
    summary |= {"resumed": [2, 3], "restarts": [older, moved, failed]}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = write_report(read_record(folder)).read_text()
    assert "taken up again after step" in page and "2, 3" in page
    assert ">what followed</th>" in page and "sampling rollouts: engine 0 died" in page
    for outcome in ("replaced", "replaced on 10.0.0.3", "not replaced: no room"):
        assert f">{outcome}</td>" in page


def test_a_run_that_failed_has_a_report_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        make_run(tmp_path, error=RuntimeError("a rank died"))
    assert "failed after 4 steps" in (tmp_path / "a <run>" / "report.html").read_text()


def test_a_run_without_a_step_has_a_report_of_its_settings(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for name in ("metrics.jsonl", "timeline.jsonl"):
        (folder / name).write_text("")
    record = read_record(folder)
    # The course is that of the evaluation.
    assert titles(write_report(record).read_text()) == ["Outcome", "Course", "Rollouts", "Settings"]
    assert write_outputs(record) == [folder / "report.html"]


def test_a_report_that_cannot_be_written_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(record: RunRecord) -> list[Path]:
        raise OSError("no space left")

    monkeypatch.setattr("rlstack.telemetry.closing.write_outputs", fail)
    folder = make_run(tmp_path)
    assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
    assert "report.html could not be written: no space left" in capsys.readouterr().out


def test_a_report_that_would_take_long_is_left_to_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlstack.telemetry.closing.REPORT_S", 0.0)
    monkeypatch.setattr("rlstack.telemetry.closing.REPORT_S_PER_SPAN", 100.0)
    folder = make_run(tmp_path)
    assert not (folder / "report.html").exists()
    assert f"for report.html and timeline.json: rlstack report {folder}" in capsys.readouterr().out


@pytest.mark.parametrize(("why", "times"), [("Driver Not Loaded", 1), (None, 0)])
def test_a_machine_without_gpus_is_told_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    why: str | None,
    times: int,
) -> None:
    monkeypatch.setattr(nvml, "missing", lambda: why)
    folder = make_run(tmp_path)
    assert capsys.readouterr().out.count("NVML: Driver Not Loaded; power, use, memory") == times
    assert "GPUs" not in titles((folder / "report.html").read_text())


def test_a_folder_without_a_run_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        read_record(tmp_path)


def test_the_shares_of_the_summary_the_table_and_the_bars_add_up(run: RunRecord) -> None:
    roles = run.times.all_steps.roles
    assert list(roles) == [CONTROLLER, *sorted(ROLES[1:], key=list(roles).index)]
    steps_s = sum(lap.end_s - lap.start_s for lap in run.times.steps)
    for seconds in roles.values():
        assert seconds.total_s == pytest.approx(steps_s, abs=1e-5)
    for _, busy, waiting, idle, *_ in share_rows(roles):
        assert sum(float(share.removesuffix(" %")) for share in (busy, waiting, idle)) == pytest.approx(100)
    bars = shares(roles)["data"]
    for i in range(len(ROLES)):
        assert sum(bar["x"][i] for bar in bars) == pytest.approx(100)
    assert run.summary is not None
    totals = [Occupancy(**seconds).total_s for seconds in run.summary["roles"].values()]
    assert totals == pytest.approx([run.summary["wall_s"]] * len(ROLES), abs=0.05)


def test_the_shares_over_the_steps_add_up_in_each(run: RunRecord) -> None:
    for kind in ("policy", "engine"):
        figure = over_steps(run.steps, kind, kind)
        assert figure is not None
        for i in range(NUM_STEPS):
            assert sum(part["y"][i] for part in figure["data"]) == pytest.approx(100, abs=1e-6)
    assert over_steps([{"step": 1}], "policy", "policy") is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_percentages_add_up_and_are_off_by_less_than_a_tenth(parts: list[float]) -> None:
    shown = percentages(parts)
    if sum(parts) == 0:
        assert set(shown) == {0.0}
        return
    assert sum(shown) == pytest.approx(100)
    assert all(abs(a - 100 * b / sum(parts)) < 0.1 + 1e-9 for a, b in zip(shown, parts, strict=True))


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, (2, 2)), (3, (2, 2)), (6, (2, 3)), (9, (2, 4)), (10**9, (0, 4))]
)
def test_the_timeline_shows_the_steps_around_the_middle_that_it_has_room_for(
    limit: int, expected: tuple[int, int]
) -> None:
    steps = [(float(i), float(i + 1)) for i in range(5)]
    pieces = [Piece(i + j / 3, i + (j + 1) / 3, State.busy, "x") for i in range(5) for j in range(3)]
    assert window({"engine 0": pieces}, steps, limit) == expected
    assert MAX_PIECES > 1000


def lap(
    step: int, roles: dict[str, Occupancy] | None = None, energy_j: dict[str, float] | None = None
) -> Lap:
    return Lap(Span(CONTROLLER, "step", step - 1, step, step=step), True, roles or {}, energy_j or {})


def rows_of(steps: int) -> list[dict[str, object]]:
    """Of a timeline.jsonl as earlier versions wrote it: spans, and nothing else of a lap."""
    spans = [Span(CONTROLLER, "step", i, i + 1, step=i + 1) for i in range(steps)]
    spans.insert(1, Span("engine 0", "generate", 0, 1.5, step=1))
    return [span._asdict() for span in spans]


def test_an_interval_is_from_one_sync_to_the_next() -> None:
    def of(synced: set[int | None], steps: int = 5) -> list[tuple[int | None, int | None]]:
        times = Times(synced)
        times.read(rows_of(steps) if steps else [])
        return [(interval.first_step, interval.last_step) for interval in times.intervals]

    assert of({2, 4}) == [(1, 2), (3, 4), (5, 5)]
    assert of({5}) == of(set()) == [(1, 5)]
    assert of({1}, steps=0) == []


def test_the_intervals_that_are_kept_are_the_last_ones() -> None:
    times = Times(set(range(1, 101)))
    times.read(rows_of(100))
    assert times.num_intervals == 100
    assert [interval.first_step for interval in times.intervals] == list(range(81, 101))


def test_a_timeline_of_an_earlier_version_is_accounted_for_by_its_spans() -> None:
    times = Times()
    times.read(rows_of(3))
    assert times.all_steps.roles["engine 0"].busy_s == {"generate": 1.5}
    assert {seconds.total_s for seconds in times.all_steps.roles.values()} == {3.0}
    assert times.whole == [(0, 3)]


def test_an_intervals_row_has_seconds_and_joules() -> None:
    steps = StepTimes()
    steps.add(lap(1, {"engine 0": Occupancy({"generate": 1.0})}))
    steps.add(lap(2, {"engine 0": Occupancy({"generate": 0.5}, idle_s=0.5)}))
    samples = [Sample("engine 0", "0", 1.0, 300.0, 0.5, 20.0, 55.0)]
    rows = list(interval_rows([steps], samples))
    assert rows == [["1 to 2", "engine 0", "1.500", "0.000", "0.500", "600.0"]]
    assert [row[-1] for row in interval_rows([steps], [])] == ["–"]
    assert list(gpu_rows(samples, steps)) == [["engine 0", "300.0", "0.6", "50.0", "20.0", "55.0"]]


def test_the_joules_of_the_laps_are_taken_before_those_of_thinned_samples() -> None:
    steps = StepTimes()
    steps.add(lap(1, {"engine 0": Occupancy({"generate": 1.0})}, {"engine 0": 100.0}))
    steps.add(lap(3, {"engine 0": Occupancy({"generate": 1.0})}, {"engine 0": 50.0}))
    samples = [Sample("engine 0", "0", 1.0, 300.0, 0.5, 20.0, 55.0)]
    assert [row[-1] for row in interval_rows([steps], samples)] == ["150.0"]
    assert [row[1:3] for row in gpu_rows(samples, steps)] == [["75.0", "0.1"]]  # 150 J in 2 s


def test_only_what_is_known_whole_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlstack.telemetry.run_timeline.WHOLE_SPANS", 9)
    monkeypatch.setattr("rlstack.telemetry.run_timeline.SLOWER", 1e9)
    monkeypatch.setattr("rlstack.telemetry.run_timeline.NUM_SLOWEST", 1)
    folder = make_run(tmp_path)
    record = read_record(folder)
    assert [step.step for step in longest_whole(record.times)] == [1, 2]
    assert len(record.times.steps) == NUM_STEPS
    page = (folder / "report.html").read_text()
    assert "Steps 1 to 2 of 4, a thin line" in page
    assert "Steps 1 to 2 and the slowest others are in timeline.json" in page
    events = json.loads((folder / "timeline.json").read_text())
    states = [event for event in events if event["ph"] == "X" and event["tid"] == 0]
    ((_, end_s),) = record.times.whole
    assert max(event["ts"] for event in states) / 1e6 <= end_s - record.start_s
    for seconds in record.times.all_steps.roles.values():
        assert seconds.total_s == pytest.approx(record.times.all_steps.seconds, abs=1e-4)


def test_lost_spans_are_in_the_metrics_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timeline._process, "done", timeline.Buffer[Span](4))
    record = read_record(make_run(tmp_path))
    assert [row["timeline/dropped_spans"] for row in record.steps] == [3, 3, 3, 3]
    assert capsys.readouterr().out.count("3 spans of step 1 were lost") == 1


def test_a_report_of_several_runs_holds_one_of_them_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [make_run(tmp_path, name=name) for name in ("one", "two")]
    done: list[str] = []

    def write(record: RunRecord) -> list[Path]:
        done.append(f"write {record.name}")
        return []

    def read(folder: Path) -> RunRecord:
        done.append(f"read {folder.name}")
        return read_record(folder)

    monkeypatch.setattr("rlstack.telemetry.report.write_outputs", write)
    monkeypatch.setattr("rlstack.telemetry.run_record.read_record", read)
    report(folders)
    assert done == ["read one", "write one", "read two", "write two"]
    with pytest.raises(typer.Exit):
        report([*folders, tmp_path / "none"])
    assert len(done) == 4  # nothing was written before the wrong folder was seen


def test_settings_are_flat_and_as_json() -> None:
    given = {"a": {"b": None, "c": [1, {"d": "ü"}]}, "e": "x"}
    assert flat(given) == {"a.b": "null", "a.c": '[1, {"d": "ü"}]', "e": '"x"'}


@pytest.mark.parametrize(
    ("use", "label"),
    [
        (Use(State.busy, "step"), "own work"),
        (Use(State.waiting, "pipeline_bubble"), "waiting: pipeline bubble"),
        (Use(State.idle, ""), "idle"),
    ],
)
def test_what_time_was_used_for_has_a_name_for_people(use: Use, label: str) -> None:
    assert use.label == label
