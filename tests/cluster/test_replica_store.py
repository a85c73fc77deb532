"""What a keeper keeps and hands out, and what changes nothing: forged, replayed, cut, misnamed, too large."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tumen.cluster.agents import ReplicaStore, replica_folder, replica_store
from tumen.cluster.agents.replica_store import remove_stale
from tumen.core.errors import EngineError
from tumen.heartbeat import transfer
from tumen.heartbeat.messages import address_of
from tumen.heartbeat.transfer import Replica, TransferError

SECRET, OTHER = bytes(range(32)), bytes(32)
FIRST = Replica(attempt=1, step=40, rank=2, world=4)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[ReplicaStore]:
    keeper = ReplicaStore(tmp_path / "memory" / "b", SECRET)
    yield keeper
    keeper.close(remove=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / FIRST.name
    path.write_bytes(os.urandom(3 * transfer.CHUNK_BYTES + 17))
    return path


def names(kept: ReplicaStore) -> list[str]:
    return sorted(path.name for path in kept.folder.iterdir())


def refused(kept: ReplicaStore, count: int = 1) -> None:
    """The keeper gave up on that many, and holds nothing of them."""
    deadline = time.monotonic() + 30
    while kept.rejected < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kept.rejected == count
    assert names(kept) == []


def sent(kept: ReplicaStore, text: bytes) -> bytes:
    """What comes back for raw bytes; nothing where the keeper hung up before it read them all."""
    with (
        socket.create_connection(address_of(kept.address), 10) as line,
        contextlib.suppress(OSError),
    ):
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        return line.recv(1000)
    return b""


def request(
    secret: bytes, name: str, size: int, sent_ns: int, verb: int = transfer.PUT
) -> tuple[bytes, bytes]:
    head = (
        transfer.REQUEST_STRUCT.pack(transfer.MAGIC, verb, len(name), size, sent_ns, os.urandom(16))
        + name.encode()
    )
    seal = transfer.keyed_hash(secret, head).digest()
    return head + seal, seal


def test_what_is_put_is_got(kept: ReplicaStore, file: Path, tmp_path: Path) -> None:
    transfer.send_replica(address_of(kept.address), SECRET, file)
    (tmp_path / "back").mkdir()
    transfer.fetch_replica(address_of(kept.address), SECRET, file.name, tmp_path / "back")
    assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()
    assert names(kept) == [file.name]
    assert kept.folder.stat().st_mode & 0o777 == 0o700


def test_the_newest_of_each_rank_stay_and_a_later_attempt_is_newer(
    kept: ReplicaStore, tmp_path: Path
) -> None:
    for copy in (
        FIRST,
        *(FIRST._replace(attempt=2, step=step) for step in (9, 10, 11, 12)),
        FIRST._replace(rank=3),
    ):
        path = tmp_path / copy.name
        path.write_bytes(b"x")
        transfer.send_replica(address_of(kept.address), SECRET, path)
    assert [(copy.attempt, copy.step, copy.rank) for copy in transfer.replicas_in(kept.folder)] == [
        (1, 40, 3), (2, 10, 2), (2, 11, 2), (2, 12, 2)
    ]  # fmt: skip


def test_another_secret_is_refused_on_either_side(
    kept: ReplicaStore, file: Path, tmp_path: Path
) -> None:
    with pytest.raises((TransferError, OSError)):
        transfer.send_replica(address_of(kept.address), OTHER, file)
    with pytest.raises(TransferError, match="another secret"):
        transfer.fetch_replica(address_of(kept.address), OTHER, file.name, tmp_path)
    refused(kept, 2)


def test_what_is_not_there_is_one_line(kept: ReplicaStore, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="the replica store has no such replica"):
        transfer.fetch_replica(address_of(kept.address), SECRET, FIRST.name, tmp_path)


@pytest.mark.parametrize(
    ("name", "size", "seconds"),
    [
        ("../../etc/passwd", 1, 0),
        (f"{FIRST.name}/../x", 1, 0),
        (FIRST.name, 1 << 50, 0),  # too large
        (FIRST.name, 1, -60),  # too old
        (FIRST.name, 1, 60),  # ahead
        (FIRST.name, 9, 0),  # cut: one byte comes
    ],
)
def test_what_nobody_should_ask_changes_nothing(
    name: str, size: int, seconds: int, kept: ReplicaStore
) -> None:
    head, seal = request(SECRET, name, size, time.time_ns() + seconds * 10**9)
    assert sent(kept, head + b"x" + transfer.keyed_hash(SECRET, seal + b"x").digest()) == b""
    refused(kept)


def test_a_changed_byte_changes_nothing(kept: ReplicaStore) -> None:
    head, seal = request(SECRET, FIRST.name, 1, time.time_ns())
    assert sent(kept, head + b"y" + transfer.keyed_hash(SECRET, seal + b"x").digest()) == b""
    refused(kept)


def test_what_was_sent_before_changes_nothing(kept: ReplicaStore) -> None:
    head, seal = request(SECRET, FIRST.name, 1, time.time_ns())
    whole = head + b"x" + transfer.keyed_hash(SECRET, seal + b"x").digest()
    assert sent(kept, whole)[:1] == transfer.YES
    (kept.folder / FIRST.name).unlink()
    assert sent(kept, whole) == b""
    refused(kept)


@pytest.mark.parametrize(
    "text", [b"", b"\x80\x04K\x01.", b"GET / HTTP/1.1\r\n\r\n", bytes(200), transfer.MAGIC]
)
def test_noise_is_hung_up_on(text: bytes, kept: ReplicaStore) -> None:
    assert sent(kept, text) == b""
    refused(kept)


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    with pytest.raises(EngineError, match="other users can read or change it"):
        ReplicaStore(tmp_path / "shared" / "b", SECRET)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(EngineError, match="other users can read or change it"):
        ReplicaStore(tmp_path / "link" / "b", SECRET)


def test_copies_of_runs_long_gone_are_forgotten(tmp_path: Path) -> None:
    old, young, other = (
        tmp_path / name
        for name in (f"tumen-{os.getuid()}-old", f"tumen-{os.getuid()}-young", "tumen-x")
    )
    for folder in (old, young, other):
        (folder / "n0").mkdir(parents=True)
        (folder / "n0" / "copy").write_bytes(b"x")
    for path in (*old.rglob("*"), old, *other.rglob("*"), other):
        os.utime(path, (1, 1))
    remove_stale(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert other.exists(), "somebody else's"


def test_two_jobs_keep_apart() -> None:
    first, second = (
        replica_folder(Path("/a/run/jobs/cloud"), "n1"),
        replica_folder(Path("/b/run/jobs/cloud"), "n1"),
    )
    assert first != second
    assert first.parent.parent == replica_store.MEMORY
    assert replica_folder(Path("/a/run/jobs/cloud"), "../n1").parent == first.parent
