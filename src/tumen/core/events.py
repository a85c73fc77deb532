"""Append-only event logs: one JSON object a line, readable while the file is written.

Each line is written with one `write` call on a file opened for appending, so several processes may
share a file. Readers skip a line that a kill cut short; the next writer starts a new line.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumen.core.errors import disk


class Events:
    """A writer of events.

    Args:
        path: the file; its folder is made. None keeps the events in memory only, in `seen`.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.seen: list[dict[str, Any]] = []
        if path:
            with disk(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                # An earlier writer was killed within a line: start a new one.
                if _is_cut(path):
                    self._append(b"\n")

    def emit(self, event: str, **facts: Any) -> None:
        """Append one event with the time in seconds since 1970 and this process's id."""
        row = {"time": round(time.time(), 3), "pid": os.getpid(), "event": event, **facts}
        if self.path is None:
            self.seen.append(row)
            return
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with disk(self.path):
            self._append(line.encode())

    def _append(self, line: bytes) -> None:
        assert self.path is not None
        # Opened for each line, so that the file may be moved away at any time.
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # A full disk takes a part of the line without an error.
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(handle)


def _is_cut(path: Path) -> bool:
    """Whether the last line of a file lacks its newline."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as lines:
        lines.seek(-1, os.SEEK_END)
        return lines.read(1) != b"\n"


def read(path: Path, event: str | None = None, tail_bytes: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the events of a file, oldest first; lines that a kill cut short are skipped.

    Args:
        path: the file; one that is missing has no events.
        event: yield only events of this name.
        tail_bytes: read only so many bytes at the end; 0: all.
    """
    if not path.exists():
        return
    with open(path, "rb") as lines:
        if tail_bytes:
            # The first line is cut then, and skipped like one that a kill cut.
            lines.seek(max(0, path.stat().st_size - tail_bytes))
        for line in lines:
            row = _row(line)
            if not row:
                continue
            if event is None or row.get("event") == event:
                yield row


class Tail:
    """A reader of a growing file: `new` returns the events appended since the call before.

    A line without a newline is returned once it is complete. A file that became shorter is a new
    file, and is read from its start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0  # in bytes, after the last complete line

    def new(self) -> list[dict[str, Any]]:
        """Return the new events, oldest first."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as lines:
            size = lines.seek(0, os.SEEK_END)
            if size < self.offset:
                self.offset = 0
            lines.seek(self.offset)
            complete, newline, _ = lines.read().rpartition(b"\n")
        self.offset += len(complete) + len(newline)
        rows = map(_row, complete.split(b"\n"))
        return [row for row in rows if row]


def _row(line: bytes) -> dict[str, Any] | None:
    """Parse an event; None where a kill cut the line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
