"""The section of a run's report on how fast its ranks worked."""

from __future__ import annotations

from rlstack.telemetry.html_page import Section, facts, figure, side_by_side, text
from rlstack.telemetry.metrics import over_steps
from rlstack.telemetry.run_figures import Panel, lines
from rlstack.telemetry.run_record import RunRecord

_SPEEDS = (
    Panel("Training", "TFLOP/s per rank", {"speed": "throughput/train_tflops_per_rank"}),
    Panel("Sampling", "tokens/s per rank", {"speed": "throughput/generated_tokens_per_s_per_rank"}),
)


def throughput_section(run: RunRecord) -> Section | None:
    """Of a run that has ended; None where nothing was trained on."""
    found = (run.summary or {}).get("throughput")
    if not run.steps or found is None or found["train_tokens_per_s_per_rank"] is None:
        return None
    values = {
        "trained tokens per second and rank": _number(found["train_tokens_per_s_per_rank"]),
        "TFLOP/s per policy rank": _number(found["train_tflops_per_rank"]),
        "model FLOPs utilisation": _percent(found["mfu"]),
        "waited for other pipeline stages": _percent(found["bubble_share"]),
        "padding of all trained tokens": _percent(found["padding_share"]),
        "most FLOPs of a data-parallel rank / mean": _number(
            over_steps("packing/flops_imbalance", run.steps)
        ),
        "generated tokens per second and rank": _number(found["generated_tokens_per_s_per_rank"]),
    }
    drawn = [lines(run.steps, panel) for panel in _SPEEDS]
    return Section(
        "Throughput",
        [
            text(
                "A rank is one GPU, or one process where there is none. Speeds are those at work: of the "
                "policy's ranks in their updates, all waits in these included; of the engines' while they "
                "sample."
            ),
            facts(values),
            side_by_side([figure(each) for each in drawn if each is not None]),
        ],
    )


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"
