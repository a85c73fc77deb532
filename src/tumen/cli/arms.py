"""`tumen arms RECIPE`: train named variants of a tier at one budget and compare them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tumen.cli.board import Board
from tumen.core import units
from tumen.core.artifact import write_text
from tumen.core.errors import InputError
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.pipeline.ablation import TABLE, arms_of, plan_of, result, stages
from tumen.pipeline.make import make
from tumen.recipe import load_recipe


def arms(
    recipe: Path = typer.Argument(..., help="A recipe with [ablation], a TOML file."),
    folder: Path = typer.Option(
        None, "--run", help="Folder of the run; default: runs/<name of the recipe>."
    ),
    changes: list[str] = typer.Option(
        [], "--set", help="Change a field: ablation.budget=1e14. May be given often."
    ),
    plan: bool = typer.Option(
        False, "--plan", help="Only say what every arm would spend; trains nothing."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Train a recipe's arms at one budget over several seeds and compare them. Kill it at any moment; what is done stays done."""
    asked = load_recipe(recipe, changes)
    section = arms_of(asked)
    where = folder or Path("runs") / asked.name
    planned = (
        None if section.seconds else plan_of(asked, where)
    )  # an arm that fits no step is refused before anything is made
    if plan:
        if planned is None:
            raise InputError(
                "--plan: a budget in seconds is measured while it runs; set ablation.budget to plan"
            )
        print(json.dumps(planned, indent=1) if as_json else "\n".join(lines(planned)))
        return
    with alone(where):
        write_text(where / "recipe.json", asked.model_dump_json(indent=1))
        make(
            asked,
            where,
            Events(where / "events.jsonl"),
            Board(stderr=as_json),
            stages=stages(asked, where),
        )
    print(json.dumps(result(where), indent=1) if as_json else show(where))


def show(where: Path) -> str:
    """The table of a run, for people."""
    found = result(where)
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join(
        [
            *lines(found),
            f"measured by `{found['command']}` on {found['machine']}, load {found['load']}; {versions}; kept in {where / TABLE}",
        ]
    )


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A heading, a row for each arm, and what the columns mean; losses are there when there are any."""
    seeds = ", ".join(map(str, found["seeds"]))
    budget = (
        f"{_flops(found['budget_flops'])} FLOPs"
        if "budget_flops" in found
        else f"{found['budget_seconds']:g} s of steps"
    )
    yield f"{found['recipe']}: {budget} an arm and seed; seeds {seeds}"
    rows = [_cells(row, found) for row in found["arms"]]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in [{name: name for name in rows[0]}, *rows]:
        yield "  ".join(
            f"{row[name]:<{width}}" if name == "arm" else f"{row[name]:>{width}}"
            for name, width in widths.items()
        )
    if "loss" in found["arms"][0]:
        sure = (
            "95% interval over seeds (Student's t)"
            if len(found["seeds"]) > 1
            else "one seed: no interval"
        )
        yield f"loss: validation, nats a learnt token; {sure}; against: minus the first arm, seed by seed"
    yield "FLOPs: matmuls and scores of the steps, forward and backward; a teacher's, apart: its training and one pass to ask it"


def _cells(row: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
    """One row of the table as text, by column."""
    cells = {"arm": row["name"]}
    if "loss" in row:
        cells |= {
            "loss": _mean(row["loss"]),
            "against": _mean(row["against_first"], "+") if row["against_first"] else "-",
        }
    if "exam" in row:
        cells["exact"] = _mean(row["exam"])
    cells |= {
        "steps": f"{row['steps']:,}",
        "tokens": units.show_count(row["tokens"]),
        "weights": units.show_count(row["parameters"]),
        "active": units.show_count(row["active_parameters"]),
        "FLOPs": _flops(row["flops"]),
        "apart": f"{row['teacher']} {_flops(row['teacher_flops'])}"
        if row["teacher"]
        else "start"
        if row["start"]
        else "-",
        "KV bytes/token": f"{row['cache_bytes']:.0f}",
    }
    return cells | (
        {"tokens/s": f"{found['tokens_per_second'][row['name']]:,}"}
        if "tokens_per_second" in found
        else {}
    )


def _flops(value: float) -> str:
    """As `2.998e13`: four digits show that arms are equal."""
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{digits}e{int(power)}"


def _mean(mean: dict[str, Any], sign: str = "") -> str:
    if mean["low"] is None:
        return f"{mean['mean']:{sign}.4f} (no interval)"
    return f"{mean['mean']:{sign}.4f} [{mean['low']:{sign}.4f}, {mean['high']:{sign}.4f}]"
