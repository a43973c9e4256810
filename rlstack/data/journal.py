"""A JSONL file that grows by whole lines, so that work which was ended goes on where it was."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.telemetry.run_dir import to_json

HALVES = "backslashreplace"  # of surrogate pairs, which UTF-8 has no form for: as JSON's own escapes


class Journal:
    """Held by one process at a time; `rows` are the lines that were there when it was opened."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; a last line that was being written when its writer ended is cut off.

        Raises ConfigError if another process holds it, if it cannot be made, or if a line is not JSON.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}); give another folder as --out"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.rows = self._read()
        except BlockingIOError:
            self._file.close()
            raise ConfigError(
                f"{path}: another process is writing it; wait for its end, or give another --out"
            ) from None
        except ConfigError:
            self._file.close()
            raise

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows through to the disk."""
        self._file.write("".join(to_json(row) + "\n" for row in rows).encode(errors=HALVES))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let another process have the file."""
        self._file.close()

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        return [self._parse(line, number) for number, line in enumerate(whole.split(b"\n")[:-1], 1)]

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = error
        if not isinstance(row, dict):
            raise ConfigError(
                f"{self._path}, line {number}: is not a JSON object; take the line out, or give another --out"
            )
        return row
