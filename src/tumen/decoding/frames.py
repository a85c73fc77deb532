"""The protocol between the app and its child: JSON objects behind their length.

The length is four bytes, big-endian.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_BYTES = 8 << 20
HEADER_BYTES = 4
BLOCK_BYTES = 1 << 16  # of one read


def send(write: Callable[[bytes], object], tree: dict[str, Any]) -> None:
    """Write one frame."""
    raw = json.dumps(tree).encode()
    # In one write, so that a reader never waits between the length and the text.
    write(len(raw).to_bytes(HEADER_BYTES, "big") + raw)


def receive(read: Callable[[int], bytes]) -> dict[str, Any]:
    """Read one frame.

    Args:
        read: returns at most as many bytes as requested, and none at the end.

    Raises:
        ConnectionError: the other end closed the connection.
        ValueError: too long, or not a JSON object.
    """
    header = _read_exactly(read, HEADER_BYTES)
    size = int.from_bytes(header, "big")
    # Refused before memory for it is taken.
    if size > MAX_BYTES:
        raise ValueError(f"a frame of {size} bytes; the limit is {MAX_BYTES}")
    try:
        tree = json.loads(_read_exactly(read, size))
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise ValueError(f"a frame of {size} bytes that is not a JSON object")
    return tree


def _read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        block = read(min(size - len(found), BLOCK_BYTES))
        if not block:
            raise ConnectionResetError("the other end closed the connection")
        found += block
    return bytes(found)
