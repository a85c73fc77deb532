"""Is this node fit? What an agent asks of its machine before a run and between attempts, and what the watcher makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Health:
    """Facts of a node. `multiply_seconds`: a small matrix product, best of a few. `cards`: what nvidia-smi counts, -1 without it."""

    disk_bytes: int
    memory_bytes: int
    writable: bool
    multiply_seconds: float
    cards: int = -1
    ailing: str = ""


def examine(folder: Path) -> Health:
    """Look at this machine; a tenth of a second."""
    raise NotImplementedError


def unfit(healths: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Nodes that should be left out, and why, from the facts of all nodes (`vars` of a `Health`)."""
    raise NotImplementedError
