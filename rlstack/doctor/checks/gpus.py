"""GPUs and their driver. Not yet run on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rlstack.doctor.facts import Facts, Gpu, Version
from rlstack.doctor.finding import Verdict, note, ok, problem

LEAST_FREE_SHARE = 0.85  # of a GPU: the default of rollout.gpu_memory_fraction


def driver(facts: Facts) -> Iterator[Verdict]:
    """Whether the driver answers, and which GPUs there are."""
    found = facts.gpus
    if found.gpus:
        kinds = Counter((gpu.name, round(gpu.memory_gib)) for gpu in found.gpus)
        names = ", ".join(f"{count} x {name} of {gib} GiB" for (name, gib), count in kinds.items())
        cuda = f", CUDA {_show(found.driver_cuda)}" if found.driver_cuda else ""
        yield ok(f"{names}; driver {found.driver}{cuda}")
    elif found.num_devices:
        yield problem(
            f"{found.num_devices} on the PCI bus, and no driver answers ({found.nvml_error})",
            "install NVIDIA's driver, or start the container with --gpus all",
        )
    else:
        yield ok("none: policy and engines run on CPU")


def hidden(facts: Facts) -> Iterator[Verdict]:
    """GPUs that CUDA_VISIBLE_DEVICES hides from the processes of a run."""
    value = facts.environment.visible_gpus
    if value is None or not facts.gpus.gpus:
        return
    num_gpus = len(facts.gpus.gpus)
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    if not entries or entries[0] == "-1":
        yield problem(
            f"CUDA_VISIBLE_DEVICES={value!r} hides all {num_gpus} GPUs", "unset CUDA_VISIBLE_DEVICES"
        )
    elif wrong := [entry for entry in entries if entry.isdecimal() and int(entry) >= num_gpus]:
        yield problem(
            f"CUDA_VISIBLE_DEVICES={value!r} names GPU {wrong[0]}, and the last one is {num_gpus - 1}",
            "unset CUDA_VISIBLE_DEVICES",
        )
    else:
        yield ok(f"CUDA_VISIBLE_DEVICES={value} leaves {len(entries)} of {num_gpus}")


def cuda_version(facts: Facts) -> Iterator[Verdict]:
    """The driver's CUDA against that of torch's build."""
    torch, driver = facts.packages.torch, facts.gpus.driver_cuda
    if torch is None or torch.cuda is None or driver is None:
        return
    major = int(torch.cuda.split(".")[0])
    if major > driver[0]:
        yield problem(
            f"torch was built for CUDA {torch.cuda}, and the driver supports up to {_show(driver)}",
            f"install a newer driver, or a torch for CUDA {driver[0]}",
        )
    else:
        yield ok(f"torch's {torch.cuda}, driver's {_show(driver)}")


def memory(facts: Facts) -> Iterator[Verdict]:
    """GPUs whose memory other processes hold."""
    found = facts.gpus.gpus
    problems = [verdict for i, gpu in enumerate(found) for verdict in _memory_problems(i, gpu)]
    yield from problems
    if found and not problems:
        yield ok(f"at least {min(gpu.free_gib for gpu in found):.0f} GiB are free on each")


def _memory_problems(i: int, gpu: Gpu) -> Iterator[Verdict]:
    if gpu.uncorrected_errors:
        yield problem(
            f"GPU {i}: {gpu.uncorrected_errors} memory errors that could not be corrected",
            f"nvidia-smi -q -i {i} -d ECC,PAGE_RETIREMENT; leave it out with CUDA_VISIBLE_DEVICES",
        )
    if gpu.free_gib < LEAST_FREE_SHARE * gpu.memory_gib:
        pids = " ".join(map(str, gpu.processes))
        yield problem(
            f"GPU {i}: {gpu.free_gib:.0f} GiB free of {gpu.memory_gib:.0f}; engines take "
            f"{LEAST_FREE_SHARE:.0%} (rollout.gpu_memory_fraction)",
            f"see what is on it: ps -fp {pids}" if pids else "nvidia-smi shows what is on it",
        )


def use(facts: Facts) -> Iterator[Verdict]:
    """What torch itself makes of them."""
    found = facts.gpus.use
    if found is None:
        return
    if found.error is not None or found.num_gpus == 0:
        yield problem(
            f"torch finds none: {found.error or 'no error is given'}", "see torch-build and gpus-hidden"
        )
    elif found.apart:
        pairs = ", ".join(f"{i} and {j}" for i, j in found.apart[:4])
        yield note(
            f"NCCL {found.nccl}; GPUs {pairs} do not reach each other's memory, but through the host's",
            "nvidia-smi topo -p2p r says why; virtual machines and IOMMU are the usual reasons",
        )
    else:
        yield ok(f"torch uses {found.num_gpus}; NCCL {found.nccl}")


def _show(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
