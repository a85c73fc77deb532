"""The watcher's UDP socket: receives sealed reports of agents, and sends orders as replies."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumen.cluster.job_files import WATCHER_FILE
from tumen.core.artifact import write_text
from tumen.core.errors import EngineError, disk
from tumen.heartbeat import messages

NAME = "watcher"  # the sender of all that the watcher sends
BUFFER_BYTES = 8 << 20  # reports of 1,250 agents may arrive at once


class AgentChannel:
    """Messages from and to agents.

    Args:
        secret: of the run.
        file: where the address of the socket is published for the agents.
        address: of this machine, as the nodes reach it.

    Raises:
        EngineError: this machine has no such address.
    """

    def __init__(self, secret: bytes, file: Path, address: str) -> None:
        self._sender = messages.MessageSender(secret, NAME)
        self._receiver = messages.MessageReceiver(secret)
        self._socket = bind(file, address)
        self.addresses: dict[str, Any] = {}  # agent -> where its last report came from

    @property
    def skewed(self) -> dict[str, float]:
        """Senders whose clock is off, and by how many seconds."""
        return self._receiver.skewed

    def receive(self) -> list[messages.AuthenticatedMessage]:
        """Return the reports that arrived since the last call."""
        return [message for message in self._messages() if message.sender != NAME]

    def _messages(self) -> Iterator[messages.AuthenticatedMessage]:
        """Yield authentic messages until none is left, and note where agents sent them from."""
        while True:
            try:
                datagram, address = self._socket.recvfrom(messages.MAX_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # an agent is gone (ICMP); its silence will be detected
            message = self._receiver.open(datagram)
            if message:
                # A watcher's own message that somebody sends back is authentic, but not a report.
                if message.sender != NAME:
                    self.addresses[message.sender] = address
                yield message

    def send(self, agent: str, attempt: int, note: dict[str, Any]) -> None:
        """Send a note to an agent; nothing happens where that fails, as it is sent again."""
        with contextlib.suppress(OSError):
            datagram = self._sender.message(attempt, note=note)
            self._socket.sendto(datagram, self.addresses[agent])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def bind(file: Path, address: str) -> socket.socket:
    """Return a non-blocking socket whose address is written into `file`.

    The port of the watcher before is taken again if it is free, so that agents reach the new one
    without reading the file.

    Args:
        file: where the address is published for the agents.
        address: of this machine, as the nodes reach it.

    Raises:
        EngineError: this machine has no such address.
        DiskError: the file cannot be written.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    bound.setblocking(False)
    # 0: any free port.
    for port in (_port_before(file, address), 0):
        try:
            bound.bind((address, port))
        except OSError:
            continue
        with disk(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, f"{address}:{bound.getsockname()[1]}\n")
        return bound
    bound.close()
    raise EngineError(
        f"{address} is not an address of this machine; set --address to one that the nodes reach"
    )


def _port_before(file: Path, address: str) -> int:
    """Return the port that a watcher at the same address published, 0 where there is none."""
    try:
        host, port = messages.address_of(file.read_text("utf-8"))
    except (OSError, EngineError):
        return 0
    return port if host == address else 0


def announce_watcher(folder: Path, address: str = "127.0.0.1") -> None:
    """Publish an address in a job's folder before the job starts.

    Its agents wait for orders where they find one.

    Args:
        folder: of the job.
        address: of this machine, as the nodes reach it.

    Raises:
        EngineError: this machine has no such address.
        DiskError: the folder cannot be written.
    """
    bind(folder / WATCHER_FILE, address).close()
