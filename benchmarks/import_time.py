"""How long `import tumen.cli` takes, beside importing typer and pydantic alone.

    python benchmarks/import_time.py [--rounds 60] [--quick] [--out FILE]

Every import runs in a process of its own. The contestants alternate, in reversed order in every
other round, so that other work on the machine falls on all of them alike. The reference stands
twice: how far the two lie apart is the noise, and no ratio is printed finer than that. Seconds are
the processor time of the whole process (user and system), and the wall time beside it. Files are
in the page cache: a first round is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contest import circumstances, headline, noise_of, said, table, write

REFERENCE = "typer and pydantic"
PROGRAMS = {
    REFERENCE: "import typer, pydantic",
    f"{REFERENCE} again": "import typer, pydantic",
    "tumen.cli": "import tumen.cli",
    "python alone": "pass",
}
GOAL = 1.3  # of tumen.cli over the reference
QUICK_ROUNDS = 3


def measure(program: str) -> tuple[float, float]:
    """Return processor seconds and wall seconds of a process that runs a program."""
    before = _children_seconds()
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    wall = time.perf_counter() - start
    processor = _children_seconds() - before
    return processor, wall


def _children_seconds() -> float:
    """Return the processor seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def alternate(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the measurements of every program, one for each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for number in range(-1, rounds):
        names = list(PROGRAMS)
        for name in names if number % 2 == 0 else reversed(names):
            seconds = measure(PROGRAMS[name])
            if number >= 0:  # the round before fills the page cache
                found[name].append(seconds)
    return found


def summary(found: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Return medians, the noise of the two equals, and the ratio to the reference, by processor
    time and by wall time."""
    result: dict[str, Any] = {}
    for index, kind in enumerate(("processor", "wall")):
        seconds = {name: [pair[index] for pair in pairs] for name, pairs in found.items()}
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        noise = noise_of(seconds[REFERENCE], seconds[f"{REFERENCE} again"])
        ratio = medians["tumen.cli"] / medians[REFERENCE]
        result[kind] = {
            "medians_ms": {name: round(1000 * value, 1) for name, value in medians.items()},
            "noise": round(noise, 3),
            "ratio": round(ratio, 3),
            "said": said(ratio, noise),
        }
    return result


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row for each program: median processor time and wall time in milliseconds."""
    kinds = ("processor", "wall")
    return [[name, *(f"{result[kind]['medians_ms'][name]}" for kind in kinds)] for name in PROGRAMS]


def main() -> int:
    """Measure, print and keep the result; return 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="a few rounds: does it run?")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(["tumen", "typer", "pydantic", "rich"])
    rounds = QUICK_ROUNDS if given.quick else given.rounds
    result = {**about, "rounds": rounds, "goal": GOAL, **summary(alternate(rounds))}
    if given.json:
        print(json.dumps(result))
    else:
        print(headline(result))
        print(table(["import", "processor ms", "wall ms"], rows(result)))
        for kind in ("processor", "wall"):
            one = result[kind]
            print(
                f"{kind}: tumen.cli takes {one['ratio']} of the reference, goal {GOAL} "
                f"(noise {one['noise']}: {one['said']})"
            )
    if not given.quick or given.out:
        write("import_time", result, given.out)
    return 0 if result["processor"]["ratio"] <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
