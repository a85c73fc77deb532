"""Transfer of checkpoint replicas between nodes over TCP, authenticated with the run's secret.

    request   magic 4 | verb 1 | name's length 1 | size 8 | time in ns 8 | nonce 16 | name | tag 32
    PUT       then the file and a tag over request and file; the answer is one sealed byte
    GET       the answer is a sealed byte and size, the file, and a tag over request and file

Tags are keyed BLAKE2b. There is no pickle and no listing of files. The store rejects forged, late,
replayed, misnamed or too large requests, and does not answer them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tumen.core.errors import EngineError
from tumen.heartbeat.messages import SKEW_SECONDS

MAGIC = b"tmnC"
PUT = 1
GET = 2
YES = b"\x01"
NO = b"\x00"
REQUEST_STRUCT = struct.Struct("<4sBBQQ16s")
SIZE = struct.Struct("<Q")
NONCE_BYTES = 16
TAG_BYTES = 32
CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 10.0  # of one read or write
# Of each rank: the step that is being copied everywhere, the last one that is complete
# everywhere, and one in between.
KEPT_STEPS = 3
# Nothing else is written or served, so no path leads out of the store's folder.
NAME = re.compile(r"attempt-(\d{6})-step-(\d{9})-rank-(\d{1,6})-of-(\d{1,6})\.safetensors")


class Replica(NamedTuple):
    """Whose state a replica holds. A later replica compares as greater."""

    attempt: int
    step: int
    rank: int
    world: int

    @property
    def name(self) -> str:
        """Name of its file: attempt-000001-step-000000040-rank-2-of-4.safetensors."""
        part = f"rank-{self.rank}-of-{self.world}"
        return f"attempt-{self.attempt:06d}-step-{self.step:09d}-{part}.safetensors"


def replica_of(name: str) -> Replica | None:
    """Return the replica that a file name stands for, None where it is another file."""
    match = NAME.fullmatch(name)
    return Replica(*map(int, match.groups())) if match else None


def replicas_in(folder: Path) -> list[Replica]:
    """Return the replicas in a node's folder, oldest first."""
    found = (replica_of(path.name) for path in folder.glob("attempt-*"))
    return sorted(replica for replica in found if replica)


def prune(folder: Path, rank: int) -> None:
    """Remove a rank's replicas but the newest `KEPT_STEPS`."""
    # Sorted oldest first, so the newest are at the end.
    of_rank = [replica for replica in replicas_in(folder) if replica.rank == rank]
    for old in of_rank[:-KEPT_STEPS]:
        (folder / old.name).unlink(missing_ok=True)


class TransferError(EngineError):
    """A request or answer that is not authentic, or a replica that is not there."""


@dataclass(frozen=True)
class Request:
    """An authentic request; `tag` is its tag."""

    verb: int
    replica: Replica
    size: int
    nonce: bytes
    tag: bytes


# -- the client: a rank


def send_replica(address: tuple[str, int], secret: bytes, path: Path) -> None:
    """Send a file to a replica store, under its own name.

    Args:
        address: host and port of the store.
        secret: of the run.
        path: of the file.

    Raises:
        TransferError: the store rejected it.
        OSError: the store cannot be reached, or is too slow.
    """
    with socket.create_connection(address, TIMEOUT_SECONDS) as connection, open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        tag = _send_request(connection, secret, PUT, path.name, size)
        # Hashed while it is sent, so that the file is read once.
        digest = keyed_hash(secret, tag)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            connection.sendall(chunk)
        connection.sendall(digest.digest())
        _read_answer(connection, secret, tag, path.name, 1)


def fetch_replica(address: tuple[str, int], secret: bytes, name: str, into: Path) -> None:
    """Fetch a file from a replica store.

    Args:
        address: host and port of the store.
        secret: of the run.
        name: of the file.
        into: folder where it is written.

    Raises:
        TransferError: it is not there, or arrived damaged.
        OSError: the store cannot be reached, or is too slow.
    """
    with socket.create_connection(address, TIMEOUT_SECONDS) as connection:
        tag = _send_request(connection, secret, GET, name, 0)
        answer = _read_answer(connection, secret, tag, name, 1 + SIZE.size)
        (size,) = SIZE.unpack(answer[1:])
        receive_file(connection, secret, tag, size, into / name)


def _send_request(
    connection: socket.socket, secret: bytes, verb: int, name: str, size: int
) -> bytes:
    """Send a request; returns its tag."""
    # Makes every tag unique, so that a recorded transfer cannot be played back.
    nonce = secrets.token_bytes(NONCE_BYTES)
    head = REQUEST_STRUCT.pack(MAGIC, verb, len(name), size, time.time_ns(), nonce)
    text = head + name.encode()
    tag = keyed_hash(secret, text).digest()
    connection.sendall(text + tag)
    return tag


def _read_answer(
    connection: socket.socket, secret: bytes, tag: bytes, name: str, size: int
) -> bytes:
    """Return the `size` bytes of an answer that starts with YES."""
    try:
        # A store that rejects a request closes the connection without a word.
        answer = read_exactly(connection, size)
        answer_tag = read_exactly(connection, TAG_BYTES)
    except TransferError:
        raise TransferError(
            f"{name}: the replica store closed the connection: "
            "it has another secret, no room, or no such replica"
        ) from None
    expected = keyed_hash(secret, tag + answer).digest()
    if answer[:1] != YES or not hmac.compare_digest(answer_tag, expected):
        raise TransferError(
            f"{name}: the replica store has no such replica, or belongs to another run"
        )
    return answer


# -- the server: a replica store


def read_request(connection: socket.socket, secret: bytes) -> Request:
    """Return the request on a fresh connection.

    Raises:
        TransferError: it is forged, cut, late, or names no replica.
    """
    head = read_exactly(connection, REQUEST_STRUCT.size)
    magic, verb, name_bytes, size, sent_ns, nonce = REQUEST_STRUCT.unpack(head)
    name = read_exactly(connection, name_bytes)
    tag = read_exactly(connection, TAG_BYTES)
    expected = keyed_hash(secret, head + name).digest()
    if magic != MAGIC or not hmac.compare_digest(tag, expected):
        raise TransferError("forged")
    # Only an authentic request says more about itself.
    if abs(time.time_ns() - sent_ns) > SKEW_SECONDS * 1e9:
        raise TransferError("out of the time window")
    replica = replica_of(name.decode(errors="replace"))
    if verb not in (PUT, GET) or replica is None:
        raise TransferError("not the name of a replica")
    return Request(verb, replica, size, nonce, tag)


def reply(connection: socket.socket, secret: bytes, request: Request, answer: bytes) -> None:
    """Send an answer, sealed for one request."""
    connection.sendall(answer + keyed_hash(secret, request.tag + answer).digest())


def serve_replica(connection: socket.socket, secret: bytes, request: Request, path: Path) -> None:
    """Answer a GET with a file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        reply(connection, secret, request, YES + SIZE.pack(size))
        digest = keyed_hash(secret, request.tag)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            connection.sendall(chunk)
        connection.sendall(digest.digest())


# -- both


def receive_file(
    connection: socket.socket, secret: bytes, tag: bytes, size: int, path: Path
) -> None:
    """Receive a file; it appears whole or not at all.

    Args:
        connection: where its bytes and their tag arrive.
        secret: of the run.
        tag: of the request that they belong to.
        size: of the file in bytes.
        path: where it is written.

    Raises:
        TransferError: it is cut, or its tag is wrong.
    """
    # Several transfers of one file may run at once, each into a part of its own.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        digest = keyed_hash(secret, tag)
        left = size
        with open(part, "wb") as file:
            while left:
                chunk = connection.recv(min(left, CHUNK_BYTES))
                if not chunk:
                    raise TransferError(f"{path.name}: cut short, {left} bytes are missing")
                digest.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        received_tag = read_exactly(connection, TAG_BYTES)
        if not hmac.compare_digest(received_tag, digest.digest()):
            raise TransferError(f"{path.name}: damaged on the way; its tag is wrong")
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Return `size` bytes.

    Raises:
        TransferError: the other end closed the connection before.
    """
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise TransferError("cut short")
        found += more
    return found


def keyed_hash(secret: bytes, text: bytes) -> hashlib.blake2b:
    """Return a BLAKE2b with the secret as its key, distinct from the tags of other messages."""
    # `person` is part of the hash: a tag of a heartbeat is never one of a transfer.
    return hashlib.blake2b(text, key=secret, digest_size=TAG_BYTES, person=b"tumen copies")
