"""Start a Ray as a run does, call it once, and end it: python -m rlstack.doctor.start_ray"""

from __future__ import annotations

from typing import Any

import ray

from rlstack.config.schema import Cluster
from rlstack.orchestration.ray_session import end_ray, start_ray, with_descendants

ANSWER_S = 60.0


def _answer() -> str:
    return "here"


def main() -> None:
    """Start one, call it, end it; raises what keeps it from that."""
    processes = start_ray(Cluster())
    try:
        remote: Any = ray.remote(num_cpus=0)
        ray.get(remote(_answer).remote(), timeout=ANSWER_S)
    finally:
        end_ray(with_descendants(processes))


if __name__ == "__main__":
    main()
