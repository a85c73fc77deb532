"""What a replica of a rank's state costs.

Written into this node's memory, sent to a neighbour's store, and fetched from there.

python benchmarks/memory_copies.py [--megabytes 256] [--times 5]

Prints one JSON line: seconds of CPU a gigabyte, medians. CPU, not the clock, as the machine may be
busy: copies are made by the training thread, sent by another, and kept by the agent's process,
which here is a thread of this one.
"""

from __future__ import annotations

import argparse
import json
import platform
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tumen.cluster.agents import ReplicaStore
from tumen.heartbeat import transfer
from tumen.heartbeat.messages import address_of


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    state = {
        f"weights.{n}": torch.randn(1 << 18) for n in range(asked.megabytes)
    }  # a megabyte each
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        own, secret = Path(folder), secrets.token_bytes(32)
        keeper = ReplicaStore(own / "memory" / "neighbour", secret)
        path = own / transfer.Replica(0, 1, 0, 1).name
        (own / "back").mkdir()
        done = {
            "write": lambda: save_file(state, path),
            "send and keep": lambda: transfer.send_replica(
                address_of(keeper.address), secret, path
            ),
            "fetch": lambda: transfer.fetch_replica(
                address_of(keeper.address), secret, path.name, own / "back"
            ),
            "read": lambda: load_file(path),
        }
        found = {
            name: cpu_seconds(act, asked.times) * 1000 / asked.megabytes
            for name, act in done.items()
        }
        keeper.close(remove=True)
    rounded = {name: round(seconds, 3) for name, seconds in found.items()}
    print(
        json.dumps(
            {
                "cpu_seconds_a_gigabyte": rounded,
                "megabytes": asked.megabytes,
                "machine": platform.processor() or "cpu",
            }
        )
    )


def cpu_seconds(act: Callable[[], object], times: int) -> float:
    """Median over `times`, all threads of this process."""
    found = []
    for _ in range(times):
        start = time.process_time()
        act()
        found.append(time.process_time() - start)
    return statistics.median(found)


if __name__ == "__main__":
    main()
