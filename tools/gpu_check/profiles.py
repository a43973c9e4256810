"""The parts of the two profiles, in the order in which they run: the most telling ones first.

bare: for a machine with Python 3.12, torch with CUDA and Triton. full: for one with all that `make setup-gpu`
installs.
"""

from __future__ import annotations

from gpu_check.parts import Part

JOBS = "tools/gpu_check/jobs"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tools.gpu_check.tally", "--maxfail=20")
BENCHMARK = f"{JOBS}/kernel_benchmark.py"
# T, H, V: Llama-3.1-8B, its share of eight ranks, and Qwen2.5-7B.
SHAPES = ("8192,4096,128256", "8192,4096,16032", "8192,3584,152064")

LIMIT_S = {"bare": 530.0, "full": 4 * 3600.0}  # of all parts together


def bare() -> list[Part]:
    """NVML, NCCL, CUDA IPC and the kernels."""
    return [*_machine(), *_transfers(), *_kernels()]


def full() -> list[Part]:
    """Whole runs and their throughput; the kernels are the bare profile's."""
    return [*_machine(), *_runs(), _throughput()]


PROFILES = {"bare": bare, "full": full}


def _machine() -> list[Part]:
    return [
        Part(
            name="nvml",
            shows="power, use, memory and temperature by NVML",
            command=(f"{JOBS}/nvml.py",),
            limit_s=45.0,
        )
    ]


def _transfers() -> list[Part]:
    peers, transfer = f"{JOBS}/peers.py", f"{JOBS}/transfer.py"
    gloo = (peers, "--backend", "gloo", "--ranks", "2", "--mib", "16")
    return [
        Part(
            name="nccl-self",
            shows="NCCL from one GPU to itself",
            command=(peers, "--backend", "nccl", "--ranks", "1"),
            limit_s=90.0,
            dry=gloo,
        ),
        Part(
            name="nccl-transfer",
            shows="1 GiB of weights by NCCL, verified",
            command=(transfer, "--backend", "nccl", "--device", "cuda"),
            limit_s=90.0,
            num_gpus=2,
            dry=(transfer, "--backend", "gloo", "--device", "cpu", "--mib", "64"),
        ),
        Part(
            name="cuda-ipc",
            shows="1 GiB of weights by CUDA IPC, verified",
            command=(transfer, "--backend", "ipc", "--device", "cuda"),
            limit_s=90.0,
            dry=(transfer, "--backend", "ipc", "--device", "cpu", "--mib", "64"),
        ),
        Part(
            name="ipc-tests",
            shows="the tests of shared memory",
            command=(*PYTEST, "tests/distributed/test_ipc.py"),
            limit_s=60.0,
            dry=(*PYTEST, "tests/distributed/test_ipc.py"),
        ),
    ]


def _kernels() -> list[Part]:
    values = "tests/kernels/test_values.py", "tests/kernels/test_modes.py"
    small = ("--device", "cpu", "--rounds", "1", "--shapes", "128,64,1000", "--only", "rlstack logits")
    return [
        Part(
            name="kernels-large",
            shows="logprobs of real sizes in Triton, values, gradients and memory",
            command=(*PYTEST, "--noconftest", "tests/gpu/test_kernels.py"),
            limit_s=120.0,
        ),
        Part(
            name="kernel-benchmark",
            shows="the kernels' times",
            command=(BENCHMARK, "{out}", "--device", "cuda", "--shapes", *SHAPES),
            limit_s=200.0,
            dry=(BENCHMARK, "{out}", *small),
        ),
        Part(
            name="kernels",
            shows="the kernels' tests",
            command=(*PYTEST, "-n", "{workers}", "tests/kernels"),
            limit_s=300.0,
            dry=(*PYTEST, "-k", "shape0 or save", *values),
        ),
    ]


def _runs() -> list[Part]:
    job = f"{JOBS}/training_run.py"
    colocated = ("cluster.placement=colocated", "rollout.overlap=false", "rollout.gpu_memory_fraction=0.3")
    bf16, fp8 = ("policy.precision=bf16",), ("policy.precision=fp8", "rollout.precision=fp8")
    return [
        Part(
            name="colocated-bf16",
            shows="the quickstart in BF16, policy and engine on one GPU",
            command=(job, *bf16, *colocated),
            limit_s=1800.0,
            dry=(job, "--steps", "4", "cluster.placement=colocated", "rollout.overlap=false"),
        ),
        Part(
            name="split-bf16",
            shows="the quickstart in BF16, policy and engine on GPUs of their own",
            command=(job, *bf16, "cluster.placement=split", "transfer.channel=network"),
            limit_s=1800.0,
            num_gpus=2,
            dry=(job, "--steps", "4", "cluster.placement=split", "transfer.channel=network"),
        ),
        Part(
            name="colocated-fp8",
            shows="the quickstart with policy and engine in FP8",
            command=(job, "--model", "wide", *fp8, *colocated),
            limit_s=1800.0,
        ),
        Part(
            name="resume",
            shows="a run resumed from its checkpoint",
            command=(job, "--steps", "8", "--resume-after", "4", *bf16, *colocated),
            limit_s=1200.0,
            dry=(job, "--steps", "4", "--resume-after", "2"),
        ),
    ]


def _throughput() -> Part:
    job = f"{JOBS}/throughput_8b.py"
    return Part(
        name="throughput-8b",
        shows="tokens per second with Llama-3.1-8B's layers",
        command=(job, "{out}", "--layers", "8"),
        limit_s=3600.0,
        dry=(job, "{out}", "--dry-run"),
    )
