"""Parts of a training step on the timeline, through the timers that megatron-core's schedules call.

Sending to and receiving from another pipeline stage is a wait for it, the pipeline bubble. On a GPU kernels
run after they were launched: what is under way is waited for before such a wait is timed, as it would be in
the exchange anyway, and forward and backward are told apart only as far as their launches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from rlstack.policy.backend import on_gpu
from rlstack.telemetry.timeline import span

PIPELINE_BUBBLE = "pipeline_bubble"
_COMPUTE = {"forward-compute": "forward", "backward-compute": "backward", "all-grads-sync": "gradients"}


class StepTimers:
    """Goes into a model's `config.timers`, in place of a megatron.core.timers.Timers."""

    def __init__(self) -> None:
        self.times_compute = True  # False: what the passes are for is said around them
        self._exchange = _Timer("exchange", reason=PIPELINE_BUBBLE)
        self._compute = {name: _Timer(phase) for name, phase in _COMPUTE.items()}
        self._untimed = _Untimed()

    def __call__(self, name: str, log_level: int | None = None) -> _Timer | _Untimed:
        """The timer that upstream calls `name`; it is started and stopped in turn."""
        if name.endswith(("-send", "-recv")):
            return self._exchange
        return self._compute.get(name, self._untimed) if self.times_compute else self._untimed


def as_wait(finalize: Callable[..., object]) -> Callable[..., object]:
    """`finalize_model_grads` of a pipeline: apart from "gradients" it waits for what other stages send."""

    @wraps(finalize)
    def timed(*args: Any, **kwargs: Any) -> None:
        with span("exchange", reason=PIPELINE_BUBBLE):
            finalize(*args, **kwargs)

    return timed


def settled_s() -> float:
    """The time in seconds, from any moment on, once nothing is under way on this rank's GPU."""
    if on_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


class _Timer:
    def __init__(self, phase: str, *, reason: str | None = None) -> None:
        self._span = span(phase, reason=reason)
        self._is_wait = reason is not None

    def start(self, barrier: bool = False) -> None:
        if self._is_wait and on_gpu():
            torch.cuda.synchronize()
        self._span.__enter__()

    def stop(self, barrier: bool = False) -> None:
        self._span.__exit__(None, None, None)


class _Untimed:
    def start(self, barrier: bool = False) -> None: ...

    def stop(self, barrier: bool = False) -> None: ...
