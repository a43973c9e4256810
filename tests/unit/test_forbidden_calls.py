"""What no module may do: run what it reads, or listen to everyone. SECURITY.md promises it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("rlstack", "kernels", "tools")
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "copyreg"}
# With the argument that makes the call safe, or None if nothing does.
CALLS: dict[str, tuple[str, object] | None] = {
    "torch.load": ("weights_only", True),
    "yaml.load": None,
    "yaml.load_all": None,
    "yaml.full_load": None,
    "yaml.unsafe_load": None,
    "pandas.read_pickle": None,
    "os.system": None,
    "os.popen": None,
    "tempfile.mktemp": None,
    "eval": None,
    "exec": None,
}
NEVER_TRUE = {"allow_pickle", "trust_remote_code", "shell"}
# Where code of the model's own would be run, unless it is said that it must not.
LOADERS = {
    "LLM",
    *(
        f"Auto{kind}.from_pretrained"
        for kind in ("Config", "Tokenizer", "ModelForCausalLM", "ModelForSequenceClassification")
    ),
}
# torch's collectives that unpickle what a stranger to the group may have sent.
OBJECTS = {
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
}
EVERYONE = {"0.0.0.0", "::", "*"}
EXCEPTIONS = {
    ("rlstack/tuning/planning/derivation.py", "eval"),  # of formulas that stand in the package
    ("rlstack/collectives.py", "pickle"),  # of whose writer it has proof
    ("rlstack/rewards/handover.py", "pickle"),  # of the user's own code, to processes of the run
    ("rlstack/rewards/handover.py", "cloudpickle"),
}


def modules() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def name_of(node: ast.expr) -> str:
    """a.b.c of a call's function; what is no name is a question mark."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def findings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [module] if module else [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in PICKLES)
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        if name.rpartition(".")[2] in OBJECTS:
            yield name
        if name in CALLS:
            safe = CALLS[name]
            if safe is None or given.get(safe[0]) != safe[1]:
                yield name
        yield from (f"{key}=True" for key in NEVER_TRUE if given.get(key) is True)
        if (
            any(name == loader or name.endswith(f".{loader}") for loader in LOADERS)
            and given.get("trust_remote_code") is not False
        ):
            yield f"{name} without trust_remote_code=False"
        if name.endswith(("bind", "TCPStore", "serve_store")):
            texts = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
            yield from (f"{name} to {text!r}" for text in texts if text in EVERYONE)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    found = [each for each in findings(path.read_text(encoding="utf-8")) if (place, each) not in EXCEPTIONS]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import cloudpickle.cloudpickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "AutoTokenizer.from_pretrained(folder)",
        "vllm.AutoConfig.from_pretrained(folder, trust_remote_code=True)",
        "LLM(folder)",
        "listener.bind(('0.0.0.0', 0))",
        "eval(text)",
        "dist.all_gather_object(found, own)",
        "broadcast_object_list(found)",
    ],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    [
        "import pickletools",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "numpy.load(path)",
        "AutoTokenizer.from_pretrained(folder, trust_remote_code=False)",
        "model.eval()",
        "load(folder).eval()",
        "read_object(path)",
        "listener.bind((host, 0))",
    ],
)
def test_what_is_allowed_is_not(source: str) -> None:
    assert list(findings(source)) == []
