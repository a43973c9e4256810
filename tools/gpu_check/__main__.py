"""Start the command: python tools/gpu_check pack | run."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from gpu_check.command import main  # noqa: E402

main()
