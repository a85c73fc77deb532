"""The words between the app and its child: one JSON object a frame, behind four bytes that say how long it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MOST_BYTES = 8 << 20


def send(write: Callable[[bytes], object], tree: dict[str, Any]) -> None:
    """Write one frame."""
    raw = json.dumps(tree).encode()
    write(len(raw).to_bytes(4, "big") + raw)


def receive(read: Callable[[int], bytes]) -> dict[str, Any]:
    """Read one frame. `read` gives at most as many bytes as it is asked for, and none at the end.

    Raises:
        ConnectionError: the other end is gone.
        ValueError: too long, or no JSON object.
    """
    size = int.from_bytes(_exactly(read, 4), "big")
    if size > MOST_BYTES:
        raise ValueError(f"a frame of {size} bytes, {MOST_BYTES} is the most")
    try:
        tree = json.loads(_exactly(read, size))
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise ValueError(f"a frame of {size} bytes that are no JSON object")
    return tree


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = read(min(size - len(found), 1 << 16))
        if not part:
            raise ConnectionResetError("the other end is gone")
        found += part
    return bytes(found)
