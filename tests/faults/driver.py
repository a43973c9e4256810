"""`rlstack` with its roles under watch: `python -m tests.faults.driver train CONFIG ...`."""

from __future__ import annotations

from rlstack.cli import main
from tests.faults.roles import watch_driver

if __name__ == "__main__":
    watch_driver()
    main()
