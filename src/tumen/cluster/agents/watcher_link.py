"""The agent's UDP sockets: to the watcher, wherever it is now, and from the ranks of this node."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tumen.cluster.job_files import WATCHER_FILE
from tumen.core.errors import EngineError
from tumen.heartbeat import messages

WATCHER = "watcher"  # the sender of orders
KEEP_SECONDS = 5.0  # a watcher that answered so recently may be writing its address file anew
MOST_DATAGRAMS = 1000  # read at once, so that an agent cannot be kept busy


class WatcherLink:
    """Finds the watcher by the job's folder, sends it reports and receives its orders.

    Args:
        folder: of the job.
        secret: of the run.
        node: name of this node, as whom it sends.
        selector: the socket is registered with it while there is a watcher.
    """

    def __init__(
        self, folder: Path, secret: bytes, node: str, selector: selectors.BaseSelector
    ) -> None:
        self._file = folder / WATCHER_FILE
        self._selector = selector
        self._sender = messages.MessageSender(secret, node)
        self._receiver = messages.MessageReceiver(secret)
        self._socket: socket.socket | None = None
        self.address = ""  # host:port; "" without a watcher
        self.last_message = time.monotonic()

    @property
    def is_present(self) -> bool:
        """Whether there is a watcher."""
        return bool(self.address)

    @property
    def is_connected(self) -> bool:
        """Whether reports can be sent: the watcher's host name was resolved."""
        return self._socket is not None

    def silent_seconds(self, now: float) -> float:
        """Return the seconds since the watcher's last message."""
        return now - self.last_message

    def find(self) -> bool:
        """Read where the watcher is; it may have moved, started or ended.

        Returns:
            Whether it changed, so that this agent must identify itself.
        """
        address = self._published()
        # This is the usual case, once a second.
        if address == self.address:
            return False
        if self._socket:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        if address:
            # A host name that cannot be resolved now may be at the next look.
            try:
                self._socket = _connect(address)
            except (OSError, EngineError):
                return False
            self._selector.register(self._socket, selectors.EVENT_READ)
        self.address = address
        return True

    def _published(self) -> str:
        """Return the watcher's address as it is published, "" where there is no watcher."""
        try:
            return self._file.read_text("utf-8").strip()
        except OSError:
            # A watcher that answered just now may be writing the file anew.
            is_recent = self.silent_seconds(time.monotonic()) <= KEEP_SECONDS
            return self.address if is_recent else ""

    def send(
        self, attempt: int, heartbeats: Iterable[messages.Heartbeat], note: dict[str, Any]
    ) -> None:
        """Send a report. Nothing happens where that fails: the next one follows soon.

        Args:
            attempt: that the ranks are at.
            heartbeats: the last one of each rank.
            note: what else there is to say, as in `agent_report`.
        """
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.send(self._sender.message(attempt, heartbeats, note))

    def receive(self) -> Iterator[dict[str, Any]]:
        """Yield the notes that the watcher sent."""
        if self._socket is None:
            return
        for datagram in datagrams(self._socket):
            message = self._receiver.open(datagram)
            # An agent's own report that somebody sends back is authentic, but not an order.
            if message and message.sender == WATCHER:
                self.last_message = time.monotonic()
                yield message.note


def _connect(address: str) -> socket.socket:
    """Return a non-blocking socket to an address.

    Raises:
        OSError: the host name cannot be resolved.
        EngineError: the address is not host:port.
    """
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        link.setblocking(False)
        link.connect(messages.address_of(address))
    except BaseException:
        link.close()
        raise
    return link


class HeartbeatInbox:
    """Receives the heartbeats of this node's ranks, on loopback alone.

    Args:
        secret: of the run.
        selector: the socket is registered with it.
    """

    def __init__(self, secret: bytes, selector: selectors.BaseSelector) -> None:
        self._receiver = messages.MessageReceiver(secret)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        selector.register(self.socket, selectors.EVENT_READ)

    def receive(self) -> Iterator[messages.AuthenticatedMessage]:
        """Yield the messages that arrived."""
        for datagram in datagrams(self.socket):
            message = self._receiver.open(datagram)
            if message:
                yield message


def datagrams(link: socket.socket) -> Iterator[bytes]:
    """Yield the datagrams that arrived at a non-blocking socket."""
    for _ in range(MOST_DATAGRAMS):
        try:
            yield link.recv(messages.MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error of an earlier send: the watcher is not there


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
