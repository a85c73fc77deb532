"""Heartbeats of ranks, and the authenticated messages that carry them to agents and the watcher.

A message is one UDP datagram: a header, heartbeats of fixed size, a JSON note where there is
something to note, and a tag: a keyed BLAKE2b over all before it, with the run's secret as its key.
The receiver drops forged, truncated, replayed or out-of-window messages.

    magic 4 | version 1 | sender's length 1 | heartbeats 2 | attempt 4 | sequence 8
    | sender | heartbeats x 37 | note | tag 16                                     (sizes in bytes)
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

# Environment of a rank: host:port of its agent, the file of the secret, the attempt.
AGENT = "TUMEN_AGENT"
SECRET = "TUMEN_SECRET"
ATTEMPT = "TUMEN_ATTEMPT"

PHASES = ("start", "load", "train", "save", "end")
MAGIC = b"tmnP"
VERSION = 2  # of header, heartbeats and notes
HEADER_STRUCT = struct.Struct("<4sBBHIQ")
HEARTBEAT_STRUCT = struct.Struct("<IIIIfBffQ")  # the fields of Heartbeat, in their order
TAG_BYTES = 16
SECRET_BYTES = 32
MAX_BYTES = 60_000  # of a message: one UDP datagram has at most 65,507
MAX_SENDER_BYTES = 255
SKEW_SECONDS = 30.0  # between two clocks


class Heartbeat(NamedTuple):
    """What a rank sends about once a second and at every change of phase. NaN: not known.

    Attributes:
        rank: of the sender.
        attempt: that it belongs to.
        pid: its process id.
        step: number of finished steps.
        step_seconds: mean time of the steps since the last heartbeat.
        phase: one of PHASES.
        waiting: share of the time that the main thread spent in collectives.
        loss: of the last step.
        age_ms: how long ago the agent received it; a rank sends 0.
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
class AuthenticatedMessage:
    """A message whose tag is right.

    Attributes:
        sender: its name.
        attempt: that the sender is at.
        sequence: the sender's clock in ns since 1970; it only grows.
        body: packed heartbeats.
        note: the JSON note, empty where there is none.
    """

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
    def heartbeats(self) -> list[Heartbeat]:
        """The heartbeats in it."""
        return [_unpack(fields) for fields in HEARTBEAT_STRUCT.iter_unpack(self.body)]


def _unpack(fields: tuple[Any, ...]) -> Heartbeat:
    packed = Heartbeat._make(fields)
    # A later version may send phases that this one does not know.
    number = min(int(packed.phase), len(PHASES) - 1)
    return packed._replace(phase=PHASES[number])


def _pack(heartbeat: Heartbeat) -> bytes:
    fields = heartbeat._asdict() | {"phase": PHASES.index(heartbeat.phase)}
    return HEARTBEAT_STRUCT.pack(*fields.values())


class MessageSender:
    """Seals messages.

    Args:
        secret: of the run.
        name: of the sender: `rank-3`, the name of a node, or `watcher`.
    """

    def __init__(self, secret: bytes, name: str) -> None:
        self.secret = secret
        self.name = name.encode()[:MAX_SENDER_BYTES]
        self._last_sequence = 0

    def message(
        self, attempt: int, heartbeats: Iterable[Heartbeat] = (), note: dict[str, Any] | None = None
    ) -> bytes:
        """Return a datagram.

        Raises:
            ValueError: it would be larger than a datagram.
        """
        # A clock that is set back must not make messages look replayed.
        self._last_sequence = max(time.time_ns(), self._last_sequence + 1)
        # Heartbeats have a fixed size, so only their number is in the header.
        body = [_pack(heartbeat) for heartbeat in heartbeats]
        header = HEADER_STRUCT.pack(
            MAGIC, VERSION, len(self.name), len(body), attempt, self._last_sequence
        )
        note_text = json.dumps(note, ensure_ascii=False).encode() if note else b""
        text = b"".join((header, self.name, *body, note_text))
        if len(text) + TAG_BYTES > MAX_BYTES:
            raise ValueError(f"a message of {len(text)} bytes does not fit a datagram")
        return text + _tag(self.secret, text)


class _Dropped(Exception):
    """A message that is dropped; its text is the reason."""


class MessageReceiver:
    """Opens messages and drops those that are not authentic or not in time.

    Args:
        secret: of the run.
        clock: seconds since 1970.

    Attributes:
        dropped: number of dropped messages by reason: forged, cut, replayed, skewed.
        skewed: senders whose clock is off, and by how many seconds (above 0: it is ahead).
    """

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self.secret = secret
        self.clock = clock
        self.dropped: Counter[str] = Counter()
        self.skewed: dict[str, float] = {}
        self._last_sequence: dict[str, int] = {}

    def open(self, datagram: bytes) -> AuthenticatedMessage | None:
        """Return the message, or None where it is dropped."""
        try:
            message = self._authenticated(datagram)
            self._check_time(message)
        except _Dropped as reason:
            self.dropped[str(reason)] += 1
            return None
        # Only after all checks: a dropped message must not outdate later ones.
        self._last_sequence[message.sender] = message.sequence
        return message

    def _authenticated(self, datagram: bytes) -> AuthenticatedMessage:
        """Return what a datagram contains, after its tag was checked."""
        if len(datagram) < HEADER_STRUCT.size + TAG_BYTES:
            raise _Dropped("cut")
        text = datagram[:-TAG_BYTES]
        tag = datagram[-TAG_BYTES:]
        if not hmac.compare_digest(tag, _tag(self.secret, text)):
            raise _Dropped("forged")
        return _opened(text)

    def _check_time(self, message: AuthenticatedMessage) -> None:
        # Also drops a datagram that overtook a later one: its state is out of date.
        if message.sequence <= self._last_sequence.get(message.sender, 0):
            raise _Dropped("replayed")
        ahead = message.seconds - self.clock()
        if abs(ahead) > SKEW_SECONDS:
            self.skewed[message.sender] = ahead
            raise _Dropped("skewed")


def _opened(text: bytes) -> AuthenticatedMessage:
    """Return what an authentic text contains.

    Raises:
        _Dropped: it is of another version, or shorter than its header says.
    """
    header = HEADER_STRUCT.unpack_from(text)
    magic, version, name_bytes, count, attempt, sequence = header
    body_start = HEADER_STRUCT.size + name_bytes
    note_start = body_start + count * HEARTBEAT_STRUCT.size
    if magic != MAGIC or version != VERSION or len(text) < note_start:
        raise _Dropped("cut")
    sender = text[HEADER_STRUCT.size : body_start].decode(errors="replace")
    body = text[body_start:note_start]
    note = json.loads(text[note_start:]) if len(text) > note_start else {}
    return AuthenticatedMessage(sender, attempt, sequence, body, note)


def _tag(secret: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(text, key=secret, digest_size=TAG_BYTES).digest()


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        EngineError: the text is not host:port.
    """
    # The last colon: an IPv6 address has more of them, and stands in brackets.
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise EngineError(f"{text.strip()[:80]!r} is not an address; write it as host:port")
    return host.strip("[]"), int(port)


def make_secret(path: Path) -> bytes:
    """Return the secret of a run; make it where there is none, readable by its owner alone.

    Raises:
        DiskError: it cannot be written.
        EngineError: the file is there and is not a secret.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: of several processes that start together, one makes the secret.
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return read_secret(path)
        with open(handle, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
    return read_secret(path)


def read_secret(path: Path) -> bytes:
    """Return the secret of a run.

    Raises:
        EngineError: it is missing, or not what `make_secret` wrote.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"{path}: cannot read the run's secret ({error.strerror}); launch the run again, "
            "which makes one"
        ) from None
    if len(secret) != SECRET_BYTES:
        raise EngineError(
            f"{path}: a secret has {SECRET_BYTES} bytes, this file has {len(secret)}; "
            "delete it and launch the run again"
        )
    return secret
