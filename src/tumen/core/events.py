"""Append-only events: what happened, one JSON object a line, readable while it is written.

A line is written with one `write` call on a file opened for appending, so several processes may share a file; a line cut
short by a kill is skipped by the reader, and the next writer starts on a line of its own.
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
        path: the file; its folder is made. `None` keeps the events in memory only (`Events(None).seen`).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.seen: list[dict[str, Any]] = []
        if path:
            with disk(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if _is_cut(path):
                    self._append(b"\n")

    def emit(self, event: str, **facts: Any) -> None:
        """Append one event with the time in seconds since 1970 and this process's id."""
        row = {"time": round(time.time(), 3), "pid": os.getpid(), "event": event, **facts}
        if self.path is None:
            self.seen.append(row)
            return
        with disk(self.path):
            self._append((json.dumps(row, ensure_ascii=False) + "\n").encode())

    def _append(self, line: bytes) -> None:
        assert self.path is not None
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(handle, line) < len(line):
                raise OSError(
                    errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)
                )  # a full disk takes what it can
        finally:
            os.close(handle)


def _is_cut(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as lines:
        lines.seek(-1, os.SEEK_END)
        return lines.read(1) != b"\n"


def read(path: Path, event: str | None = None, tail_bytes: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the events of a file, oldest first; lines that a kill cut short are skipped. `tail_bytes` reads the end alone."""
    if not path.exists():
        return
    with open(path, "rb") as lines:
        if tail_bytes:
            lines.seek(max(0, path.stat().st_size - tail_bytes))
        for line in lines:
            row = _row(line)
            if row and (event is None or row.get("event") == event):
                yield row


class Tail:
    """A reader of a file that grows: each call of `new` gives the events appended since the one before.

    A line that has no end yet waits for it; a file that became shorter is another file, and read from its start.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def new(self) -> list[dict[str, Any]]:
        """What came since, oldest first."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as lines:
            if lines.seek(0, os.SEEK_END) < self.offset:
                self.offset = 0
            lines.seek(self.offset)
            whole = lines.read().rpartition(b"\n")
        self.offset += len(whole[0] + whole[1])
        return [row for line in whole[0].split(b"\n") if (row := _row(line))]


def _row(line: bytes) -> dict[str, Any] | None:
    """An event, or nothing where a kill cut the line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
