"""Watch a training heal: two ranks train, one is killed, both go on from a checkpoint.

    python examples/heal_a_training.py [RUN]

Needs `pip install tumen[train]`; takes half a minute on this machine's processors. `tumen watch`
and `tumen goodput` are the commands of a cluster, too: `fleet.engine = "slurm"` in the recipe.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tumen.cluster import WATCH_FILE
from tumen.cluster.watcher import format_row
from tumen.core import events

RECIPE = Path(__file__).with_name("tiny.toml")
TUMEN = [sys.executable, "-m", "tumen"]
TIER = "cloud"
TRAIN = {"mesh.dp": 2, "steps": 400, "checkpoint_every": 10, "batch_size": 4, "seq_len": 96}
FAULT = "rank"  # SIGKILL of one rank; `tumen drill --help` lists the others
FAULT_STEP = 25  # two checkpoints are written by then


def tumen(*words: str) -> str:
    """Return what a command prints; an error ends this script, and its one line is on stderr."""
    done = subprocess.run([*TUMEN, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout.rstrip()


def newest_step(run: Path) -> int:
    """Return the newest step that the training has logged; 0 before the first."""
    rows = list(events.read(run / "events.jsonl", "step"))
    return int(rows[-1]["step"]) if rows else 0


def main() -> None:
    """Make the data, train under a watcher, kill a rank, print what the watcher did about it."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/heal")
    changes = [f"family.{TIER}.train.{name}={value}" for name, value in TRAIN.items()]
    sets = [word for change in changes for word in ("--set", change)]
    tumen("run", str(RECIPE), "--run", str(run), "--until", "dataset", *sets)
    watcher = subprocess.Popen([*TUMEN, "watch", str(run)], stdout=subprocess.DEVNULL)
    try:
        while watcher.poll() is None and newest_step(run) < FAULT_STEP:
            time.sleep(0.2)
        print(tumen("drill", str(run), "--fault", FAULT, "--tier", TIER))
        if watcher.wait():
            raise SystemExit(watcher.returncode)
    finally:
        watcher.terminate()
        watcher.wait()
    for row in events.read(run / "jobs" / TIER / WATCH_FILE):
        print(format_row(row))
    print(tumen("goodput", str(run), "--tier", TIER))


if __name__ == "__main__":
    main()
