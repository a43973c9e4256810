"""What the live panel shows is what the last rows and the spans that go on say."""

import io
import math
import re

import pytest
from rich.console import Console as RichConsole

from rlstack.telemetry import console as console_module
from rlstack.telemetry.console import Console
from rlstack.telemetry.live_panel import LivePanel, curve, mean_shares, moment, share_line
from rlstack.telemetry.timeline import CONTROLLER, Span, now_s

ROW = {
    "reward/mean": 0.5,
    "pairs/yield": 0.75,
    "mismatch/logprob_abs_max": 9e-6,
    "time/step_s": 2.0,
    "busy/policy": 0.5,
    "busy/engine": 0.875,
    "wait/rollouts": 0.25,
    "wait/sync": 0.125,
    "wait/reward": 0.0,
}


def drawn(panel: LivePanel, *, width: int = 100) -> list[str]:
    out = RichConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    out.print(panel)
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_a_panel_shows_how_far_the_run_is_its_figures_and_who_waits() -> None:
    panel = LivePanel(120, spans=list)
    for step in range(1, 31):
        panel.add({"step": step, **ROW, "reward/mean": step / 30})
    panel.add({"eval/accuracy": 0.61, "eval/accuracy_stderr": 0.02, "eval/version": 30})
    shown = "\n".join(drawn(panel))
    assert re.search(r"step 30/120 .*2\.00 s per step +ETA 3:00 +0:0\d so far", shown)
    assert re.search(r"reward +1\.000 +▁\S*█", shown)
    assert re.search(r"pair yield +75%", shown)
    assert re.search(r"mismatch +9e-06", shown)
    assert re.search(r"accuracy +0\.610 ± 0\.020 +held out, version 30", shown)
    assert "at work: policy 50%, engines 88%; the policy waits for rollouts 25%, sync 12%" in shown


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_a_panel_is_never_wider_than_the_terminal(width: int) -> None:
    panel = LivePanel(100_000, spans=lambda: [Span(f"engine {i}", "generate", 0.0, 0.0) for i in range(99)])
    for step in range(1, 200):
        panel.add({"step": step, **ROW, "policy/entropy": 0.2, "rollout/length_mean": 1234.5})
    lines = drawn(panel, width=width)
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("step 199/100000")


def test_a_panel_without_a_step_shows_what_is_being_started() -> None:
    panel = LivePanel(10, spans=lambda: [Span(CONTROLLER, "starting", now_s(), 0.0, "start_up")])
    with panel.during("starting policy and engines"):
        assert drawn(panel)[-1].startswith("starting policy and engines, 0 s")
    assert drawn(panel)[-1].startswith("the loop waits for start up, 0 s")


def test_what_goes_on_is_the_controllers_last_wait_and_the_roles_at_work() -> None:
    spans = [
        Span(CONTROLLER, "train", 7.0, 7.0, "training"),
        Span(CONTROLLER, "save", 8.0, 8.0, "rollouts"),
        Span("engine 1", "generate", 1.0, 1.0),
        Span("engine 0", "generate", 2.0, 2.0),
        Span("policy rank 1", "exchange", 2.0, 2.0, "pipeline_bubble"),
    ]
    assert moment(spans, 11.0) == "the loop waits for rollouts, 3 s; engine 0: generate, engine 1: generate"
    crowd = [Span(f"engine {i}", "generate", 0.0, 0.0) for i in range(5)]
    assert moment(crowd, 1.0).endswith("engine 2: generate and 2 more")
    assert moment([], 1.0) == ""


def test_a_curve_goes_from_the_least_to_the_greatest() -> None:
    assert curve([0.0, 7.0, 3.0, math.nan, 1.0]) == "▁█▄·▂"
    assert curve([2.0, 2.0]) == "▁▁"
    assert curve([math.nan]) == "·"


def test_shares_are_means_and_those_that_round_to_nothing_are_left_out() -> None:
    shares = mean_shares([{"busy/policy": 1.0}, {"busy/policy": 0.5, "wait/rollouts": 0.5}])
    assert shares == {"busy/policy": 0.75, "wait/rollouts": 0.25}
    assert (
        share_line(shares | {"wait/sync": 0.001}) == "at work: policy 75%; the policy waits for rollouts 25%"
    )
    assert share_line({}) == ""


def test_on_a_terminal_the_lines_of_steps_stay_and_the_panel_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    terminal = RichConsole(
        file=file, width=120, force_terminal=True, force_interactive=True, highlight=False, soft_wrap=True
    )
    monkeypatch.setattr(console_module, "RichConsole", lambda **_: terminal)
    console = Console(num_steps=2)
    console.open()
    with console.phase("starting engines"):
        assert "starting engines, 0 s" in _redrawn(console, file)
    console.step({"step": 1, **ROW})
    assert "ETA 0:02" in _redrawn(console, file)
    console.close()
    after = file.tell()
    console.note("done")
    lines = file.getvalue()
    assert lines[after:] == "done\n"
    assert re.search(r"starting engines: 0\.\d s\n", lines)
    assert re.search(r"step 1/2  reward 0\.500 .*2\.00 s  ETA 0:02", lines)


def _redrawn(console: Console, file: io.StringIO) -> str:
    start = file.tell()
    assert console._live is not None
    console._live.refresh()
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", file.getvalue()[start:])
