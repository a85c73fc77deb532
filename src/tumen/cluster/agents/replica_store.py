"""The replica store: holds checkpoint replicas of other nodes' ranks in memory, in an agent.

    /dev/shm/tumen-USER-RUN-HASH/NODE/attempt-000001-step-000000040-rank-2-of-4.safetensors

When a node dies, the newest state of its ranks is in a neighbour's memory, a few steps old, and
not only in the last checkpoint. Ranks write and read such files in train/checkpoints/replicas.py;
heartbeat/transfer.py has the protocol.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import threading
import time
from collections import deque
from pathlib import Path

from tumen.core.errors import EngineError
from tumen.heartbeat import SKEW_SECONDS, transfer

MEMORY = Path("/dev/shm")
FREE_SHARE = 0.1  # of the memory that replicas leave free
MOST_CONNECTIONS = 16  # served at once
STALE_SECONDS = 24 * 3600.0  # by then every run has a newer checkpoint on disk


def replica_folder(job: Path, node: str) -> Path:
    """Return the folder of a job's replicas in a node's memory.

    Args:
        job: folder of the job.
        node: name of the node.
    """
    job = job.resolve()
    # Runs of the same name in other folders get other folders here.
    digest = hashlib.blake2b(os.fsencode(job), digest_size=4).hexdigest()
    of_job = MEMORY / f"tumen-{os.getuid()}-{job.name}-{digest}"
    return of_job / node.replace("/", "-")


class ReplicaStore:
    """Receives, keeps and serves replicas until `close`.

    Args:
        folder: of this node, see `replica_folder`; it is made readable by its owner alone.
        secret: of the run.
        host: where it listens; loopback unless the nodes are other machines.

    Attributes:
        address: host:port where it listens.
        rejected: number of requests that were not served.

    Raises:
        EngineError: the folder belongs to another user, or the address cannot be listened on.
    """

    def __init__(self, folder: Path, secret: bytes, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.secret = secret
        remove_stale(folder.parent.parent)
        make_private(folder.parent)
        make_private(folder)
        self.rejected = 0
        # Requests that are young enough to be replayed: (time, nonce), oldest first.
        self._seen: deque[tuple[float, bytes]] = deque()
        self._lock = threading.Lock()
        self._free_connections = threading.Semaphore(MOST_CONNECTIONS)
        self._socket = _listen(host)
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, name="replica store", daemon=True).start()

    def close(self, remove: bool = False) -> None:
        """Stop serving.

        Args:
            remove: remove the replicas too, as the run is over.
        """
        self._socket.close()
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)
            # It stays while other nodes of this machine have replicas in it.
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()

    def _accept(self) -> None:
        """Serve each connection in a thread of its own, until the socket is closed."""
        while True:
            self._free_connections.acquire()
            try:
                connection, _ = self._socket.accept()
            except OSError:  # the socket was closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one request. One that is not authentic gets no answer."""
        try:
            with connection:
                connection.settimeout(transfer.TIMEOUT_SECONDS)
                request = transfer.read_request(connection, self.secret)
                self._reject_replay(request.nonce)
                if request.verb == transfer.GET:
                    self._send(connection, request)
                else:
                    self._receive(connection, request)
        except (transfer.TransferError, OSError):
            self.rejected += 1
        finally:
            self._free_connections.release()

    def _send(self, connection: socket.socket, request: transfer.Request) -> None:
        """Send a replica, or that there is none.

        Args:
            connection: of the request.
            request: which replica is wanted.
        """
        path = self.folder / request.replica.name
        if path.is_file():
            transfer.serve_replica(connection, self.secret, request, path)
        else:
            missing = transfer.NO + transfer.SIZE.pack(0)
            transfer.reply(connection, self.secret, request, missing)

    def _receive(self, connection: socket.socket, request: transfer.Request) -> None:
        """Take a replica, and remove older ones of the same rank.

        Raises:
            TransferError: memory would become short, or the transfer failed.
        """
        space = os.statvfs(self.folder)
        free = space.f_bavail * space.f_frsize
        reserve = FREE_SHARE * space.f_blocks * space.f_frsize
        if request.size > free - reserve:
            raise transfer.TransferError("no room")
        path = self.folder / request.replica.name
        transfer.receive_file(connection, self.secret, request.tag, request.size, path)
        transfer.prune(self.folder, request.replica.rank)
        transfer.reply(connection, self.secret, request, transfer.YES)

    def _reject_replay(self, nonce: bytes) -> None:
        """Raise TransferError for a request that was seen before."""
        now = time.monotonic()
        with self._lock:
            # An older one is rejected by its time.
            while self._seen and now - self._seen[0][0] > 2 * SKEW_SECONDS:
                self._seen.popleft()
            for _, seen in self._seen:
                if nonce == seen:
                    raise transfer.TransferError("replayed")
            self._seen.append((now, nonce))


def _listen(host: str) -> socket.socket:
    """Return a socket that listens on a free port of an address of this node."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, 0), family=family)
    except OSError as error:
        raise EngineError(
            f"replica store: cannot listen on {host} ({error.strerror}); "
            "set the agent's --address to one of this node"
        ) from None


def remove_stale(memory: Path) -> None:
    """Remove this user's replicas of runs that were killed with all agents.

    Such runs wrote nothing for `STALE_SECONDS`.
    """
    for job in memory.glob(f"tumen-{os.getuid()}-*"):
        # Another agent may remove them at the same moment.
        with contextlib.suppress(OSError):
            paths = (job, *job.glob("*"), *job.glob("*/*"))
            newest = max(path.lstat().st_mtime for path in paths)
            is_stale = time.time() - newest > STALE_SECONDS
            if is_stale and not job.is_symlink():
                shutil.rmtree(job)


def make_private(folder: Path) -> None:
    """Make a folder for its owner alone, in memory that all users share.

    Raises:
        EngineError: it cannot be made, or it is open to other users.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EngineError(
            f"{folder}: cannot be made ({error.strerror}); replicas in memory need it"
        ) from None
    is_folder = folder.is_dir() and not folder.is_symlink()
    is_open = bool(found.st_mode & 0o077)
    is_ours = found.st_uid == os.getuid() and not is_open
    if not is_folder or not is_ours:
        raise EngineError(
            f"{folder}: other users can read or change it; remove it, replicas in memory need it"
        )
