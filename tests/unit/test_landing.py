"""Answers of the workers, and what an engine makes of them."""

from __future__ import annotations

import threading

import pytest
from torch.distributed import HashStore

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.rollout.engine import Engine
from rlstack.transfer.errors import LandingError, TransferError
from rlstack.transfer.group import Agreement
from rlstack.transfer.landing import WeightLanding

FINE = {"error": None, "fatal": False, "bytes": 2.0, "receive_s": 1.0, "wait_s": 1.0, "land_s": 1.0}


class Workers:
    """An engine's workers, of which every call gets the next of `answers`."""

    def __init__(self, answers) -> None:
        self.answers = iter(answers)

    def collective_rpc(self, method, args):
        return next(self.answers)

    def reset_prefix_cache(self) -> None:
        pass


def engine(*answers) -> Engine:
    engine = object.__new__(Engine)
    engine._llm = Workers(answers)
    engine._transfer = RunConfig().transfer
    engine._version, engine._broken, engine._asleep = 0, None, frozenset()
    return engine


def test_a_version_that_every_worker_verified_is_taken_over():
    workers = [{**FINE, "verified_version": 3.0}, {**FINE, "verified_version": 3.0, "land_s": 5.0}]
    subject = engine(workers)
    stats = subject.commit_receive(3, TransferMethod.reshard)
    assert subject.version == 3
    assert (stats["bytes"], stats["land_s"], stats["verified"], stats["workers"]) == (4.0, 5.0, 1.0, workers)


def test_an_engine_that_could_not_take_a_version_over_keeps_its_own():
    subject = engine([{**FINE, "verified_version": 3.0}, {"error": "bucket 7", "fatal": False}])
    with pytest.raises(TransferError, match="worker 1: bucket 7"):
        subject.commit_receive(3, TransferMethod.reshard)
    assert subject.version == 0 and subject._broken is None


def test_an_engine_in_which_a_landing_failed_does_not_serve():
    subject = engine([{"error": "no memory", "fatal": True}])
    with pytest.raises(LandingError, match="no memory"):
        subject.commit_receive(3, TransferMethod.reshard)
    with pytest.raises(LandingError, match="no memory"):
        subject.generate([], n=1, temperature=1.0, top_p=1.0, seeds=[])


@pytest.mark.parametrize(("error", "fatal"), [(TransferError("lost"), False), (LandingError("torn"), True)])
def test_a_worker_answers_with_its_error(error, fatal):
    def fail(init_info):
        raise error

    worker = WeightLanding()
    worker.rank, worker.init_weight_transfer_engine = 0, fail
    assert worker.rlstack_open_reshard({}) == {"error": f"{type(error).__name__}: {error}", "fatal": fatal}


def agree(troubles) -> list[Exception | None]:
    """One round of as many receivers as there are `troubles`; what each of them raised."""
    store = HashStore()
    raised: list[Exception | None] = [None] * len(troubles)

    def take_part(receiver: int) -> None:
        agreement = Agreement(store, receiver=receiver, receivers=range(len(troubles)), timeout_s=0.5)
        try:
            agreement.reach(troubles[receiver], what="version 4")
        except TransferError as error:
            raised[receiver] = error

    present = [i for i, trouble in enumerate(troubles) if trouble != "absent"]
    threads = [threading.Thread(target=take_part, args=(receiver,)) for receiver in present]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_receivers_without_trouble_agree():
    assert agree([None, None]) == [None, None]


def test_trouble_of_one_receiver_is_trouble_of_all():
    trouble = TransferError("bucket 7 is damaged")
    first, second, third = agree([None, trouble, None])
    assert second is trouble
    assert str(first) == str(third) == "version 4: engine worker 1 refuses it: bucket 7 is damaged"


def test_a_receiver_that_says_nothing_is_named():
    first, _ = agree([None, "absent"])
    assert "version 4: engine worker 1 did not say within 0.5 s" in str(first)
