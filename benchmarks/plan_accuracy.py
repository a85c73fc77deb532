"""How wrong is the planner?

Errors in sample, 5-fold and with each source left out, beside a constant MFU.

    python benchmarks/plan_accuracy.py RUNS.csv            # the table
    python benchmarks/plan_accuracy.py RUNS.csv --write    # fit, and store the constants in
                  src/tumen/plan/facts/physics.toml

The last column is what we believe: a source nobody fitted.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tumen.plan.accuracy.fitting import FitTable, Fitted, fit
from tumen.plan.accuracy.published import Published, read
from tumen.plan.accuracy.report import dense_with_plan
from tumen.plan.model import bound
from tumen.plan.model.physics import NAMES
from tumen.plan.model.scenario import Array

FEWEST = 20  # rows: a fold of five must leave enough to fit the constants
CONSTANTS = Path(__file__).parents[1] / "src/tumen/plan/facts/physics.toml"


def without(table: FitTable, held: Array, start: Fitted) -> Array:
    """Predictions for the rows `held` marks from a fit on the others."""
    kept = [row for row, out in zip(table.rows, held, strict=True) if not out]
    found = fit(FitTable.of(kept), start=start.physics, rounds=6)
    prediction: Array = found.predict(table)[held]
    return prediction


def folds(table: FitTable, start: Fitted, count: int = 5) -> Array:
    """Predictions of `count`-fold cross-validation."""
    fold = np.random.default_rng(0).integers(0, count, len(table.rows))
    out = np.zeros(len(table.rows))
    for k in range(count):
        out[fold == k] = without(table, fold == k, start)
    return out


def left_out(table: FitTable, start: Fitted) -> Array:
    """Predictions with each source left out of its own fit; its releases have factor 1."""
    sources = np.array([row.source for row in table.rows])
    out = np.zeros(len(table.rows))
    for source in dict.fromkeys(sources):
        out[sources == source] = without(table, sources == source, start)
    return out


def constant_mfu(table: FitTable) -> Array:
    """The floor: one MFU a (generation, precision, experts), the median of the same rows."""
    scenarios = table.scenarios.take(table.starts)
    ideal = bound.arithmetic(scenarios.changed(recompute=0.0, redo_matmul=0.0))
    keys = [
        f"{g}/{p}/{e > 0}"
        for g, p, e in zip(
            scenarios.generation, scenarios.matmul_format, scenarios.n_routed_experts, strict=True
        )
    ]
    share = ideal / table.seconds
    middle = {key: np.median(share[[k == key for k in keys]]) for key in set(keys)}
    return np.array([i / middle[key] for i, key in zip(ideal, keys, strict=True)])


def line(name: str, chosen: Array, columns: list[Array], table: FitTable) -> str:
    """One row of the table: n, then median / p90 of each prediction."""
    cells = []
    for prediction in columns:
        error = np.abs(prediction / table.seconds - 1)[chosen] * 100
        cells.append(f"{np.median(error):6.1f} {np.quantile(error, 0.9):6.1f} {error.max():6.1f}")
    return f"{name:26s} {int(chosen.sum()):4d} | " + " | ".join(cells)


def write(found: Fitted, runs: Path, table: FitTable) -> None:
    """Store constants and factors with where they came from."""
    digest = hashlib.sha256(runs.read_bytes()).hexdigest()[:16]
    error = np.abs(found.predict(table) / table.seconds - 1)
    lines = [
        "# Written by benchmarks/plan_accuracy.py --write; see src/tumen/plan/model/physics.py "
        "for what each constant means.",
        "# One set for all rows. A factor belongs to a release of a framework; "
        "nothing is fitted to a row or a model.",
        "[provenance]",
        f'runs_sha256 = "{digest}"',
        f"rows = {len(table.rows)}",
        f"median_error = {np.median(error):.4f}",
        "",
        "[constants]",
        *[f"{name} = {getattr(found.physics, name):.6g}" for name in NAMES],
        "",
        "[factors]",
        *[f'"{name}" = {value:.4f}' for name, value in sorted(found.factors.items())],
    ]
    CONSTANTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows, refused = read(options.runs)
    if len({row.source for row in rows}) < 2 or len(rows) < FEWEST:
        parser.error(
            f"{options.runs}: {len(rows)} usable rows; a fit needs {FEWEST} of two sources"
        )
    table = FitTable.of(rows)
    found = fit(table)
    if options.write:
        write(found, options.runs, table)
    columns = [
        found.predict(table),
        folds(table, found),
        left_out(table, found),
        constant_mfu(table),
    ]
    print(
        f"{len(table.rows)} rows with a time, {len(refused)} refused; "
        "median / p90 / worst of the absolute error in percent"
    )
    print(
        f"{'':26s}    n | {'in sample':^20s} | {'5-fold':^20s} | {'source left out':^20s} | "
        f"{'constant MFU':^20s}"
    )
    groups: dict[str, Callable[[Published], bool]] = {
        "all": lambda row: True,
        "dense, published plan": dense_with_plan,
        "dense": lambda row: row.dense,
        "mixture of experts": lambda row: not row.dense,
    }
    for name, test in groups.items():
        print(line(name, np.array([test(row) for row in table.rows]), columns, table))
    for source in dict.fromkeys(row.source for row in table.rows):
        print(
            line(
                "  " + source,
                np.array([row.source == source for row in table.rows]),
                columns,
                table,
            )
        )
    print(
        "factors: "
        + ", ".join(f"{name} {value:.3f}" for name, value in sorted(found.factors.items()))
    )


if __name__ == "__main__":
    main()
