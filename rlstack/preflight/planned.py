"""A run that is planned: what the checks look at, and what they have read on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlstack.child_process import Process
from rlstack.config.machine import Machine
from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig

if TYPE_CHECKING:
    from rlstack.data.records import Prompt
    from rlstack.data.sampling import PromptSampler
    from rlstack.model.architecture import Architecture


@dataclass(kw_only=True)
class Planned:
    """The checks write what they read for the run; None until then."""

    config: RunConfig
    own: OwnCode
    resume: bool = False
    machine: Machine = field(default_factory=Machine.detect)
    architecture: Architecture | None = None  # of policy.model
    prompts: PromptSampler | None = None
    held_out: list[Prompt] | None = None
    children: list[Process] = field(default_factory=list)  # that checks have started, to be killed on Ctrl-C

    def read_prompts(self) -> tuple[PromptSampler, list[Prompt]]:
        """As data.load.load_prompts, once all checks have found nothing."""
        assert self.prompts is not None and self.held_out is not None, "the checks come first"
        return self.prompts, self.held_out
