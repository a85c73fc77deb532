"""The pulse of a run: what a rank says of itself, and the sealed messages that carry it from ranks to agents to the watcher.

A message is one UDP datagram: header, beats of a fixed size, a JSON note where there is news, and a tag, a keyed BLAKE2b over all
before it. The key is the run's secret. Who receives drops what is forged, cut, replayed, or of another time.

    magic 4 | version 1 | sender's length 1 | beats 2 | attempt 4 | sequence 8 | sender | beats x 37 | note | tag 16
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tumen.core.errors import EngineError, disk

AGENT, SECRET, ATTEMPT = (
    "TUMEN_AGENT",
    "TUMEN_SECRET",
    "TUMEN_ATTEMPT",
)  # environment of a rank: its agent, the file, which start
PHASES = ("start", "load", "train", "save", "end")
MAGIC, VERSION = b"tmnP", 1
HEAD = struct.Struct("<4sBBHIQ")
HEARTBEAT_STRUCT = struct.Struct("<IIIIfBffQ")
TAG_BYTES, SECRET_BYTES = 16, 32
MAX_BYTES = 60_000  # of a message: one datagram
SKEW_SECONDS = 30.0  # between two clocks


class Heartbeat(NamedTuple):
    """What a rank says of itself, about once a second and at every change of phase.

    `step` counts steps done, `step_seconds` is the last one's. `waiting` is the share of the time that the main thread was found
    waiting for other ranks. NaN: not known. `age_ms`: how long ago the agent heard it; a rank leaves it 0.
    """

    rank: int
    attempt: int
    pid: int
    step: int = 0
    step_seconds: float = math.nan
    phase: str = "start"
    waiting: float = math.nan
    loss: float = math.nan
    age_ms: int = 0


@dataclass(frozen=True)
class Message:
    """A message whose tag is right. `sequence` is the sender's time in ns since 1970; it only grows. `body`: the packed beats."""

    sender: str
    attempt: int
    sequence: int
    body: bytes = b""
    note: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """When it was sent, in seconds since 1970."""
        return self.sequence / 1e9

    @property
    def beats(self) -> list[Heartbeat]:
        """The beats in it."""
        return [
            beat._replace(phase=PHASES[min(int(beat.phase), 4)])
            for beat in map(Heartbeat._make, HEARTBEAT_STRUCT.iter_unpack(self.body))
        ]


class MessageSender:
    """Seals messages under a name: `rank-3`, the name of a node, or `watcher`."""

    def __init__(self, secret: bytes, name: str) -> None:
        self.secret, self.name = secret, name.encode()[:255]
        self.last = 0

    def message(
        self, attempt: int, beats: Iterable[Heartbeat] = (), note: dict[str, Any] | None = None
    ) -> bytes:
        """A datagram.

        Raises:
            ValueError: more than a datagram holds.
        """
        self.last = max(time.time_ns(), self.last + 1)
        packed = [
            HEARTBEAT_STRUCT.pack(*beat[:5], PHASES.index(beat.phase), *beat[6:]) for beat in beats
        ]
        head = HEAD.pack(MAGIC, VERSION, len(self.name), len(packed), attempt, self.last)
        said = json.dumps(note, ensure_ascii=False).encode() if note else b""
        text = b"".join((head, self.name, *packed, said))
        if len(text) + TAG_BYTES > MAX_BYTES:
            raise ValueError(f"a message of {len(text)} bytes does not fit a datagram")
        return text + _tag(self.secret, text)


class MessageReceiver:
    """Opens messages, and drops what cannot be believed; `dropped` counts them by reason: forged, cut, replayed, skewed.

    `skewed` has, for each sender whose clock is off, by how many seconds (above 0: it is ahead).
    """

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self.secret, self.clock = secret, clock
        self.dropped: Counter[str] = Counter()
        self.skewed: dict[str, float] = {}
        self.last: dict[str, int] = {}

    def open(self, datagram: bytes) -> Message | None:
        """The message, or None where it is dropped."""
        found = self._read(datagram)
        if isinstance(found, str):
            self.dropped[found] += 1
            return None
        self.last[found.sender] = found.sequence
        return found

    def _read(self, datagram: bytes) -> Message | str:
        if len(datagram) < HEAD.size + TAG_BYTES:
            return "cut"
        text, tag = datagram[:-TAG_BYTES], datagram[-TAG_BYTES:]
        if not hmac.compare_digest(tag, _tag(self.secret, text)):
            return "forged"
        magic, version, named, count, attempt, sequence = HEAD.unpack_from(text)
        beats = HEAD.size + named
        note = beats + count * HEARTBEAT_STRUCT.size
        if magic != MAGIC or version != VERSION or len(text) < note:
            return "cut"
        sender = text[HEAD.size : beats].decode(errors="replace")
        if sequence <= self.last.get(sender, 0):
            return "replayed"
        ahead = sequence / 1e9 - self.clock()
        if abs(ahead) > SKEW_SECONDS:
            self.skewed[sender] = ahead
            return "skewed"
        said = json.loads(text[note:]) if len(text) > note else {}
        return Message(sender, attempt, sequence, text[beats:note], said)


def _tag(secret: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(text, key=secret, digest_size=TAG_BYTES).digest()


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    Raises:
        EngineError: it is none.
    """
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise EngineError(f"{text.strip()[:80]!r} is no address; write it as host:port")
    return host.strip("[]"), int(port)


def make_secret(path: Path) -> bytes:
    """The secret of a run; made where there is none, for its owner alone.

    Raises:
        DiskError: it cannot be written.
        EngineError: what is there is no secret.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return read_secret(path)
        with open(handle, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
    return read_secret(path)


def read_secret(path: Path) -> bytes:
    """The secret of a run.

    Raises:
        EngineError: it is missing, or not what `make_secret` wrote.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"{path}: no secret of the run ({error.strerror}); launch it again, which makes one"
        ) from None
    if len(secret) != SECRET_BYTES:
        raise EngineError(
            f"{path}: {len(secret)} bytes are no secret; delete it and launch the run again"
        )
    return secret
