"""Join a Ray cluster and leave it again: `python -P -m rlstack.preflight.join_cluster ADDRESS`.

Its last line on standard output is a JSON object: {"problem": str | null}.
"""

from __future__ import annotations

import json
import os
import sys

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.ray_session import end_ray, start_ray


def main(address: str) -> None:
    """Print what keeps this machine from the cluster at `address`."""
    problem = None
    try:
        start_ray(Cluster(address=address))
        end_ray([])
    except ConfigError as error:
        problem = str(error)
    print(json.dumps({"problem": problem}), flush=True)
    os._exit(0)  # whatever threads Ray has left


if __name__ == "__main__":
    main(sys.argv[1])
