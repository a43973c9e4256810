"""Environment variables that say on how many threads, and on which cores, a process computes."""

from __future__ import annotations

from collections.abc import MutableMapping

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
BINDINGS = (
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_HW_SUBSET",
    "MKL_DOMAIN_NUM_THREADS",
    "OMP_DYNAMIC",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
)


def compute_on_one_thread(variables: MutableMapping[str, str]) -> None:
    """Have libraries that read `variables` when they are loaded compute on one thread, on any core.

    A role on the CPU computes so, whatever a container, a module file or a launcher says. A thread that torch
    makes later takes the number that it read then, and vLLM's attention on the CPU ends the process where two
    threads differ (csrc/cpu/cpu_attn_impl.hpp, thread_num).
    """
    variables.update(ONE_THREAD)
    unbind_threads(variables)


def unbind_threads(variables: MutableMapping[str, str]) -> None:
    """Take out of `variables` what binds threads to cores, before torch is imported.

    OpenMP binds a process's main thread when it is loaded, and every process that it starts then inherits
    this one core: all roles of a run would share it.
    """
    for name in BINDINGS:
        variables.pop(name, None)
