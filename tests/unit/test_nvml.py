"""What is made of NVML's figures; NVML itself is played, since there may be no GPU."""

import time
from types import SimpleNamespace

import pytest

from rlstack.telemetry import nvml
from rlstack.telemetry.energy import GpuUse, gpu_use, joules
from rlstack.telemetry.nvml import GpuSampler, NvmlError, Sample


class FakeNvml:
    """Two GPUs; the second does not tell its power."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, count: int = 2, driver: bool = True) -> None:
        self.count, self.driver = count, driver

    def nvmlInit(self):
        if not self.driver:
            raise NvmlError(9)

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetCount(self):
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index):
        return f"GPU-{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if not uuid.startswith("GPU-"):
            raise NvmlError(6)
        return uuid

    def nvmlDeviceGetPowerUsage(self, handle):
        if handle == "GPU-1":
            raise NvmlError(3)
        return 350_000  # mW

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=80)

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=3 * 2**30)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 61


@pytest.fixture(autouse=True)
def played(monkeypatch):
    monkeypatch.setattr(nvml, "pynvml", FakeNvml())
    nvml.take()


def sample(time_s, power_w, gpu="0", **others):
    known = {"use": 0.5, "memory_gib": 2.0, "temperature_c": 50.0} | others
    return Sample(role="engine 0", gpu=gpu, time_s=time_s, power_w=power_w, **known)


def test_a_sample_has_the_units_of_its_names_and_none_for_what_a_gpu_does_not_tell():
    GpuSampler("policy rank 0", ["0", "GPU-1"]).sample()
    first, second = nvml.take()
    assert first[:2] == ("policy rank 0", "0")
    assert first[3:] == (350.0, 0.8, 3.0, 61.0)
    assert second[3:] == (None, 0.8, 3.0, 61.0)
    assert nvml.take() == []


def test_a_sampler_samples_until_it_is_stopped():
    sampler = GpuSampler("engine 0", ["0"], every_s=0.001)
    sampler.start()
    deadline = time.monotonic() + 10
    samples = []
    while len(samples) < 3 and time.monotonic() < deadline:
        samples += nvml.take()
    sampler.stop()
    times = [each.time_s for each in samples]
    assert len(times) >= 3 and times == sorted(times)
    nvml.take()
    assert nvml.take() == []


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(NvmlError, match="Not Found"):
        GpuSampler("engine 0", ["MIG-none"])


@pytest.mark.parametrize(
    ("machine", "why"),
    [(FakeNvml(), None), (FakeNvml(count=0), "no GPU"), (FakeNvml(driver=False), "Driver Not Loaded")],
)
def test_it_is_known_why_there_is_nothing_to_sample(monkeypatch, machine, why):
    monkeypatch.setattr(nvml, "pynvml", machine)
    assert nvml.missing() == why


def test_energy_is_the_area_below_the_power():
    ramp = [sample(10.0, 100.0), sample(12.0, 300.0)]
    assert joules(ramp, 10, 12) == pytest.approx(400)
    assert joules(ramp, 11, 12) == pytest.approx(250)
    assert joules(ramp, 8, 10) == pytest.approx(200)  # as before the first sample
    assert joules(ramp, 12, 15) == pytest.approx(900)
    assert joules(ramp, 9, 13) == pytest.approx(joules(ramp, 9, 10.5) + joules(ramp, 10.5, 13))
    assert joules(list(reversed(ramp)), 10, 12) == pytest.approx(400)


def test_without_power_or_time_there_is_no_energy():
    assert joules([], 0, 1) is None
    assert joules([sample(0.0, None)], 0, 1) is None
    assert joules([sample(0.0, 100.0)], 1, 1) is None


def test_the_gpus_of_a_role_count_together():
    samples = [
        sample(1.0, 100.0, use=0.2, memory_gib=1.0, temperature_c=40.0),
        sample(1.0, 300.0, gpu="1", use=0.6, memory_gib=5.0, temperature_c=70.0),
        sample(9.0, 300.0, gpu="1", use=1.0, memory_gib=9.0, temperature_c=90.0),
    ]
    assert gpu_use(samples, 0, 2) == GpuUse(pytest.approx(800), pytest.approx(0.4), 5.0, 70.0)
    assert gpu_use([], 0, 2) == GpuUse(None, None, None, None)
