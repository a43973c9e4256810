"""A config's own layout and its memory, as the comment lines that stand at the end of the config."""

from __future__ import annotations

from collections.abc import Sequence

from rlstack.tuning.interval.intervals import label
from rlstack.tuning.planning.combination import Choice
from rlstack.tuning.planning.derivation import Figure
from rlstack.tuning.planning.show import layout_text

FIRST_LINE = "# Memory plan, in GB; `rlstack plan` with this file and --comment prints it:"
_NAME_WIDTH = 33


def comment_lines(choice: Choice) -> list[str]:
    """What a policy GPU and an engine's GPU hold, what they may hold, and how long a step takes."""
    trainer, engines, demand = choice.trainer, choice.engines, choice.trainer.demand
    gpus = f"{demand.config.policy.precision.value}, on {choice.num_gpus} {demand.gpu.name}"
    policy_text, engines_text = layout_text(choice)
    step_s = choice.predictions[demand.own_interval].step_s
    lines = [
        f"{gpus}: policy {policy_text}, engines {engines_text}",
        f"fits: {'yes' if choice.fits else 'NO'}",
        f"{step_s:.1f} s per step at s = {label(demand.own_interval)}, as `rlstack plan` assumes",
        f"a policy GPU, stage {trainer.stage} of {trainer.layout.pipeline_parallel}",
        *_rows([*trainer.memory.parts, trainer.memory.total, trainer.memory.limit]),
        f"an engine's GPU, rollout.gpu_memory_fraction {engines.memory.gpu_memory_fraction:g}",
        *_rows(engines.memory.parts),
        f"  the cache holds {engines.memory.kv_tokens:,} tokens",
        "main memory of a node with policy ranks",
        *_rows([*trainer.host.parts, trainer.host.total, trainer.host.limit]),
        "main memory of the controller, beside its processes",
        *_rows([choice.waiting]),
    ]
    return [FIRST_LINE, *(f"#   {line}" for line in lines)]


def with_comment(text: str, lines: Sequence[str]) -> str:
    """A config's text with `lines` at its end, in the place of an earlier memory plan."""
    settings, _, _ = text.partition(FIRST_LINE)
    return "\n".join([settings.rstrip(), "", *lines, ""])


def _rows(figures: Sequence[Figure]) -> list[str]:
    return [f"  {figure.name:<{_NAME_WIDTH}}{figure.value / 1e9:8.2f}" for figure in figures]
