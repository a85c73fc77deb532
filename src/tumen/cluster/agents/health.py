"""Is this node fit? What an agent asks of its machine before a run and while it goes on, and what the watcher makes of it."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

LEAST_DISK_BYTES = 64 << 20  # of the run's folder: below it not even logs and events are safe
LEAST_MEMORY_BYTES = 256 << 20
SLOW = (
    1.5  # times the other nodes' median: a card or core that is throttled, or shared with somebody
)
EVERY_SECONDS = 10.0  # between two looks while ranks train
SOON_SECONDS = 0.5  # between the two looks after ranks ended
CARDS_EVERY = 6  # looks: nvidia-smi is asked once a minute
SIZE, ROUNDS = 192, 5  # of the matrix product: a few milliseconds


@dataclass(frozen=True)
class Health:
    """Facts of a node. None: not looked at. `multiply_seconds`: a small matrix product, best of a few. `cards`: as nvidia-smi
    counts them, -1 where it is not installed; `ailing`: what it complains about.
    """

    disk_bytes: int
    memory_bytes: int
    writable: bool
    multiply_seconds: float | None = None
    cards: int | None = None
    ailing: str | None = None


def examine(folder: Path, quick: bool = False) -> Health:
    """Look at this machine and the run's folder; a tenth of a second, or next to nothing when `quick`."""
    common = _room(folder), _memory(), _writable(folder)
    return Health(*common) if quick else Health(*common, _multiply(), *_cards())


class Checkup(threading.Thread):
    """Looks at this machine while ranks train, in a thread of its own: a driver that hangs must not silence the agent.

    What two looks in a row complain of is so, and what one alone does is not. `health` is what others are told; `news` is true
    when it says something else than before, until somebody makes it false. `hurry`, set when ranks ended, asks for two looks at
    once: if a rank died of its machine, the watcher is to know before it has tried the same machine too often.
    """

    def __init__(self, folder: Path, health: Health) -> None:
        super().__init__(name="checkup", daemon=True)
        self.folder, self.health, self.news = folder, health, False
        self.hurry = threading.Event()
        self._before = complaint(vars(health))
        self._cards = health.cards if health.cards is not None else -1

    def run(self) -> None:
        """As long as the process lives."""
        for number in itertools.count(1):
            hurried = self.hurry.wait(EVERY_SECONDS)
            if hurried:
                self.hurry.clear()
                self.take(cards=True)
                time.sleep(SOON_SECONDS)
            self.take(hurried or number % CARDS_EVERY == 0)

    def take(self, cards: bool = False) -> None:
        """Look once; at the cards too, where there are some and it is asked for."""
        found = examine(self.folder, quick=True)
        count, ailing = (
            _cards() if cards and self._cards > 0 else (self.health.cards, self.health.ailing)
        )
        found = replace(
            found, multiply_seconds=self.health.multiply_seconds, cards=count, ailing=ailing
        )
        said, told = (complaint(vars(one), cards=self._cards) for one in (found, self.health))
        if said == self._before:
            self.health, self.news = found, self.news or said != told
        self._before = said


def unfit(healths: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Nodes that should be left out, and why, from the facts of all nodes (`vars` of a `Health`).

    A disk that all nodes share is nobody's fault: what every node complains of is not in it.
    """
    speeds = [
        float(one["multiply_seconds"]) for one in healths.values() if one.get("multiply_seconds")
    ]
    usual = (
        statistics.median(speeds) if len(speeds) > 2 else float("inf")
    )  # of two, none is the odd one
    counts = [one["cards"] for one in healths.values() if one.get("cards") is not None]
    most = statistics.mode(counts) if counts else -1
    said = {node: why for node, one in healths.items() if (why := complaint(one, usual, most))}
    return said if len(said) < len(healths) else {}


def complaint(one: Mapping[str, Any], usual: float = float("inf"), cards: int = -1) -> str:
    """What is wrong with a node, "" for nothing; `usual` and `cards` are the others' seconds of a product and their cards."""
    if one.get("ailing"):
        return str(one["ailing"])
    if not one.get("writable", True):
        return "it cannot write the run's folder"
    if one.get("disk_bytes", LEAST_DISK_BYTES) < LEAST_DISK_BYTES:
        return f"{one['disk_bytes'] >> 20} MiB of disk are free"
    if one.get("memory_bytes", LEAST_MEMORY_BYTES) < LEAST_MEMORY_BYTES:
        return f"{one['memory_bytes'] >> 20} MiB of memory are free"
    if one.get("cards") is not None and one["cards"] < cards:
        return f"it has {one['cards']} cards, the others have {cards}"
    if (one.get("multiply_seconds") or 0.0) > SLOW * usual:
        return f"it multiplies {one['multiply_seconds'] / usual:.1f} times slower than the others"
    return ""


def _room(folder: Path) -> int:
    """Free bytes of a folder's disk, none where it cannot be asked."""
    try:
        at = os.statvfs(folder)
    except OSError:
        return 0
    return at.f_bavail * at.f_frsize


def _memory() -> int:
    """Bytes a new process could have (proc(5), MemAvailable)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    return next(
        (int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 1 << 62
    )


def _writable(folder: Path) -> bool:
    probe = folder / f".probe-{os.uname().nodename}-{os.getpid()}"
    try:
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError:
        return False
    return True


def _multiply() -> float:
    """Seconds of a small matrix product, the best of a few: what disturbs for a moment is not the node's."""
    import numpy as np  # a tenth of a second that a quick look does without

    square = np.ones((SIZE, SIZE), np.float32)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - start)
    return best


def _cards() -> tuple[int, str]:
    """How many cards answer, and what is wrong with them. Not run here: there is no nvidia-smi.

    Fields: docs.nvidia.com/deploy/nvidia-smi.
    """
    asked = (
        "nvidia-smi",
        "--query-gpu=index,ecc.errors.uncorrected.volatile.total",
        "--format=csv,noheader,nounits",
    )
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return -1, ""
    except subprocess.TimeoutExpired:
        return -1, "nvidia-smi hangs"
    if done.returncode:
        return 0, f"nvidia-smi: {' '.join((done.stdout or done.stderr).split())[:200]}"
    rows = [line.split(",") for line in done.stdout.splitlines() if "," in line]
    broken = [index.strip() for index, errors in rows if errors.strip().isdigit() and int(errors)]
    return len(
        rows
    ), f"card {', '.join(broken)}: memory errors that could not be corrected" if broken else ""


if __name__ == "__main__":
    import json
    import sys

    print(json.dumps(vars(examine(Path(sys.argv[1] if sys.argv[1:] else "."))), indent=1))  # noqa: T201  a person asks
