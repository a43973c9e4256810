"""Limits of containers, as files in which both versions of control groups have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlstack.doctor.probes import cgroup


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "PROCESS", tmp_path / "process")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "root")
    return tmp_path


def write(groups: Path, process: str, **files: str) -> None:
    (groups / "process").write_text(process)
    for name, text in files.items():
        path = groups / "root" / name.replace("__", "/").replace("_of_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_version_2_in_a_group_of_its_own(groups: Path) -> None:
    write(
        groups,
        "0::/jobs/mine\n",
        jobs__mine__memory_of_max="1000",
        jobs__mine__memory_of_current="400",
        jobs__mine__cpu_of_max="150000 100000",
        jobs__pids_of_max="512",
    )
    assert cgroup.memory() == (1000, 400)
    assert cgroup.core_quota() == 1.5
    assert cgroup.process_limit() == 512


def test_version_2_without_limits(groups: Path) -> None:
    write(groups, "0::/\n", memory_of_max="max", cpu_of_max="max 100000", pids_of_max="max")
    assert (cgroup.memory(), cgroup.core_quota(), cgroup.process_limit()) == ((None, 0), None, None)


def test_version_1_whose_path_is_the_hosts(groups: Path) -> None:
    write(
        groups,
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n3:pids:/docker/abc\n0::/\n",
        memory__memory_of_limit_in_bytes="2000",
        memory__memory_of_usage_in_bytes="500",
        cpu__cpu_of_cfs_quota_us="50000",
        cpu__cpu_of_cfs_period_us="100000",
        pids__pids_of_max="max",
    )
    assert (cgroup.memory(), cgroup.core_quota(), cgroup.process_limit()) == ((2000, 500), 0.5, None)


def test_version_1_without_limits(groups: Path) -> None:
    write(
        groups,
        "4:memory:/\n2:cpu:/\n",
        memory__memory_of_limit_in_bytes="9223372036854771712",
        cpu__cpu_of_cfs_quota_us="-1",
        cpu__cpu_of_cfs_period_us="100000",
    )
    assert (cgroup.memory()[0], cgroup.core_quota()) == (None, None)


def test_no_control_groups(groups: Path) -> None:
    assert (cgroup.memory(), cgroup.core_quota(), cgroup.process_limit()) == ((None, 0), None, None)
