"""A plan as tables for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rlstack.config.schema import Recompute
from rlstack.tuning.interval.intervals import label
from rlstack.tuning.planning.combination import Choice
from rlstack.tuning.planning.derivation import Figure, number_text
from rlstack.tuning.planning.report import IntervalRow, Plan

_FILE_WIDTH = 160  # characters, where the output is no terminal


def show(plan: Plan, *, explain: bool) -> None:
    """Print what fits, how long steps take, what to paste and what was assumed; `explain`: the arithmetic."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    demand, gpu = plan.demand, plan.demand.gpu
    console.print(
        f"{plan.model}, {demand.config.policy.precision.value}, on {plan.best.num_gpus} {gpu.name}: "
        f"policy {layout_text(plan.best)[0]}, engines {layout_text(plan.best)[1]}"
    )
    for table in (
        choices_table(plan),
        policy_table(plan.best),
        engine_table(plan.best),
        host_table(plan.best),
        intervals_table(plan),
    ):
        console.print(table)
    console.print(f"For `rlstack train`: {' '.join(plan.settings)}\n", soft_wrap=True)
    if explain:
        for title, figures in arithmetic(plan.best).items():
            console.print(f"[bold]{title}[/]")
            for figure in figures:
                console.print(f"  {explained(figure)}", soft_wrap=True)
    console.print(assumptions_table(plan))
    console.print(f"{gpu.name}: {gpu.source}", soft_wrap=True)
    if not explain:
        console.print("Every figure's formula, with its numbers: --explain, or in --json FILE")


def layout_text(choice: Choice) -> tuple[str, str]:
    """TP2PP1DP16, 8xTP1; VP and CP where there are more than one, and what is recomputed."""
    layout, engines = choice.trainer.layout, choice.engines.layout
    recompute = choice.trainer.demand.config.policy.recompute
    virtual = f"VP{layout.virtual_pipeline}" if layout.virtual_pipeline > 1 else ""
    context = f"CP{layout.context_parallel}" if layout.context_parallel > 1 else ""
    trainer = (
        f"TP{layout.tensor_parallel}PP{layout.pipeline_parallel}{virtual}{context}DP{layout.data_parallel}"
    )
    again = "" if recompute is Recompute.none else f", recompute {recompute.value}"
    return trainer + again, f"{engines.num_engines}xTP{engines.tensor_parallel}"


def choices_table(plan: Plan) -> Table:
    """The best layouts of each split of the GPUs, and the config's own."""
    interval = label(plan.demand.own_interval)
    table = Table(
        "",
        "policy",
        "engines",
        "GPUs",
        "of a policy GPU",
        "KV tokens per engine",
        "s per step",
        "fits",
        title=f"layouts, at s = {interval}",
    )
    rows = [("best" if i == 0 else "", choice) for i, choice in enumerate(plan.choices)]
    for name, choice in [*rows, ("config", plan.configured)]:
        memory = choice.trainer.memory.total
        table.add_row(
            name,
            *layout_text(choice),
            _gpus_text(choice),
            f"{memory.text}, {memory.value / plan.demand.memory_bytes:.0%}",
            f"{choice.engines.memory.kv_tokens:,}",
            f"{choice.predictions[plan.demand.own_interval].step_s:.2f}" if choice.fits else "-",
            "yes" if choice.fits else "no",
        )
    return table


def policy_table(choice: Choice) -> Table:
    """Of the stage that has the most."""
    memory, stages = choice.trainer.memory, choice.trainer.layout.pipeline_parallel
    table = Table("", "GB", title=f"a policy GPU, stage {choice.trainer.stage} of {stages}")
    for figure in [*memory.parts, memory.total, memory.limit]:
        table.add_row(figure.name, f"{figure.value / 1e9:.2f}")
    return table


def engine_table(choice: Choice) -> Table:
    """With what the cache holds."""
    memory, demand = choice.engines.memory, choice.engines.demand
    table = Table("", "GB", title=f"an engine's GPU, gpu_memory_fraction {memory.gpu_memory_fraction:g}")
    for figure in memory.parts:
        table.add_row(figure.name, f"{figure.value / 1e9:.2f}")
    longest = demand.longest_sequence
    sequences = f"{memory.kv_tokens // longest:,} sequences of {longest:,} tokens"
    table.add_row(f"the cache holds {memory.kv_tokens:,} tokens: {sequences}", "")
    return table


def host_table(choice: Choice) -> Table:
    """Of a node of the policy's, and of the controller's node on top."""
    host = choice.trainer.host
    table = Table("", "GB", title="main memory of a node with policy ranks")
    for figure in [*host.parts, host.total, host.limit]:
        table.add_row(figure.name, f"{figure.value / 1e9:.1f}")
    table.add_row(f"the controller: {choice.waiting.name}", f"{choice.waiting.value / 1e9:.1f}")
    return table


def intervals_table(plan: Plan) -> Table:
    """Step time and cost for each sync interval."""
    columns = {
        "s": lambda row: label(row.sync_interval),
        "s per step": lambda row: f"{row.step_s:.2f}",
        "generate": lambda row: f"{row.generate_s:.2f}",
        "train": lambda row: f"{row.train_s:.2f}",
        "a sync": lambda row: "" if row.sync_interval is None else f"{row.sync_s:.2f}",
        "policy idle": lambda row: f"{row.policy_idle_share:.0%}",
        "engines idle": lambda row: f"{row.engine_idle_share:.0%}",
        "tokens/s generated": lambda row: f"{row.tokens_generated_per_s:,.0f}",
        "tokens/s trained": lambda row: f"{row.tokens_trained_per_s:,.0f}",
        "GPU-hours per 1000 steps": lambda row: f"{row.gpu_hours_per_1000_steps:,.1f}",
    }
    if plan.price_per_gpu_hour is not None:
        columns["price of 1000 steps"] = _price
    title = f"per sync interval, lag {plan.demand.config.schedule.lag}; seconds are per step, of one engine"
    table = Table(*columns, title=title)
    for row in plan.rows:
        table.add_row(*(column(row) for column in columns.values()))
    return table


def assumptions_table(plan: Plan) -> Table:
    """All of them."""
    table = Table("--assume", "", "unit", "why", title="assumed")
    for name, value, unit, why in plan.demand.assumptions.described():
        table.add_row(name, number_text(value), unit, why)
    return table


def arithmetic(choice: Choice) -> dict[str, list[Figure]]:
    """All figures of a choice by what they are about, in the order in which they are computed."""
    policy, engine = choice.trainer.memory, choice.engines.memory
    return {
        "a policy GPU": [*policy.details, *policy.parts, policy.total, policy.limit],
        "an engine's GPU": [*engine.details, *engine.parts],
        "a node's main memory": [*choice.trainer.host.parts, choice.trainer.host.total],
        "the controller's main memory": [choice.waiting],
        "training": choice.trainer.figures,
        "generation": choice.engines.figures,
        "rewards, sync and controller": choice.figures,
    }


def explained(figure: Figure) -> str:
    """Name, formula, numbers, value."""
    return f"{figure.name} = {figure.formula} = {figure.with_numbers} = {figure.text}"


def _gpus_text(choice: Choice) -> str:
    ranks, engines = choice.trainer.layout.num_ranks, choice.engines.num_gpus
    both = [max(ranks, engines)] if choice.trainer.demand.colocated else [ranks, engines]
    return " + ".join(str(part) for part in [*both, choice.num_reward_gpus] if part)


def _price(row: IntervalRow) -> str:
    return f"{row.price_per_1000_steps:,.2f}"
