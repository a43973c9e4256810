"""Which objective has which term, and what of it cannot go together. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.config.reward_names import NOT_STANDARD, is_plugin
from rlstack.config.schema import CutOff, Objective, ObjectiveName, RunConfig

_WITH_PAIRS = (ObjectiveName.dpo, ObjectiveName.group_dpo, ObjectiveName.group_dpo_grpo)
_WITH_ADVANTAGES = (ObjectiveName.grpo, ObjectiveName.group_dpo_grpo)

# The settings that only some objectives read; the others refuse any value but the default.
_TERMS = {
    "nll_scale": _WITH_PAIRS,
    "kl_scale": _WITH_ADVANTAGES,
    "std_normalised": _WITH_ADVANTAGES,
    "clip_ratio_low": _WITH_ADVANTAGES,
    "clip_ratio_high": _WITH_ADVANTAGES,
    "tis_cap": _WITH_ADVANTAGES,
}


def objective_problems(objective: Objective) -> Iterator[str]:
    """What `objective` asks for in vain or twice, one line each."""
    if objective.loss is not None and not is_plugin(objective.loss):
        yield (
            f"objective.loss = {objective.loss}: null or package.module:attribute is accepted, "
            f"{NOT_STANDARD}, such as my_losses:ipo"
        )
    defaults = Objective()
    for key, names in _TERMS.items():
        value, default = getattr(objective, key), getattr(defaults, key)
        if value != default and objective.name not in names:
            yield (
                f"objective.{key} = {value}: {objective.name.value} has no such term; leave it at "
                f"{'null' if default is None else default} or set objective.name to {' or '.join(names)}"
            )
    clips = objective.clip_ratio_low is not None or objective.clip_ratio_high is not None
    if clips and objective.tis_cap is not None:
        yield (
            f"objective.tis_cap = {objective.tis_cap}: null is accepted with objective.clip_ratio_low or "
            "clip_ratio_high, for both weigh a token by its ratio to the generator; set one or the other"
        )


def cut_off_problems(config: RunConfig) -> Iterator[str]:
    """What the settings of objective.cut_off ask for in vain, one line each."""
    objective, defaults = config.objective, Objective()
    for key in ("cut_off_penalty", "cut_off_buffer_tokens"):
        value, default = getattr(objective, key), getattr(defaults, key)
        if value != default and objective.cut_off is not CutOff.penalty:
            yield (
                f"objective.{key} = {value}: objective.cut_off = {objective.cut_off.value} has no penalty; "
                f"leave it at {'null' if default is None else default} or set objective.cut_off to penalty"
            )
    buffer_tokens, limit_tokens = objective.cut_off_buffer_tokens, config.rollout.max_new_tokens
    if buffer_tokens is not None and buffer_tokens > limit_tokens:
        yield (
            f"objective.cut_off_buffer_tokens = {buffer_tokens}: at most {limit_tokens} is accepted, as "
            "rollout.max_new_tokens is; lower it"
        )
