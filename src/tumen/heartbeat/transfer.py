"""Parcels: files that nodes give each other to keep, over TCP, sealed with the run's secret. No pickle, no list of what is there.

    request   magic 4 | verb 1 | name's length 1 | size 8 | time in ns 8 | nonce 16 | name | tag 32
    put       then the file and a tag over request and file; the answer is one sealed byte
    get       the answer is a sealed byte and size, the file, and a tag over request and file

Tags are keyed BLAKE2b. Whoever keeps refuses what is forged, old, seen before, misnamed or too large, and says nothing to it.
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

MAGIC, PUT, GET, YES, NO = b"tmnC", 1, 2, b"\x01", b"\x00"
HEAD = struct.Struct("<4sBBQQ16s")
SIZE = struct.Struct("<Q")
TAG_BYTES, CHUNK_BYTES = 32, 1 << 20
PATIENCE_SECONDS = 10.0  # of one read or write
KEPT_STEPS = 3  # steps of a rank: the one being made everywhere, the last that is whole everywhere, and one in between
NAME = re.compile(r"attempt-(\d{6})-step-(\d{9})-rank-(\d{1,6})-of-(\d{1,6})\.safetensors")


class Replica(NamedTuple):
    """Whose state a file holds; a later copy is a larger one. `name` is the file's."""

    attempt: int
    step: int
    rank: int
    world: int

    @property
    def name(self) -> str:
        """attempt-000001-step-000000040-rank-2-of-4.safetensors"""
        return f"attempt-{self.attempt:06d}-step-{self.step:09d}-rank-{self.rank}-of-{self.world}.safetensors"


def replica_of(name: str) -> Replica | None:
    """What a file's name says, None where it is no copy's."""
    match = NAME.fullmatch(name)
    return Replica(*map(int, match.groups())) if match else None


def replicas_in(folder: Path) -> list[Replica]:
    """What a node keeps, oldest first."""
    return sorted(copy for path in folder.glob("attempt-*") if (copy := replica_of(path.name)))


def prune(folder: Path, rank: int) -> None:
    """Remove a rank's copies but the newest `KEEP`."""
    for old in [copy for copy in replicas_in(folder) if copy.rank == rank][:-KEPT_STEPS]:
        (folder / old.name).unlink(missing_ok=True)


class TransferError(EngineError):
    """What came is not to be believed, or what was asked for is not there."""


@dataclass(frozen=True)
class Request:
    """A request whose tag is right; `seal` is that tag."""

    verb: int
    copy: Replica
    size: int
    nonce: bytes
    seal: bytes


def send_replica(address: tuple[str, int], secret: bytes, path: Path) -> None:
    """Give a file to a keeper, under its own name.

    Raises:
        TransferError: it was refused.
        OSError: nobody is there, or slow.
    """
    with socket.create_connection(address, PATIENCE_SECONDS) as line, open(path, "rb") as file:
        seal = _ask(line, secret, PUT, path.name, os.fstat(file.fileno()).st_size)
        digest = keyed_hash(secret, seal)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            line.sendall(chunk)
        line.sendall(digest.digest())
        _answer(line, secret, seal, path.name, 1)


def fetch_replica(address: tuple[str, int], secret: bytes, name: str, into: Path) -> None:
    """Fetch a file from a keeper into the folder `into`.

    Raises:
        TransferError: it is not there, or not what was kept.
        OSError: nobody is there, or slow.
    """
    with socket.create_connection(address, PATIENCE_SECONDS) as line:
        seal = _ask(line, secret, GET, name, 0)
        size = SIZE.unpack(_answer(line, secret, seal, name, 1 + SIZE.size)[1:])[0]
        receive_file(line, secret, seal, size, into / name)


def _ask(line: socket.socket, secret: bytes, verb: int, name: str, size: int) -> bytes:
    """Send a request; returns its tag."""
    head = (
        HEAD.pack(MAGIC, verb, len(name), size, time.time_ns(), secrets.token_bytes(16))
        + name.encode()
    )
    seal = keyed_hash(secret, head).digest()
    line.sendall(head + seal)
    return seal


def _answer(line: socket.socket, secret: bytes, seal: bytes, name: str, size: int) -> bytes:
    try:
        said, tag = read_exactly(line, size), read_exactly(line, TAG_BYTES)
    except TransferError:
        raise TransferError(
            f"{name}: the keeper hung up; it has another secret, no room, or no such copy"
        ) from None
    if said[:1] != YES or not hmac.compare_digest(tag, keyed_hash(secret, seal + said).digest()):
        raise TransferError(f"{name}: the keeper has no such copy, or is none of this run")
    return said


def reply(line: socket.socket, secret: bytes, request: Request, said: bytes) -> None:
    """Say `said`, sealed for one request."""
    line.sendall(said + keyed_hash(secret, request.seal + said).digest())


def serve_replica(line: socket.socket, secret: bytes, request: Request, path: Path) -> None:
    """Answer a `get` with a file."""
    with open(path, "rb") as file:
        reply(line, secret, request, YES + SIZE.pack(os.fstat(file.fileno()).st_size))
        digest = keyed_hash(secret, request.seal)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            line.sendall(chunk)
        line.sendall(digest.digest())


def receive_file(line: socket.socket, secret: bytes, seal: bytes, size: int, path: Path) -> None:
    """Receive a file of `size` bytes; it appears whole or not at all.

    Raises:
        TransferError: cut short, or its tag is wrong.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        digest, left = keyed_hash(secret, seal), size
        with open(part, "wb") as file:
            while left:
                chunk = line.recv(min(left, CHUNK_BYTES))
                if not chunk:
                    raise TransferError(f"{path.name}: cut short, {left} bytes are missing")
                digest.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        if not hmac.compare_digest(read_exactly(line, TAG_BYTES), digest.digest()):
            raise TransferError(f"{path.name}: not what was sent; its tag is wrong")
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def read_request(line: socket.socket, secret: bytes) -> Request:
    """The request on a fresh connection.

    Raises:
        TransferError: forged, cut, of another time, or a name that no copy has.
    """
    head = read_exactly(line, HEAD.size)
    magic, verb, length, size, sent_ns, nonce = HEAD.unpack(head)
    name = read_exactly(line, length)
    seal = read_exactly(line, TAG_BYTES)
    if magic != MAGIC or not hmac.compare_digest(seal, keyed_hash(secret, head + name).digest()):
        raise TransferError("forged")
    if abs(time.time_ns() - sent_ns) > SKEW_SECONDS * 1e9:
        raise TransferError("of another time")
    copy = replica_of(name.decode(errors="replace"))
    if verb not in (PUT, GET) or copy is None:
        raise TransferError("no name of a copy")
    return Request(verb, copy, size, nonce, seal)


def read_exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        TransferError: the other end hung up before.
    """
    found = b""
    while len(found) < size:
        more = line.recv(size - len(found))
        if not more:
            raise TransferError("cut short")
        found += more
    return found


def keyed_hash(secret: bytes, text: bytes) -> hashlib.blake2b:
    """A tag to be: BLAKE2b with the secret as its key, apart from the tags of other messages."""
    return hashlib.blake2b(text, key=secret, digest_size=TAG_BYTES, person=b"tumen copies")
