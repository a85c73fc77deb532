"""What the pocket recipe costs and gives: from nothing to a gated bundle.

In seconds and bytes of memory, with its scorecard.

    python benchmarks/pocket.py [--recipe recipes/pocket.toml] [--run FOLDER]
        [--out benchmarks/results/pocket.json] [--json]

Runs `tumen run RECIPE` in an empty folder, as `./dev run` does, and copies what the run says about
itself: seconds of every stage (events.jsonl), facts and digests of every artifact, the scorecard.
Memory is that of all processes of the run together: the kernel's proportional share (Pss, shared
pages counted once), read from /proc every `POLL_SECONDS`. Linux only. `./dev docs` takes the
result into README.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tumen.core import events, units
from tumen.core.artifact import hash_of, manifest_of
from tumen.pipeline.stages import stages
from tumen.recipe import load_recipe

POLL_SECONDS = 0.5
PR_SET_CHILD_SUBREAPER = (
    36  # linux/prctl.h: what loses its parent becomes our child, so that the tree stays whole
)
PACKAGES = ("tumen", "torch", "numpy", "tokenizers", "xllamacpp", "home-assistant-intents")
ROOT = Path(__file__).parents[1]


def tree_of(root: int) -> list[int]:
    """A process and all its descendants."""
    below: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            below[int(stat.read_text().rsplit(")", 1)[1].split()[1])].append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    found = [root]
    for pid in found:
        found += below[pid]
    return found


def memory_bytes(pid: int) -> int:
    """Proportional memory of a process; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0


def watched(command: list[str], environment: dict[str, str]) -> tuple[float, int, int]:
    """Run a command to its end; returns seconds, peak bytes of all its processes, number of looks
    at them.

    Raises:
        SystemExit: the command failed.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start, peak, looks = time.monotonic(), 0, 0
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            process.wait(POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            own = os.getpid()
            peak = max(peak, sum(memory_bytes(pid) for pid in tree_of(own) if pid != own))
            looks += 1
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - start, peak, looks


def machine() -> dict[str, Any]:
    """What it ran on."""
    about = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in about if line.startswith("model name")), ""
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "nice": os.getpriority(
            os.PRIO_PROCESS, 0
        ),  # below 0 it went before other work: say so beside every time
        "load_before": round(os.getloadavg()[0], 2),
    }


def result_of(run: Path, recipe: Path) -> dict[str, Any]:
    """What a finished run says about itself."""
    asked = load_recipe(recipe)
    names = [stage.name for stage in stages(asked)]
    card = run / f"bundle-{asked.serve.device}" / "scorecard"
    manifests = {name: manifest_of(run / name) for name in names}
    ended = (row for row in events.read(run / "events.jsonl", "stage") if row["state"] == "done")
    return {
        "recipe": asked.name,
        "recipe_hash": hash_of(asked.model_dump(mode="json", exclude_unset=True)),
        "stage_seconds": {row["name"]: row["seconds"] for row in ended},
        "digests": {name: manifest.digest for name, manifest in manifests.items()},
        "facts": {name: manifest.facts for name, manifest in manifests.items()},
        "bytes": {
            name: sum(file.bytes for file in manifest.files.values())
            for name, manifest in manifests.items()
        },
        "scorecard": json.loads((card / "scorecard.json").read_text("utf-8")),
        "gate": asked.gate.model_dump(),
    }


def measure(recipe: Path, run: Path) -> dict[str, Any]:
    """Run the recipe in an empty folder and collect everything."""
    if run.exists() and any(run.iterdir()):
        raise SystemExit(
            f"{run}: not empty, and what is done is not made again; name an empty folder"
        )
    about = machine()
    threads = os.environ.get("OMP_NUM_THREADS", str(about["cores"]))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    seconds, peak, looks = watched(
        [sys.executable, "-m", "tumen", "run", str(recipe), "--run", str(run)], environment
    )
    return {
        "command": f"python benchmarks/pocket.py --recipe {recipe}",
        "date": date.today().isoformat(),
        "machine": {**about, "threads": int(threads), "load_after": round(os.getloadavg()[0], 2)},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "memory_looks": looks,
        "largest_process_bytes": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        **result_of(run, recipe),
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=Path("recipes/pocket.toml"))
    parser.add_argument(
        "--run",
        type=Path,
        help="an empty folder that is kept; default: one that is removed at the end",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "pocket.json")
    parser.add_argument(
        "--json", action="store_true", help="print the result instead of three lines"
    )
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tumen-pocket-") as folder:
        result = measure(wanted.recipe, wanted.run or Path(folder) / "run")
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    wanted.out.write_text(text, "utf-8")
    if wanted.json:
        print(text, end="")
        return
    print(
        f"{wanted.recipe}: {units.show_seconds(result['seconds'])}, "
        f"peak memory {units.show_bytes(result['peak_bytes'])}"
    )
    print(
        ", ".join(
            f"{name} {units.show_seconds(seconds)}"
            for name, seconds in result["stage_seconds"].items()
        )
    )
    print(f"{wanted.out}: written; ./dev docs takes it into README.md")


if __name__ == "__main__":
    main()
