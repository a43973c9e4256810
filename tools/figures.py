"""Draw the dynamics of runs as PNG files: python tools/figures.py RUN... --out FOLDER

RUN is a run's folder, such as runs/quickstart. Runs that differ only in run.name and run.seed become one
curve, the mean of the seeds in a band from the lowest to the highest. Prints the files it wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rlstack.errors import ConfigError
from rlstack.telemetry.curves import make_curves, read_run


def main() -> int:
    """0 if the figures were written, 2 if they cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the PNG files")
    parser.add_argument("--window", type=int, default=10, metavar="STEPS", help="lines are means over (10)")
    arguments = parser.parse_args()
    if arguments.window < 1:
        parser.error(f"--window {arguments.window}: 1 or more steps are accepted; 1 draws every step")
    try:
        write = figure_writer()
        curves = make_curves([read_run(folder) for folder in arguments.runs])
        written = write(curves, arguments.out, window=arguments.window)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*written, sep="\n")
    return 0


def figure_writer() -> Callable[..., list[Path]]:
    """`write_figures`, whose module needs matplotlib; raises ConfigError where that is not installed."""
    try:
        from rlstack.telemetry.figures import write_figures
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ConfigError(
            "matplotlib is not installed; install the extra: pip install -e '.[report]'"
        ) from None
    return write_figures


if __name__ == "__main__":
    sys.exit(main())
