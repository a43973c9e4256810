"""Rooms import one way; nothing answers to the name `kernels`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (
    "errors",
    "files",
    "child_process",
    "user_code",
    "urls",
    "ports",
    "rendezvous",
    "collectives",
    "model",
    "config",
    "telemetry",
    "data",
    "checkpoint",
    "rewards",
    "credit",
    "losses",
    "transfer",
    "policy",
    "rollout",
    "orchestration",
    "preflight",
    "evaluation",
    "tuning",
    "train",
    "running",
    "session",
    "doctor",
    "cli",
)
STRANGERS = {("policy", "rollout"), ("rollout", "policy")}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def rooms_of(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported(path)]
    return {part[1] for part in parts if part[0] == "rlstack" and len(part) > 1 and part[1] in ROOMS}


def modules() -> list[Path]:
    return sorted((ROOT / "rlstack").rglob("*.py"))


def test_every_module_is_in_a_room() -> None:
    rooms = {path.relative_to(ROOT / "rlstack").parts[0].removesuffix(".py") for path in modules()}
    assert rooms <= {*ROOMS, "__init__"}


@pytest.mark.parametrize(
    "path",
    [
        path for path in modules() if path != ROOT / "rlstack" / "__init__.py"
    ],  # which lends names of all rooms
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / "rlstack").parts[0].removesuffix(".py")
    for other in rooms_of(path):
        assert ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {other}"
        assert (room, other) not in STRANGERS


@pytest.mark.parametrize(
    "path", sorted((ROOT / "kernels").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_kernels_import_only_torch_and_triton(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path)}
    chosen = {"liger_kernel"} if path.name == "liger_head.py" else set()  # where a call asks for it
    assert packages <= {"torch", "triton", "rlstack_kernels", *chosen, *sys.stdlib_module_names}


def test_kernels_is_not_a_package_of_ours() -> None:
    """transformers imports `kernels`, Hugging Face's, if there is one, and would execute ours instead."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    code = "import importlib.util as u; s = u.find_spec('kernels'); print(s.origin if s else None)"
    found = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert str(ROOT / "kernels") not in found.stdout
