"""What is raised where the driver waits for a role, and which of it another process could put right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlstack.errors import UserCodeError

if TYPE_CHECKING:
    from rlstack.orchestration.roles import Role


class RoleError(RuntimeError):
    """What a role was asked for did not come, or not as it should; the message says from whom, and why.

    As such, the same would happen to another process in the role's place.
    """


class UserCodeFailed(RoleError, UserCodeError):
    """Code of the user's own has raised an exception in a role."""


class NodeLost(RoleError):
    """A node was lost, and no other one can take what was there."""


class RoleLost(RoleError):
    """A role died, failed or did not answer in time; another process in its place may do better."""

    def __init__(
        self, message: str, *, role: Role, is_late: bool = False, exception: str | None = None
    ) -> None:
        super().__init__(message)
        self.role = role
        self.is_late = is_late  # it has not answered, but may still be there
        self.exception = exception  # of Python, which may come again; None: the process was lost

    @property
    def reason(self) -> str:
        """In one line: what was asked for, and what became of the role."""
        return str(self).partition("\n")[0]


class EngineLost(RoleLost):
    """An engine was lost."""


class RewardModelLost(RoleLost):
    """A copy of a reward model was lost."""


class BackToCheckpoint(RoleLost):
    """What was lost is nowhere else: the run can only go on from its newest checkpoint."""


class PolicyLost(BackToCheckpoint):
    """A rank of the policy was lost."""


class OlderVersionLost(BackToCheckpoint):
    """An engine was lost with rollouts still to sample of a version that nobody holds any more."""
