"""Power, use, memory and temperature of the GPUs that a role holds, from NVML.

Every process with GPUs samples its own in a thread; the samples travel to the driver as the timeline's spans
do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pynvml
from pynvml import NVMLError as NvmlError

from rlstack.telemetry import timeline

SAMPLE_EVERY_S = 0.5
MAX_SAMPLES = 200_000  # that wait to be taken in a process; the oldest are lost beyond it

_samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)


class Sample(NamedTuple):
    """One GPU at one moment; None where the GPU does not tell."""

    role: str
    gpu: str  # as CUDA_VISIBLE_DEVICES names it: an index or a UUID
    time_s: float  # on the run's clock
    power_w: float | None
    use: float | None  # share of the time since NVML's last sample in which a kernel ran
    memory_gib: float | None  # of all processes on it
    temperature_c: float | None


class GpuSampler:
    """Samples from start() to stop()."""

    def __init__(self, role: str, gpus: Sequence[str], *, every_s: float = SAMPLE_EVERY_S) -> None:
        """Raises NvmlError if a GPU cannot be found."""
        pynvml.nvmlInit()
        self._role = role
        self._handles = {gpu: _handle(gpu) for gpu in gpus}
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="GPU sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def sample(self) -> None:
        """Note how the GPUs are now."""
        _samples.extend(_sample_of(self._role, gpu, handle) for gpu, handle in self._handles.items())

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self.sample()


def missing() -> str | None:
    """Why this machine has nothing to sample; None if it has."""
    try:
        pynvml.nvmlInit()
    except NvmlError as error:
        return str(error)
    try:
        return None if pynvml.nvmlDeviceGetCount() else "no GPU"
    finally:
        pynvml.nvmlShutdown()


def add(samples: Iterable[Sample]) -> None:
    """Keep samples of another process."""
    _samples.extend(samples)


def take() -> list[Sample]:
    """The samples since the last call; each is taken once."""
    return [_samples.popleft() for _ in range(len(_samples))]


def _handle(gpu: str) -> Any:
    """NVML counts in the order of the bus, as CUDA does among GPUs of one kind."""
    if gpu.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
    return pynvml.nvmlDeviceGetHandleByUUID(gpu)


def _sample_of(role: str, gpu: str, handle: Any) -> Sample:
    return Sample(
        role=role,
        gpu=gpu,
        time_s=timeline.now_s(),
        power_w=_asked(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
        use=_asked(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        memory_gib=_asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used / 2**30),
        temperature_c=_asked(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
    )


def _asked(question: Callable[[], float]) -> float | None:
    try:
        return float(question())
    except NvmlError:  # what this kind of GPU does not tell
        return None
