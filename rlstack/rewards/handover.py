"""A Python object of the user's own on its way to another process, which finds its modules where this does.

To a process that this one starts it goes through memory that only the two of them hold.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from rlstack.user_code import look_last_in


def hand_over(value: Any) -> int:
    """The descriptor of memory that holds `value`, for subprocess' pass_fds; functions of __main__ and
    lambdas included.

    Raises:
        Exception: whatever keeps `value` from being pickled, such as an open file in it.
    """
    content = packed(value)
    descriptor = os.memfd_create("rlstack")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def take_over(descriptor: int) -> Any:
    """The object that the process which started this one has handed over."""
    return unpacked(os.pread(descriptor, os.fstat(descriptor).st_size, 0))


def packed(value: Any) -> bytes:
    """`value` and where its modules are, for `unpacked` in another process; raises as `hand_over` does."""
    import cloudpickle

    return pickle.dumps(([os.path.abspath(path) for path in sys.path], cloudpickle.dumps(value)))


def unpacked(content: bytes) -> Any:
    """The object that `packed` was given. Its modules are looked for behind the installed packages."""
    paths, value = pickle.loads(content)
    look_last_in(paths)
    return pickle.loads(value)
