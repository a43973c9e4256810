"""Hosts of namespaces, to play with: they stay until `down`.

python -m tests.multihost up 2
python -m tests.multihost on 1 -- ip address
python -m tests.multihost cable 2 down
python -m tests.multihost down
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.multihost.hosts import ROOT, Hosts
from tests.multihost.spaces import missing


def main() -> int:
    given = parse()
    if (reason := missing()) is not None:
        print(reason, file=sys.stderr)
        return 2
    if given.command == "up":
        Hosts(given.count, folder=given.folder).up()
        return 0
    try:
        hosts = Hosts.at(given.folder)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    return act(hosts, given)


def act(hosts: Hosts, given: argparse.Namespace) -> int:
    """Do what the command line `given` stands for; its exit status."""
    match given.command:
        case "on":
            command = hosts.space(given.host).entering(given.words, folder=ROOT)
            return subprocess.call(command, env=hosts.environment(given.host))
        case "cable":
            hosts.cable(given.host, plugged=given.state == "up")
        case "rate":
            hosts.rate(given.host, given.mbit or None)
        case "firewall":
            first, _, last = given.ports.partition("-")
            hosts.firewall(given.host, (int(first), int(last or first)), closed=given.state == "closed")
        case "clock":
            hosts.skew_clock(given.host, given.skew_s)
        case "replace":
            hosts.replace(given.host, given.path, given.by)
        case "power":
            (hosts.power_on if given.state == "on" else hosts.power_off)(given.host)
        case "down":
            hosts.down()
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.multihost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Path(tempfile.gettempdir()) / "rlstack-hosts"
    parser.add_argument("--folder", type=Path, default=default, help="where the hosts' files lie")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start COUNT hosts, 10.77.0.1 ...")
    up.add_argument("count", type=int, nargs="?", default=2)
    commands.add_parser("down", help="end all of them; nothing is left")
    of_host = {
        "on": "run a command on a host",
        "cable": "pull or plug the cable of a host",
        "rate": "limit the cable of a host to so many Mbit/s; 0: no limit",
        "firewall": "drop what others send to ports of a host, such as 20000-20063",
        "clock": "put the clock of Pythons that start there forward by so many seconds",
        "replace": "let a host alone see a copy of BY at PATH",
        "power": "switch a host off or on",
    }
    own = {name: commands.add_parser(name, help=text) for name, text in of_host.items()}
    for each in own.values():
        each.add_argument("host", type=int)
    own["on"].add_argument("words", nargs="+", metavar="COMMAND")
    own["cable"].add_argument("state", choices=["up", "down"])
    own["rate"].add_argument("mbit", type=float)
    own["firewall"].add_argument("ports")
    own["firewall"].add_argument("state", choices=["closed", "open"])
    own["clock"].add_argument("skew_s", type=float)
    own["replace"].add_argument("path", type=Path)
    own["replace"].add_argument("by", type=Path)
    own["power"].add_argument("state", choices=["on", "off"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
