"""`rlstack` with its roles held at moments: `python -m tests.multihost.driver launch CONFIG ...`."""

from __future__ import annotations

from rlstack.cli import main
from tests.multihost.moments import hold_roles

if __name__ == "__main__":
    hold_roles()
    main()
