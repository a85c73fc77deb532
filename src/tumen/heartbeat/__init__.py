"""heartbeat: messages between ranks, agents and the watcher.

What: heartbeats of a rank, authenticated datagrams, file transfer between nodes over TCP.
In: the state of a rank; files that another node should hold.
Out: sealed messages and files; forged, truncated, replayed or out-of-window ones are dropped.
Never: torch, pickle, a network other than the run's own.
Read next: messages.py, then sender.py and transfer.py.
"""

from tumen.heartbeat import messages, sender, transfer
from tumen.heartbeat.messages import (
    HEARTBEAT_STRUCT,
    PHASES,
    SECRET,
    SKEW_SECONDS,
    Message,
    address_of,
    read_secret,
)
from tumen.heartbeat.transfer import Replica

__all__ = [
    "HEARTBEAT_STRUCT",
    "PHASES",
    "SECRET",
    "SKEW_SECONDS",
    "Message",
    "Replica",
    "address_of",
    "messages",
    "read_secret",
    "sender",
    "transfer",
]
