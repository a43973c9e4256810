"""NVIDIA GPUs: from the PCI bus, from NVML, and as torch sees them. Not yet run on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlstack.child_process import last_json, last_line, run
from rlstack.doctor.facts import CudaUse, Gpu, Gpus

GIB = 2**30
NVIDIA = "0x10de"
DISPLAY = ("0x0300", "0x0302")  # classes of PCI: display controllers, with and without an output
ASK_TORCH = """
import json, torch
n = torch.cuda.device_count()
reach = torch.cuda.can_device_access_peer
print(json.dumps({
    "num_gpus": n,
    "nccl": ".".join(map(str, torch.cuda.nccl.version())) if n else None,
    "apart": [(i, j) for i in range(n) for j in range(n) if i < j and not (reach(i, j) and reach(j, i))],
}))
"""


def look(*, torch_within_s: float | None) -> Gpus:
    """torch_within_s: the limit of asking torch, which is done where there are GPUs; None: not at all."""
    num_devices = _num_devices()
    try:
        import pynvml
    except ImportError as error:
        return Gpus(num_devices=num_devices, nvml_error=str(error))
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus(num_devices=num_devices, nvml_error=str(error))
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return Gpus(
            gpus=tuple(_gpu(pynvml, handle) for handle in handles),
            driver=pynvml.nvmlSystemGetDriverVersion(),
            driver_cuda=(cuda // 1000, cuda % 1000 // 10),
            num_devices=max(num_devices, len(handles)),
            use=None if torch_within_s is None or not handles else _ask_torch(torch_within_s),
        )
    except pynvml.NVMLError as error:
        return Gpus(num_devices=num_devices, nvml_error=str(error))
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        name=nvml.nvmlDeviceGetName(handle),
        memory_gib=memory.total / GIB,
        free_gib=memory.free / GIB,
        processes=tuple(process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        uncorrected_errors=_uncorrected_errors(nvml, handle),
    )


def _uncorrected_errors(nvml: Any, handle: Any) -> int:
    try:
        return int(
            nvml.nvmlDeviceGetTotalEccErrors(
                handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            )
        )
    except nvml.NVMLError:  # memory without such a code
        return 0


def _num_devices() -> int:
    found = 0
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor = (device / "vendor").read_text(encoding="utf-8").strip()
            kind = (device / "class").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        found += vendor == NVIDIA and kind.startswith(DISPLAY)
    return found


def _ask_torch(limit_s: float) -> CudaUse:
    done = run(["-c", ASK_TORCH], limit_s=limit_s)
    if done is None:
        return CudaUse(error=f"torch did not answer within {limit_s:g} s")
    answer: Any = last_json(done.stdout)
    if done.returncode or answer is None:
        return CudaUse(error=last_line(done.stderr) or f"exit status {done.returncode}")
    apart = tuple((int(i), int(j)) for i, j in answer["apart"])
    return CudaUse(num_gpus=answer["num_gpus"], nccl=answer["nccl"], apart=apart)
