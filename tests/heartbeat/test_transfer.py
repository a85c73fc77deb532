"""Transfer of checkpoint replicas over one pair of sockets: whole and authentic, or not at all."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tumen.heartbeat import transfer
from tumen.heartbeat.transfer import (
    CHUNK_BYTES,
    GET,
    KEPT_STEPS,
    MAGIC,
    PUT,
    REQUEST_STRUCT,
    YES,
    Replica,
    Request,
    TransferError,
    fetch_replica,
    keyed_hash,
    prune,
    read_request,
    receive_file,
    replica_of,
    replicas_in,
    reply,
    send_replica,
    serve_replica,
)

SECRET = bytes(range(32))
REPLICA = Replica(attempt=2, step=40, rank=3, world=8)
Serve = Callable[[Callable[[socket.socket], None]], tuple[str, int]]
CONTENT = secrets.token_bytes(CHUNK_BYTES + 12345)  # two reads of a chunk


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end of a connection and the store's."""
    client, store = socket.socketpair()
    client.settimeout(10)
    store.settimeout(10)
    with client, store:
        yield client, store


def request_bytes(
    *,
    name: str = REPLICA.name,
    verb: int = GET,
    size: int = 0,
    magic: bytes = MAGIC,
    secret: bytes = SECRET,
    late_seconds: float = 0.0,
) -> bytes:
    """A request as a client sends it, or one that something is wrong with."""
    sent = time.time_ns() - int(late_seconds * 1e9)
    head = REQUEST_STRUCT.pack(magic, verb, len(name), size, sent, bytes(16))
    text = head + name.encode()
    return text + keyed_hash(secret, text).digest()


class TestNames:
    def test_a_name_says_whose_state_it_is(self) -> None:
        assert REPLICA.name == "attempt-000002-step-000000040-rank-3-of-8.safetensors"
        assert replica_of(REPLICA.name) == REPLICA

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "attempt-2-step-40-rank-3-of-8.safetensors",
            f"../{REPLICA.name}",
            f"{REPLICA.name}.part",
            f"{REPLICA.name}\n",
            REPLICA.name.replace("rank-3", "rank--3"),
        ],
    )
    def test_other_names_are_none(self, name: str) -> None:
        assert replica_of(name) is None

    def test_replicas_are_sorted_by_attempt_before_step(self, tmp_path: Path) -> None:
        found = [Replica(1, 90, 0, 2), Replica(2, 20, 0, 2), Replica(2, 20, 1, 2)]
        for replica in reversed(found):
            (tmp_path / replica.name).touch()
        (tmp_path / "attempt-notes.txt").touch()
        assert replicas_in(tmp_path) == found

    def test_the_newest_of_a_rank_are_kept_and_those_of_others_too(self, tmp_path: Path) -> None:
        mine = [Replica(1, step, 0, 2) for step in (10, 20, 30)]
        mine += [Replica(2, step, 0, 2) for step in (25, 35)]
        others = [Replica(1, step, 1, 2) for step in (10, 20, 30, 40)]
        for replica in mine + others:
            (tmp_path / replica.name).touch()
        prune(tmp_path, 0)
        assert KEPT_STEPS == 3
        assert replicas_in(tmp_path) == sorted(mine[2:] + others)


class TestRequest:
    def test_an_authentic_one_is_read(self, ends: tuple[socket.socket, socket.socket]) -> None:
        client, store = ends
        sent = request_bytes(verb=PUT, size=7)
        client.sendall(sent)
        expected = Request(PUT, REPLICA, 7, bytes(16), sent[-transfer.TAG_BYTES :])
        assert read_request(store, SECRET) == expected

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ({"secret": bytes(32)}, "forged"),
            ({"magic": b"tmnX"}, "forged"),
            ({"late_seconds": transfer.SKEW_SECONDS + 1}, "out of the time window"),
            ({"late_seconds": -transfer.SKEW_SECONDS - 1}, "out of the time window"),
            ({"name": "../../etc/passwd"}, "not the name of a replica"),
            ({"verb": 3}, "not the name of a replica"),
        ],
    )
    def test_another_is_rejected(
        self, ends: tuple[socket.socket, socket.socket], fault: dict[str, object], reason: str
    ) -> None:
        client, store = ends
        client.sendall(request_bytes(**fault))  # type: ignore[arg-type]
        with pytest.raises(TransferError, match=f"^{reason}$"):
            read_request(store, SECRET)

    def test_a_clock_may_be_off_by_less_than_the_window(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        client, store = ends
        client.sendall(request_bytes(late_seconds=transfer.SKEW_SECONDS - 5))
        assert read_request(store, SECRET).replica == REPLICA

    @pytest.mark.parametrize("place", ["verb", "size", "time", "nonce", "name", "tag"])
    def test_a_changed_byte_is_a_forgery(
        self, ends: tuple[socket.socket, socket.socket], place: str
    ) -> None:
        client, store = ends
        sent = bytearray(request_bytes())
        offsets = {"verb": 4, "size": 6, "time": 14, "nonce": 22, "name": 40, "tag": len(sent) - 1}
        sent[offsets[place]] ^= 1
        client.sendall(sent)
        with pytest.raises(TransferError, match="forged"):
            read_request(store, SECRET)

    def test_a_cut_one_is_rejected(self, ends: tuple[socket.socket, socket.socket]) -> None:
        client, store = ends
        client.sendall(request_bytes()[:-1])
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(TransferError, match="cut short"):
            read_request(store, SECRET)


class TestFile:
    """A file arrives whole, with a tag that belongs to the request, or leaves nothing behind."""

    TAG = b"t" * transfer.TAG_BYTES

    def receive(self, store: socket.socket, folder: Path, size: int = 6) -> Path:
        path = folder / REPLICA.name
        receive_file(store, SECRET, self.TAG, size, path)
        return path

    def digest(self, content: bytes) -> bytes:
        return keyed_hash(SECRET, self.TAG + content).digest()

    def test_whole(self, ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
        client, store = ends
        client.sendall(b"states" + self.digest(b"states"))
        assert self.receive(store, tmp_path).read_bytes() == b"states"
        assert [path.name for path in tmp_path.iterdir()] == [REPLICA.name]

    def test_empty(self, ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
        client, store = ends
        client.sendall(self.digest(b""))
        assert self.receive(store, tmp_path, size=0).read_bytes() == b""

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"stat", "cut short, 2 bytes are missing"),
            (b"states", "cut short"),
            (b"states" + bytes(transfer.TAG_BYTES), "damaged on the way"),
            (b"status" + keyed_hash(SECRET, TAG + b"states").digest(), "damaged on the way"),
            (b"states" + keyed_hash(SECRET, b"states").digest(), "damaged on the way"),
            (b"states" + keyed_hash(bytes(32), TAG + b"states").digest(), "damaged on the way"),
        ],
    )
    def test_damaged(
        self, ends: tuple[socket.socket, socket.socket], tmp_path: Path, sent: bytes, reason: str
    ) -> None:
        client, store = ends
        (tmp_path / REPLICA.name).write_bytes(b"before")
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(TransferError, match=reason):
            self.receive(store, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [REPLICA.name]
        assert (tmp_path / REPLICA.name).read_bytes() == b"before"


class TestClient:
    """`send_replica` and `fetch_replica` against a store of one request."""

    @pytest.fixture
    def serve(self) -> Iterator[Serve]:
        """Answers one connection; returns the address."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)
            threads = []

            def start(answer: Callable[[socket.socket], None]) -> tuple[str, int]:
                def run() -> None:
                    with listener.accept()[0] as connection:
                        connection.settimeout(10)
                        answer(connection)

                threads.append(threading.Thread(target=run))
                threads[-1].start()
                return ("127.0.0.1", listener.getsockname()[1])

            yield start
            for thread in threads:
                thread.join()

    def test_a_file_is_sent_under_its_own_name(self, serve: Serve, tmp_path: Path) -> None:
        source = tmp_path / REPLICA.name
        source.write_bytes(CONTENT)
        kept = tmp_path / "kept"
        kept.mkdir()
        requests = []

        def answer(connection: socket.socket) -> None:
            request = read_request(connection, SECRET)
            requests.append((request.verb, request.size))
            path = kept / request.replica.name
            receive_file(connection, SECRET, request.tag, request.size, path)
            reply(connection, SECRET, request, YES)

        send_replica(serve(answer), SECRET, source)
        assert requests == [(PUT, len(CONTENT))]
        assert (kept / REPLICA.name).read_bytes() == CONTENT

    def test_a_file_is_fetched(self, serve: Serve, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(CONTENT)

        def answer(connection: socket.socket) -> None:
            request = read_request(connection, SECRET)
            assert (request.verb, request.size) == (GET, 0)
            serve_replica(connection, SECRET, request, source)

        fetch_replica(serve(answer), SECRET, REPLICA.name, tmp_path)
        assert (tmp_path / REPLICA.name).read_bytes() == CONTENT

    def test_two_requests_of_one_instant_have_different_tags(
        self, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise an answer to the first would pass as one to the second."""
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now)
        (tmp_path / "source").write_bytes(b"states")
        tags = []

        def answer(connection: socket.socket) -> None:
            request = read_request(connection, SECRET)
            tags.append(request.tag)
            serve_replica(connection, SECRET, request, tmp_path / "source")

        for _ in range(2):
            fetch_replica(serve(answer), SECRET, REPLICA.name, tmp_path)
        assert len(set(tags)) == 2

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            # nothing at all; a refusal; an answer to another request; one with another secret
            (None, "the replica store closed the connection"),
            ((b"\x00", SECRET, b""), "has no such replica, or belongs to another run"),
            ((YES, SECRET, b"other"), "has no such replica, or belongs to another run"),
            ((YES, bytes(32), b""), "has no such replica, or belongs to another run"),
        ],
    )
    def test_an_answer_that_is_not_sealed_for_the_request_is_an_error(
        self, serve: Serve, tmp_path: Path, answer: tuple[bytes, bytes, bytes] | None, reason: str
    ) -> None:
        source = tmp_path / REPLICA.name
        source.write_bytes(b"states")

        def respond(connection: socket.socket) -> None:
            request = read_request(connection, SECRET)
            transfer.read_exactly(connection, request.size + transfer.TAG_BYTES)
            if answer:
                first, secret, other = answer
                tag = other or request.tag
                connection.sendall(first + keyed_hash(secret, tag + first).digest())

        with pytest.raises(TransferError, match=reason) as caught:
            send_replica(serve(respond), SECRET, source)
        assert str(caught.value).startswith(REPLICA.name)
        assert "\n" not in str(caught.value)
