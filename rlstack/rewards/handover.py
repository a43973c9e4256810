"""A Python object from this process to one that it starts, through memory that only the two of them hold."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any


def hand_over(value: Any) -> int:
    """The descriptor of memory that holds `value`, for subprocess' pass_fds; functions of __main__ and
    lambdas included.

    Raises:
        Exception: whatever keeps `value` from being pickled, such as an open file in it.
    """
    import cloudpickle

    content = pickle.dumps((sys.path, cloudpickle.dumps(value)))
    descriptor = os.memfd_create("rlstack")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def take_over(descriptor: int) -> Any:
    """What the process that started this one has handed over; its modules are found where it found them."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    paths, value = pickle.loads(content)
    sys.path += [path for path in paths if path not in sys.path]
    return pickle.loads(value)
