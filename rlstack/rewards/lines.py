"""Lines of text through two pipes, with a limit on each exchange whatever the other side does."""

from __future__ import annotations

import os
import select
import time

CHUNK_BYTES = 1 << 16


class Lines:
    """Writes to the descriptor `out` and reads from `back`; used by one thread at a time."""

    def __init__(self, out: int, back: int) -> None:
        self._out = out
        self._back = back
        self._rest = b""  # read, and not yet returned
        self.is_open = True  # until the other side has ended
        self._replies = select.poll()
        self._replies.register(back, select.POLLIN)
        os.set_blocking(out, False)
        os.set_blocking(back, False)

    def exchange(self, line: str, *, timeout_s: float) -> str | None:
        """Write `line` and read the next one, as `read`; a side that does not read is late as well."""
        deadline = time.monotonic() + timeout_s
        left = memoryview(line.encode() + b"\n")
        while left and self.is_open:
            try:
                left = left[os.write(self._out, left[:CHUNK_BYTES]) :]
            except BlockingIOError:
                room = select.poll()
                room.register(self._out, select.POLLOUT)
                if not _is_ready(room, deadline):
                    return None
            except BrokenPipeError:
                self.is_open = False
        return self._read(deadline) if self.is_open else None

    def read(self, *, timeout_s: float) -> str | None:
        """The next whole line, without its end; None if it does not come in time or at all."""
        return self._read(time.monotonic() + timeout_s)

    def _read(self, deadline: float) -> str | None:
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            if not _is_ready(self._replies, deadline):
                self._rest = b"".join(parts)
                return None
            part = os.read(self._back, CHUNK_BYTES)
            if not part:
                self.is_open = False
                return None
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line.decode()


def _is_ready(poll: select.poll, deadline: float) -> bool:
    return bool(poll.poll(1000 * max(0.0, deadline - time.monotonic())))
