"""A cluster that is not there is said so at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray._private import worker

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.loopback import LOOPBACK
from rlstack.orchestration.ray_session import end_started, start_ray, text_to, with_descendants


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "127.0.0.1:x"])
def test_an_address_where_no_cluster_is_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster.address = {address}: the address of a"):
        start_ray(Cluster(address=address))


def test_what_ray_says_goes_to_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)

    with text_to(tmp_path / "logs" / "ray.log"):
        say("A worker died: OOM, SIGSEGV")
        say("or another reason")
    assert capfd.readouterr().out == ""
    assert (tmp_path / "logs" / "ray.log").read_text() == "A worker died: OOM, SIGSEGV\nor another reason\n"
    say("said to whoever uses Ray besides")
    assert "besides" in capfd.readouterr().out


@pytest.mark.slow
def test_a_run_starts_its_own_ray_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    processes = start_ray(Cluster())
    try:
        assert processes
        assert ray.util.get_node_ip_address() == LOOPBACK
    finally:
        ray.shutdown()
        end_started(with_descendants(processes), timeout_s=2.0)
