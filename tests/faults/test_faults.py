"""A few faults in real runs; `python -m tests.faults` tries all of them."""

import pytest

from tests.faults.faults import Action, Fault, Phase, Role
from tests.faults.results import tried

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

FAULTS = [
    Fault(Role.engine, Phase.sync_lands, Action.kill),
    Fault(Role.driver, Phase.writing, Action.kill),
    Fault(Role.policy_1, Phase.optimizer_step, Action.kill),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The undisturbed run is there from the first fault on."""
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault, runs):
    result = tried(fault, runs)
    assert result["survived"], result["problems"]
