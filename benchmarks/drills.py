"""Randomised drills, unattended: faults of all kinds on live runs.

Their weights must end as those of a run without faults.

    python benchmarks/drills.py [--drills 30] [--each 5] [--seed 0]
        [--out benchmarks/results/drills.json]

A tiny network trains on two local nodes under `tumen watch`, as it would for anybody. `--each`
faults are played on a run at steps and on ranks that the seed draws, with `tumen drill`; every
kind comes up before one comes up again. Then the run must end by itself, with the bytes of its
weights and the checksum of its samples as in the run nobody touched.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contest import circumstances, ended, headline, table, write

from tumen.cluster import INJECTABLE_FAULTS, DrillReport, measure_goodput
from tumen.cluster.watcher.snapshot import read_snapshot
from tumen.core import lifetime
from tumen.core.artifact import manifest_of
from tumen.core.errors import TumenError
from tumen.core.events import read
from tumen.pipeline import read_run_recipe
from tumen.pipeline.jobs import drill_tier, planned_goodput

ROOT = Path(__file__).parents[1]
TIER, SAVE_EVERY, RANKS = "cloud", 10, 2
BETWEEN_STEPS, START_STEPS = (
    20,
    25,
)  # from one fault to the next: two saves, and standbys that are ready or not
# A watcher learns within them what a step usually takes, without which nothing is slow; it takes a
# sample a second.
LEARN_STEPS = 350
STUCK_SECONDS = 240.0


def prepared(folder: Path, steps: int) -> Path:
    """A run whose data is made."""
    train = {
        "steps": steps,
        "checkpoint_every": SAVE_EVERY,
        "batch_size": 4,
        "seq_len": 96,
        "mesh": f"{{dp = {RANKS}}}",
    }
    changes = [f"family.{TIER}.train.{name}={value}" for name, value in train.items()]
    changes += ['fleet.engine="local"', "fleet.accelerators_per_node=1"]
    command = [
        sys.executable,
        "-m",
        "tumen",
        "run",
        str(ROOT / "tests" / "tiny.toml"),
        "--run",
        str(folder),
        "--until",
        "dataset",
    ]
    subprocess.run(
        [*command, *(word for change in changes for word in ("--set", change))],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@contextlib.contextmanager
def watched(run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run at work; what is left of it is ended afterwards."""
    with open(run / "watch.out", "wb") as out:
        command = [sys.executable, "-m", "tumen", "watch", str(run)]
        child = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lifetime.die_with_parent,
        )
    with ended(child):
        yield child


def step_of(run: Path) -> int:
    """The newest step that was told; it goes back after a fault."""
    rows = [
        row
        for row in read(run / "events.jsonl", tail_bytes=16384)
        if row["event"] in ("step", "checkpoint", "train")
    ]
    return int(rows[-1]["step"]) if rows else 0


def reached(run: Path, step: int, child: subprocess.Popen[bytes]) -> bool:
    """Whether a run comes to a step; one that makes none for long is stuck."""
    last, since = -1, time.monotonic()
    while (now := step_of(run)) < step:
        if now != last:
            last, since = now, time.monotonic()
        if child.poll() is not None or time.monotonic() - since > STUCK_SECONDS:
            return False
        time.sleep(0.1)
    return True


def learned(run: Path, child: subprocess.Popen[bytes]) -> None:
    """Wait until the watcher knows what is usual; without that nothing is slow."""
    end = time.monotonic() + STUCK_SECONDS
    while child.poll() is None and time.monotonic() < end:
        now = read_snapshot(run / "jobs" / TIER)
        if now and now.usual_seconds:
            return
        time.sleep(0.1)


def hurt(run: Path, faults: list[str], draw: random.Random) -> tuple[list[DrillReport], int | None]:
    """Play faults on a run from its start to its end; returns the reports and its exit code (None:
    it never ended)."""
    found: list[DrillReport] = []
    with watched(run) as child:
        due = START_STEPS
        for fault in faults:
            if not reached(run, due + draw.randrange(10), child):
                break
            try:
                if fault == "slow":
                    learned(run, child)
                found.append(drill_tier(run, TIER, fault, draw.randrange(1 << 30)))
            except TumenError as error:
                found.append(DrillReport(fault, str(error)))
            print(f"  {run.name} step {step_of(run)}: {found[-1]}", file=sys.stderr, flush=True)
            if found[-1].resumed_seconds is None:
                break
            due = max(due, step_of(run)) + BETWEEN_STEPS
        with contextlib.suppress(subprocess.TimeoutExpired):
            return found, child.wait(STUCK_SECONDS)
    return found, None


def left_by(run: Path) -> tuple[str, Any]:
    """The hash of a run's final weights, and the checksum of all its samples."""
    manifest = manifest_of(run / TIER)
    return manifest.files["weights.safetensors"].sha256, manifest.facts["seen"]


def kinds(count: int, draw: random.Random) -> list[str]:
    """So many kinds of faults, in turns of all of them, each turn in an order of its own."""
    found: list[str] = []
    while len(found) < count:
        found += draw.sample(list(INJECTABLE_FAULTS), len(INJECTABLE_FAULTS))
    return found[:count]


def rehearse(folder: Path, drills: int, each: int, seed: int) -> dict[str, Any]:
    """All drills, and the run nobody touched."""
    draw = random.Random(seed)
    template = prepared(
        folder / "whole", START_STEPS + LEARN_STEPS + each * (BETWEEN_STEPS + 12) + 20
    )
    faults, runs = kinds(drills, draw), []
    for number, first in enumerate(range(0, drills, each)):
        run = folder / f"run-{number}"
        shutil.copytree(template, run)
        found, code = hurt(run, faults[first : first + each], draw)
        book = measure_goodput(run, TIER, RANKS)
        runs.append(
            {
                "drills": [asdict(one) for one in found],
                "code": code,
                "goodput": book.goodput,
                "accelerator_seconds": book.accelerator_seconds,
            }
        )
        runs[-1]["left"] = left_by(run) if code == 0 else None
    with watched(template) as child:
        child.wait()
    whole = left_by(template)
    for run_said in runs:
        run_said["same"] = run_said["left"] == whole
    recipe = read_run_recipe(template)
    return {
        "asked": faults,
        "runs": runs,
        "whole": whole,
        "planned": planned_goodput(recipe, TIER, RANKS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drills", type=int, default=30)
    parser.add_argument("--each", type=int, default=5, help="faults on one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--keep", type=Path, help="a folder for the runs, instead of a temporary one"
    )
    given = parser.parse_args()
    result: dict[str, Any] = circumstances(["torch"]) | {
        "seed": given.seed,
        "nodes": 2,
        "ranks": RANKS,
    }
    with tempfile.TemporaryDirectory(prefix="drills-") as folder:
        result |= rehearse(given.keep or Path(folder), given.drills, given.each, given.seed)
    played = [one for run in result["runs"] for one in run["drills"]]
    print(headline(result))
    rows = []
    for fault in INJECTABLE_FAULTS:
        ones = [one for one in played if one["fault"] == fault]
        back = [one for one in ones if one["resumed_seconds"] is not None]
        if ones:
            middle = [
                f"{statistics.median(one[name] for one in back):.1f}" if back else "-"
                for name in ("seen_seconds", "resumed_seconds", "lost_steps")
            ]
            rows.append([fault, len(ones), sum(one["right"] for one in ones), len(back), *middle])
    print(
        table(
            ["fault", "played", "named right", "resumed", "seen, s", "resumed, s", "steps lost"],
            rows,
        )
    )
    same = sum(run["same"] for run in result["runs"])
    print(
        f"{same} of {len(result['runs'])} runs ended in the weights and samples "
        "of the one without faults"
    )
    write("drills", result, given.out)


if __name__ == "__main__":
    main()
