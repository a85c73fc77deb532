"""What finished runs reach on public eval suites.

Intent, slots, refusals, size, time of a sentence on one thread.

    python benchmarks/eval_suites.py RUN [RUN ...] [--data FOLDER] [--suite home:slurp=FILE ...]
        [--out FILE]

Every run is evaluated on its own held-back sentences, and on public sets that its recipe was
written for and that training has not seen: files below `--data`, by default the folder `data`
where the recipes find theirs, too. `--suite RECIPE:NAME=FILE` names others. `tumen eval` asks the
device bundle, as anybody would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contest import circumstances, headline, table, write

from tumen.core import events, units
from tumen.core.artifact import manifest_of
from tumen.pipeline import read_run_recipe

# (recipe, suite, file below the folder of --data)
SUITES = (
    ("home", "massive", "massive"),
    ("home-decoder", "slurp", "slurp/devel.jsonl"),
    ("home-decoder", "slurp-home", "slurp/devel.jsonl"),
    ("slurp", "slurp", "slurp/devel.jsonl"),
    ("clinc150", "clinc", "clinc150/train_val.json"),
)
SHARES = ("intent", "exact", "slu_f1", "oos_recall", "false_acts")
WITHIN = ("in_scope", "oos_recall")


def evaluated(run: Path, asked: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """One row a suite: what `tumen eval --json` prints."""
    for suite, file in [("own", ""), *asked]:
        command = [sys.executable, "-m", "tumen", "eval", str(run), "--threads", "1", "--json"]
        command += ["--suite", suite, "--data", file] if file else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        yield json.loads(done.stdout)


def named(texts: list[str]) -> list[tuple[str, str, str]]:
    """Return (recipe, suite, file) of each `RECIPE:NAME=FILE`."""
    found = []
    for text in texts:
        recipe, _, rest = text.partition(":")
        suite, _, file = rest.partition("=")
        found.append((recipe, suite, file))
    return found


def below(folder: Path) -> list[tuple[str, str, str]]:
    """Return (recipe, suite, file) of each public set below a folder."""
    return [(recipe, suite, str(folder / file)) for recipe, suite, file in SUITES]


def about(run: Path) -> dict[str, Any]:
    """A run's recipe, what it cost, and its bundle."""
    recipe = read_run_recipe(run)
    bundle = manifest_of(run / f"bundle-{recipe.serve.device}", "bundle")
    ended = {
        row["name"]: row["seconds"]
        for row in events.read(run / "events.jsonl", "stage")
        if row["state"] == "done"
    }
    return {
        "recipe": recipe.name,
        "bytes": sum(file.bytes for file in bundle.files.values()),
        "agreement": bundle.facts.get("agreement"),
        "stage_seconds": ended,
        "seconds": round(sum(ended.values()), 1),
        "quantize": bundle.facts.get("quantize"),
    }


def cells(run: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    shares = ["-" if row[name] is None else f"{100 * row[name]:.1f}" for name in SHARES]
    times = [f"{row[name]:.0f}" for name in ("latency_ms_p50", "latency_ms_p95")]
    return [
        run["recipe"],
        row["suite"],
        f"{row['n']:,}",
        *shares,
        *times,
        units.show_bytes(run["bytes"]),
    ]


def shown(result: Mapping[str, Any]) -> str:
    """Tables in Markdown."""
    head = (
        "recipe",
        "suite",
        "n",
        "intent",
        "exact",
        "SLU-F1",
        "refused",
        "false acts",
        "p50 ms",
        "p95 ms",
        "bundle",
    )
    rows = [cells(run, row) for run in result["runs"] for row in run["suites"]]
    curves = [
        [run["recipe"], point["unsure"], *(f"{100 * point[name]:.1f}" for name in WITHIN)]
        for run in result["runs"]
        for row in run["suites"]
        for point in row["curve"] or ()
    ]
    parts = [headline(result), table(head, rows)]
    return "\n\n".join(
        [*parts, table(("recipe", "unsure below", "in scope", "out of scope refused"), curves)]
        if curves
        else parts
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the public sets")
    parser.add_argument("--suite", nargs="*", help="RECIPE:NAME=FILE; default: files below --data")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    asked = named(options.suite) if options.suite is not None else below(options.data)
    result = circumstances(("xllamacpp", "torch"))
    result["runs"] = []
    for run in options.runs:
        told = about(run)
        told["suites"] = list(
            evaluated(
                run, [(name, file) for recipe, name, file in asked if recipe == told["recipe"]]
            )
        )
        result["runs"].append(told)
    print(shown(result))
    write("eval_suites", result, options.out)


if __name__ == "__main__":
    main()
