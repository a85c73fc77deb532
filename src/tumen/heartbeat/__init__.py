"""heartbeat: messages between ranks, agents and the watcher.

What: heartbeats of a rank, authenticated datagrams, transfer of checkpoint replicas between nodes.
In: phases and steps of a rank; files that another node should hold.
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
    AuthenticatedMessage,
    Heartbeat,
    address_of,
    read_secret,
)
from tumen.heartbeat.transfer import Replica

__all__ = [
    "HEARTBEAT_STRUCT",
    "PHASES",
    "SECRET",
    "SKEW_SECONDS",
    "AuthenticatedMessage",
    "Heartbeat",
    "Replica",
    "address_of",
    "messages",
    "read_secret",
    "sender",
    "transfer",
]
