"""`rlstack` with its roles under watch: `python -m tests.faults.driver train CONFIG ...`."""

from __future__ import annotations

from rlstack.cli import main
from tests.faults.faults import Role
from tests.faults.roles import watch_roles
from tests.faults.strike import watch

if __name__ == "__main__":
    watch(Role.driver)
    watch_roles()
    main()
