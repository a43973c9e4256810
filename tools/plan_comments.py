"""Write the memory plan of each config's own layout to its end, where an earlier one is replaced.

python tools/plan_comments.py configs/clusters/*.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rlstack.tuning.planning.comment import comment_lines, with_comment
from rlstack.tuning.planning.report import configured
from rlstack.tuning.planning.request import make_demand


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path)
    for path in parser.parse_args().configs:
        _, demand = make_demand(path, (), gpu="h200", assume=(), intervals="1,5,10,50,inf")
        path.write_text(with_comment(path.read_text(), comment_lines(configured(demand))))


if __name__ == "__main__":
    main()
