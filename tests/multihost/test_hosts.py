"""The hosts themselves: what is done to them has the effect that it stands for, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.multihost.hosts import ROOT, Hosts, address, end
from tests.multihost.spaces import Space

pytestmark = [pytest.mark.multihost, pytest.mark.slow]

LISTEN = """
import socket, sys, threading
for port in map(int, sys.argv[1:]):
    server = socket.create_server(("0.0.0.0", port))
    threading.Thread(target=lambda server: [server.accept() for _ in iter(int, 1)], args=[server]).start()
print("listening", flush=True)
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Hosts(2, shared=tmp_path) as hosts:
        yield hosts


@pytest.fixture
def listening(hosts: Hosts, tmp_path: Path) -> Iterator[None]:
    """Ports 20001 and 20100 of host 1."""
    log = tmp_path / "listener.log"
    process = hosts.start(1, ["python", "-c", LISTEN, "20001", "20100"], log=log)
    while "listening" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield
    end(process)


def connecting(hosts: Hosts, port: int, *, host: int = 2) -> str:
    status, text = hosts.on(host, ["python", "-c", CONNECT, address(1), str(port)])
    assert status == 0, text
    return text.strip()


def wait_until_connected(hosts: Hosts) -> None:
    """A link that has just come up takes a moment, and so does the address of what is behind it."""
    deadline = time.monotonic() + 30
    while (found := connecting(hosts, 20001)) != "connected":
        assert time.monotonic() < deadline, found


def namespaces() -> set[str]:
    done = subprocess.run(["lsns", "--noheadings", "--output", "NS"], capture_output=True, text=True)
    return set(done.stdout.split())


def links() -> set[str]:
    return set(psutil.net_if_addrs()) | set(psutil.net_if_stats())


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaces, interfaces = namespaces(), links()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Hosts(2, shared=tmp_path) as hosts:
        process = hosts.start(2, "setsid sleep 1000 & sleep 1000", log=tmp_path / "log")
        inside = [*hosts.space(1).processes(), *hosts.space(2).processes()]
        made = namespaces() - spaces
        assert len(made) >= 3 * 5
        folder = hosts.folder
    assert process.wait(10) != 0
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in inside)
    assert not namespaces() & made and links() == interfaces
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert [*tmp_path.iterdir()] == [tmp_path / "log"]


def test_each_is_a_machine_of_its_own(hosts: Hosts, tmp_path: Path) -> None:
    for host in hosts.all:
        status, text = hosts.on(host, f"hostname; hostname --ip-address; echo {host} >/tmp/mine; ls /dev/shm")
        assert (status, text.split()) == (0, [f"node{host}", address(host)])
        (hosts.disk(host) / "mine").read_text()
        hosts.on(host, f"echo {host} >>/tmp/shared/ours")
    assert (tmp_path / "ours").read_text() == "1\n2\n"
    assert hosts.on(1, "cat /tmp/mine")[1] == "1\n"
    process = hosts.start(2, "exec sleep 1000", log=tmp_path / "log")
    seen = [hosts.on(host, ["ps", "-e", "-o", "comm="])[1].split().count("sleep") for host in hosts.all]
    assert seen == [0, 1]
    end(process)


@pytest.mark.usefixtures("listening")
def test_a_cable_is_pulled_and_plugged(hosts: Hosts) -> None:
    assert connecting(hosts, 20001) == "connected"
    hosts.cable(2, plugged=False)
    assert connecting(hosts, 20001) in ("TimeoutError", "OSError")
    assert connecting(hosts, 20001, host=1) == "connected"
    hosts.cable(2, plugged=True)
    wait_until_connected(hosts)


@pytest.mark.usefixtures("listening")
def test_a_firewall_drops_its_ports_in_silence(hosts: Hosts) -> None:
    hosts.firewall(1, (20000, 20063))
    assert connecting(hosts, 20001) == "TimeoutError"
    assert connecting(hosts, 20100) == connecting(hosts, 20001, host=1) == "connected"
    hosts.firewall(1, (20000, 20063), closed=False)
    assert connecting(hosts, 20001) == "connected"


@pytest.mark.usefixtures("listening")
def test_a_host_that_was_switched_off_comes_back(hosts: Hosts) -> None:
    assert hosts.on(2, "echo kept >/tmp/file")[0] == 0
    hosts.power_off(2)
    assert not hosts.space(2).is_there
    hosts.power_on(2)
    wait_until_connected(hosts)
    assert hosts.on(2, "cat /tmp/file") == (0, "kept\n")


def test_a_clock_is_wrong_for_python(hosts: Hosts) -> None:
    hosts.skew_clock(2, -3600.0)
    read = ["python", "-c", "import time; print(time.time(), time.time_ns() / 1e9)"]
    right, wrong = ([float(word) for word in hosts.on(host, read)[1].split()] for host in hosts.all)
    assert all(abs(first - second - 3600) < 600 for first, second in zip(right, wrong, strict=True))


def test_a_file_is_another_one_on_one_host(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("ours\n")
    other = tmp_path / "other"
    other.write_text("own\n")
    hosts.replace(2, Path("/tmp/shared/file"), other)
    assert [hosts.on(host, "cat /tmp/shared/file")[1] for host in hosts.all] == ["ours\n", "own\n"]
    assert (tmp_path / "file").read_text() == "ours\n"


def test_they_end_with_the_process_that_has_made_them(tmp_path: Path) -> None:
    code = """
import os, signal, sys, tempfile
from pathlib import Path
from tests.multihost.hosts import Hosts
tempfile.tempdir = sys.argv[1]
hosts = Hosts(1)
hosts.up()
print(hosts.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    spaces = [Space.read(path) for path in Path(done.stdout.strip()).glob("*.json")]
    assert len(spaces) == 2, done.stderr
    deadline = time.monotonic() + 10
    while any(space.is_there for space in spaces):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


def test_a_person_makes_hosts_that_stay(tmp_path: Path) -> None:
    def command(*words: str) -> str:
        given = [sys.executable, "-m", "tests.multihost", "--folder", str(tmp_path / "h"), *words]
        done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("up", "2")
    try:
        assert command("on", "2", "hostname") == "node2\n"
        command("cable", "1", "down")
        assert "NO-CARRIER" in command("on", "1", "--", "ip", "link", "show", "eth0")
        command("cable", "1", "up")
        command("rate", "1", "50")
        assert "tbf" in command("on", "1", "tc", "qdisc", "show", "dev", "eth0")
        command("power", "2", "off")
        assert not Hosts.at(tmp_path / "h").space(2).is_there
    finally:
        command("down")
    assert [*tmp_path.iterdir()] == []
