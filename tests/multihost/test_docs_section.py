"""The commands of the docs for nodes of one's own work as pasted, on two hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.multihost.cluster import QUICKSTART, SHORT
from tests.multihost.documented import SSH, commands, ending, starting
from tests.multihost.hosts import SHARED, Hosts, address
from tests.run_files import Results, results_in

pytestmark = [pytest.mark.multihost, pytest.mark.thorough]


def paste(hosts: Hosts, host: int, text: str) -> str:
    """What the commands print, which all have to succeed; in the shared folder, with the stand-in for ssh."""
    path = f"/tmp/home/bin:{hosts.environment(host)['PATH']}"
    status, printed = hosts.on(host, text, env={"PATH": path}, folder=SHARED)
    assert status == 0, f"{text}\n{printed}"
    return printed


def test_it_works_as_pasted(tmp_path: Path, alone: Results) -> None:
    short = OmegaConf.from_dotlist([f"base={QUICKSTART}", "run.name=run", *SHORT])
    OmegaConf.save(short, tmp_path / "my-run.yaml")
    with Hosts(2, shared=tmp_path) as hosts:
        binaries = hosts.disk(1) / "home" / "bin"
        binaries.mkdir()
        (binaries / "ssh").write_text(SSH)
        (binaries / "ssh").chmod(0o755)
        paste(hosts, 1, commands().token)
        sent = SHARED / "ssh" / address(2)
        paste(hosts, 2, f"bash {sent}.command <{sent}.input")
        for host in hosts.all:
            paste(hosts, host, starting(host))
        printed = paste(hosts, 1, commands().run)
        assert address(2) in printed
        for host in reversed(hosts.all):
            paste(hosts, host, ending())
            assert hosts.space(host).processes() == []
            assert not [*hosts.disk(host).glob("ray*")]
    assert results_in(tmp_path / "run") == alone
