"""All receivers land a version, or none does: one damaged bucket must not leave a model of two versions."""

from __future__ import annotations

import datetime

import torch.distributed as dist
from torch.distributed import Store

from rlstack.transfer.errors import TransferError

_FINE = "fine"


class Agreement:
    """Of `num_receivers` over all engines; `receiver` is this one."""

    def __init__(self, store: Store, *, receiver: int, num_receivers: int, timeout_s: float) -> None:
        self._store = store
        self._receiver = receiver
        self._num_receivers = num_receivers
        self._timeout_s = timeout_s
        self._num_rounds = 0

    def reach(self, trouble: Exception | None, *, what: str) -> None:
        """Tell the others what became of this receiver's part of `what`, and learn what became of theirs.

        Every receiver calls this once per round. Raises `trouble` if there is any; TransferError if another
        receiver has trouble or says nothing within the time limit.
        """
        self._num_rounds += 1
        prefix = f"agreement{self._num_rounds}"
        self._store.set(f"{prefix}/{self._receiver}", str(trouble) if trouble else _FINE)
        if trouble:
            raise trouble
        timeout = datetime.timedelta(seconds=self._timeout_s)
        keys = [f"{prefix}/{receiver}" for receiver in range(self._num_receivers)]
        try:
            self._store.wait(keys, timeout)
        except dist.DistStoreError as error:
            missing = [str(i) for i, key in enumerate(keys) if not self._store.check([key])]
            raise TransferError(
                f"{what}: engine worker {', '.join(missing)} did not say within {self._timeout_s:g} s "
                f"whether everything arrived"
            ) from error
        for receiver, answer in enumerate(self._store.multi_get(keys)):
            if answer != _FINE.encode():
                raise TransferError(f"{what}: engine worker {receiver} refuses it: {answer.decode()}")
