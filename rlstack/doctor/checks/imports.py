"""Whether what a run imports can be imported."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlstack.doctor.checks.remedies import set_up
from rlstack.doctor.facts import Facts, Imported
from rlstack.doctor.finding import Verdict, ok, problem

# A crash in native code: the processor lacks an instruction, or a library was built against another one.
NATIVE = {
    "SIGILL": "a wheel was built for a newer processor: take another machine, or build it on this one",
    "SIGKILL": "memory ran out, or somebody ended it: dmesg | tail",
}

STATEMENTS = {
    "import-torch": "import torch",
    "import-triton": "import triton",
    "import-ray": "import ray",
    "import-math-verify": "import omegaconf, math_verify",
    "import-megatron": "import megatron.core",
    "import-transformers": "from transformers import LlamaForCausalLM",
    "import-vllm": "from vllm.model_executor.models.llama import LlamaForCausalLM",
}
GPU_STATEMENTS = {"import-transformer-engine": "import transformer_engine.pytorch"}


def statements(*, has_gpus: bool) -> dict[str, str]:
    """What a run on such a machine imports, by the name of the check."""
    return STATEMENTS | GPU_STATEMENTS if has_gpus else STATEMENTS


def imported(name: str, facts: Facts) -> Iterator[Verdict]:
    """How the import called `name` ended, in a process of its own."""
    for found in facts.imports:
        if found.name == name:
            yield _verdict(found, facts)


def _verdict(found: Imported, facts: Facts) -> Verdict:
    failed = f"`{found.statement}`"
    if found.timed_out:
        return problem(
            f"{failed} had not ended after {found.seconds:.0f} s",
            "give it longer if the disk is slow: --timeout 600; otherwise py-spy shows where it waits",
        )
    if found.signal is not None:
        remedy = NATIVE.get(found.signal, f"packages that do not go together: {set_up(facts)}")
        return problem(f"{failed} died of {found.signal}", remedy)
    module = re.findall(r"\w+", found.statement)[1]
    if found.error == f"ModuleNotFoundError: No module named {module!r}":
        return problem("not installed", set_up(facts))
    if found.error is not None:
        return problem(f"{failed}: {found.error}", f"see to the packages above first, then {set_up(facts)}")
    return ok(f"{found.seconds:.1f} s")
