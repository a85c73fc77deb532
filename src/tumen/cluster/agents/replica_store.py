"""The keeper: a thread of an agent that keeps, in its node's memory, what a neighbour's ranks give it, and hands it out again.

    /dev/shm/tumen-USER-RUN-HASH/NODE/attempt-000001-step-000000040-rank-2-of-4.safetensors    part of rank 2 (train/checkpoints/replicas.py)

When a node dies, its ranks' newest state is in a neighbour's memory, a few steps old, and not only in the last checkpoint.
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
FREE_SHARE = 0.1  # of the memory that copies leave
MOST_LINES = 16  # connections served at once
STALE_SECONDS = 24 * 3600.0  # by then every run has a newer checkpoint on disk


def replica_folder(job: Path, node: str) -> Path:
    """Where the copies of a job lie in a node's memory."""
    job, node = job.resolve(), node.replace("/", "-")
    digest = hashlib.blake2b(os.fsencode(job), digest_size=4).hexdigest()
    return MEMORY / f"tumen-{os.getuid()}-{job.name}-{digest}" / node


class ReplicaStore:
    """Keeps parcels until `close`.

    Args:
        folder: of this node, see `replica_folder`; made for its owner alone.
        secret: of the run.
        host: where it listens; loopback unless the nodes are other machines.

    Raises:
        EngineError: the folder is somebody else's, or nothing can listen there.
    """

    def __init__(self, folder: Path, secret: bytes, host: str = "127.0.0.1") -> None:
        self.folder, self.secret = folder, secret
        forget_stale(folder.parent.parent)
        own(folder.parent)
        own(folder)
        self.refused = 0
        self._seen: deque[tuple[float, bytes]] = (
            deque()
        )  # nonces that are young enough to be sent again
        self._lock, self._lines = threading.Lock(), threading.Semaphore(MOST_LINES)
        try:
            self._door = socket.create_server(
                (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            raise EngineError(
                f"keeper: {host} cannot be listened on ({error.strerror}); name an address of this node"
            ) from None
        self.address = f"{host}:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, name="keeper", daemon=True).start()

    def close(self, remove: bool = False) -> None:
        """Keep no more; `remove`: forget what is kept, the run is over."""
        self._door.close()
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(
                OSError
            ):  # other nodes of this machine still have something there
                self.folder.parent.rmdir()

    def _serve(self) -> None:
        while True:
            self._lines.acquire()
            try:
                line, _ = self._door.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        """One request. Whoever sends what is not to be believed gets no answer."""
        try:
            with line:
                line.settimeout(transfer.PATIENCE_SECONDS)
                self._answer(line, transfer.read_request(line, self.secret))
        except (transfer.TransferError, OSError):
            self.refused += 1
        finally:
            self._lines.release()

    def _answer(self, line: socket.socket, request: transfer.Request) -> None:
        self._refuse_again(request.nonce)
        path = self.folder / request.copy.name
        if request.verb == transfer.GET:
            if path.is_file():
                transfer.serve_replica(line, self.secret, request, path)
            else:
                transfer.reply(line, self.secret, request, transfer.NO + transfer.SIZE.pack(0))
            return
        space = os.statvfs(self.folder)
        if (
            request.size
            > space.f_bavail * space.f_frsize - FREE_SHARE * space.f_blocks * space.f_frsize
        ):
            raise transfer.TransferError("no room")
        transfer.receive_file(line, self.secret, request.seal, request.size, path)
        transfer.prune(self.folder, request.copy.rank)
        transfer.reply(line, self.secret, request, transfer.YES)

    def _refuse_again(self, nonce: bytes) -> None:
        """Refuse a request that was seen before."""
        now = time.monotonic()
        with self._lock:
            while self._seen and now - self._seen[0][0] > 2 * SKEW_SECONDS:
                self._seen.popleft()
            if any(nonce == seen for _, seen in self._seen):
                raise transfer.TransferError("seen before")
            self._seen.append((now, nonce))


def forget_stale(memory: Path) -> None:
    """Remove our copies of runs that were killed with their watcher: nothing was written there for `STALE_SECONDS`."""
    for job in memory.glob(f"tumen-{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            newest = max(path.lstat().st_mtime for path in (job, *job.glob("*"), *job.glob("*/*")))
            if not job.is_symlink() and time.time() - newest > STALE_SECONDS:
                shutil.rmtree(job)


def own(folder: Path) -> None:
    """Make a folder for its owner alone in memory that all users share.

    Raises:
        EngineError: somebody else made it.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EngineError(
            f"{folder}: cannot be made ({error.strerror}); copies in memory need it"
        ) from None
    if (
        not folder.is_dir()
        or folder.is_symlink()
        or found.st_uid != os.getuid()
        or found.st_mode & 0o077
    ):
        raise EngineError(f"{folder}: is not ours alone; remove it, copies in memory need it")
