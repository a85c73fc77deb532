"""Node health: what an agent measures on its machine, and which nodes the watcher leaves out."""

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

LEAST_DISK_BYTES = 64 << 20  # in the run's folder; below it not even logs and events are safe
LEAST_MEMORY_BYTES = 256 << 20
SLOW_FACTOR = 1.5  # times the other nodes' median: a throttled or shared GPU or core
CHECK_SECONDS = 10.0  # between two checks while ranks train
RECHECK_SECONDS = 0.5  # between the two checks after ranks ended
GPU_EVERY = 6  # checks: nvidia-smi runs once a minute
GPU_SECONDS = 30.0  # for nvidia-smi
MATRIX_SIZE = 192  # of the measured product: a few milliseconds
MATRIX_ROUNDS = 5
UNKNOWN_BYTES = 1 << 62


@dataclass(frozen=True)
class Health:
    """Facts of a node; None where they were not measured.

    Attributes:
        disk_bytes: free in the run's folder.
        memory_bytes: free for a new process.
        writable: whether the run's folder can be written.
        multiply_seconds: of a small matrix product, the best of a few.
        accelerators: as nvidia-smi counts them, -1 where it is not installed.
        accelerator_fault: what nvidia-smi complains about, "" for nothing.
    """

    disk_bytes: int
    memory_bytes: int
    writable: bool
    multiply_seconds: float | None = None
    accelerators: int | None = None
    accelerator_fault: str | None = None


def examine(folder: Path, quick: bool = False) -> Health:
    """Measure this machine and the run's folder.

    Args:
        folder: of the run.
        quick: leave out the matrix product and the GPUs, which take a tenth of a second.
    """
    health = Health(_free_disk(folder), _free_memory(), _is_writable(folder))
    if quick:
        return health
    accelerators, fault = _accelerators()
    return replace(
        health,
        multiply_seconds=_multiply_seconds(),
        accelerators=accelerators,
        accelerator_fault=fault,
    )


class Checkup(threading.Thread):
    """Checks this machine while ranks train.

    It is a thread: a driver that hangs must not silence the agent.

    A complaint counts when two checks in a row have it. `hurry` asks for two checks at once: if a
    rank ended because of its machine, the watcher should know before it has tried the same machine
    too often.

    Args:
        folder: of the run.
        health: as it was at the start.

    Attributes:
        health: what the watcher is told.
        news: whether that changed; the agent resets it.
        hurry: an event, set by the agent when ranks ended.
    """

    def __init__(self, folder: Path, health: Health) -> None:
        super().__init__(name="checkup", daemon=True)
        self.folder = folder
        self.health = health
        self.news = False
        self.hurry = threading.Event()
        self._last_complaint = complaint(vars(health))
        self._accelerators = -1 if health.accelerators is None else health.accelerators

    def run(self) -> None:
        """Check as long as the process lives."""
        for number in itertools.count(1):
            hurried = self.hurry.wait(CHECK_SECONDS)
            # Two checks at once: a complaint counts when both have it.
            if hurried:
                self.hurry.clear()
                self.check(accelerators=True)
                time.sleep(RECHECK_SECONDS)
            self.check(accelerators=hurried or number % GPU_EVERY == 0)

    def check(self, accelerators: bool = False) -> None:
        """Check once, and the GPUs too where there are some and that is asked for."""
        count, fault = self.health.accelerators, self.health.accelerator_fault
        if accelerators and self._accelerators > 0:
            count, fault = _accelerators()
        # Multiplying would take CPU time from the ranks, so that fact stays as at the start.
        found = replace(
            examine(self.folder, quick=True),
            multiply_seconds=self.health.multiply_seconds,
            accelerators=count,
            accelerator_fault=fault,
        )
        now = complaint(vars(found), accelerators=self._accelerators)
        reported = complaint(vars(self.health), accelerators=self._accelerators)
        is_confirmed = now == self._last_complaint
        if is_confirmed:
            self.health = found
            if now != reported:
                self.news = True
        self._last_complaint = now


def unfit(healths: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the nodes that should be left out, and why.

    What every node complains about, such as a disk that they share, is not the fault of a node:
    then the result is empty.

    Args:
        healths: node -> `vars` of its `Health`.
    """
    usual_seconds = _usual_multiply_seconds(healths)
    accelerators = _usual_accelerators(healths)
    found = {}
    for node, health in healths.items():
        why = complaint(health, usual_seconds, accelerators)
        if why:
            found[node] = why
    if len(found) == len(healths):
        return {}
    return found


def _usual_multiply_seconds(healths: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the median of the nodes' matrix products, inf where it says nothing."""
    reported = [health.get("multiply_seconds") for health in healths.values()]
    seconds = [float(value) for value in reported if value]
    if len(seconds) <= 2:  # of two nodes neither is the outlier
        return float("inf")
    return statistics.median(seconds)


def _usual_accelerators(healths: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the number of GPUs that most nodes have, -1 where none was counted."""
    reported = [health.get("accelerators") for health in healths.values()]
    counts: list[int] = [count for count in reported if count is not None]
    if not counts:
        return -1
    return statistics.mode(counts)


def complaint(
    health: Mapping[str, Any], usual_seconds: float = float("inf"), accelerators: int = -1
) -> str:
    """Return what is wrong with a node, "" for nothing.

    Args:
        health: `vars` of its `Health`; facts may be missing.
        usual_seconds: of the matrix product on the other nodes.
        accelerators: number of GPUs of the other nodes.
    """
    own = _own_complaint(health)
    if own:
        return own
    count = health.get("accelerators")
    if count is not None and count < accelerators:
        return f"it has {count} GPUs, the others have {accelerators}"
    seconds = health.get("multiply_seconds") or 0.0
    if seconds > SLOW_FACTOR * usual_seconds:
        return f"it multiplies {seconds / usual_seconds:.1f} times slower than the others"
    return ""


def _own_complaint(health: Mapping[str, Any]) -> str:
    """Return what is wrong with a node whatever the other nodes have, "" for nothing."""
    if health.get("accelerator_fault"):
        return str(health["accelerator_fault"])
    if not health.get("writable", True):
        return "it cannot write the run's folder"
    disk_bytes = health.get("disk_bytes", LEAST_DISK_BYTES)
    if disk_bytes < LEAST_DISK_BYTES:
        return f"{disk_bytes >> 20} MiB of disk are free"
    memory_bytes = health.get("memory_bytes", LEAST_MEMORY_BYTES)
    if memory_bytes < LEAST_MEMORY_BYTES:
        return f"{memory_bytes >> 20} MiB of memory are free"
    return ""


def _free_disk(folder: Path) -> int:
    """Return the free bytes of a folder's disk, 0 where that cannot be read."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _free_memory() -> int:
    """Return the bytes that a new process can have (proc(5), MemAvailable)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return UNKNOWN_BYTES
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return UNKNOWN_BYTES


def _is_writable(folder: Path) -> bool:
    """Whether a file can be written into a folder."""
    # Named by node and process: several agents may probe the same folder.
    probe = folder / f".probe-{os.uname().nodename}-{os.getpid()}"
    try:
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError:
        return False
    return True


def _multiply_seconds() -> float:
    """Return the seconds of a small matrix product.

    The best of a few, so that a short disturbance does not count.
    """
    import numpy as np  # a tenth of a second, which a quick check saves

    square = np.ones((MATRIX_SIZE, MATRIX_SIZE), np.float32)
    best = float("inf")
    for _ in range(MATRIX_ROUNDS):
        start = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - start)
    return best


def _accelerators() -> tuple[int, str]:
    """Return how many GPUs answer, and what is wrong with them.

    Fields: docs.nvidia.com/deploy/nvidia-smi. Tested with a stand-in: this machine has none.
    """
    command = (
        "nvidia-smi",
        "--query-gpu=index,ecc.errors.uncorrected.volatile.total",
        "--format=csv,noheader,nounits",
    )
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GPU_SECONDS, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return -1, ""
    except subprocess.TimeoutExpired:
        return -1, "nvidia-smi hangs"
    if done.returncode:
        words = (done.stdout or done.stderr).split()
        return 0, f"nvidia-smi: {' '.join(words)[:200]}"
    return _parse_gpus(done.stdout)


def _parse_gpus(text: str) -> tuple[int, str]:
    """Return how many GPUs nvidia-smi lists, and which have memory errors.

    Args:
        text: a line `index, uncorrected errors` for each; "[N/A]" where a GPU has no ECC.
    """
    rows = [line.split(",") for line in text.splitlines() if "," in line]
    broken = []
    for index, errors in rows:
        if errors.strip().isdigit() and int(errors) > 0:
            broken.append(index.strip())
    if not broken:
        return len(rows), ""
    return len(rows), f"GPU {', '.join(broken)}: memory errors that could not be corrected"


if __name__ == "__main__":
    import json
    import sys

    folder = Path(sys.argv[1] if sys.argv[1:] else ".")
    print(json.dumps(vars(examine(folder)), indent=1))  # noqa: T201
