"""Evaluate: a bundle on a suite, and variants of a tier against each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tumen.cli.board import Board
from tumen.cli.options import BUNDLE, CHANGES, JSON, NEW_RUN_FOLDER, TRUST
from tumen.core import units
from tumen.core.errors import InputError
from tumen.eval import scorecard_text
from tumen.eval.states import BOTH, UNDERSTANDINGS
from tumen.eval.suites import OWN, SUITES, DialogueSuite, suite_of
from tumen.pipeline import Run, evaluate, run_folder, trusted_bundle
from tumen.pipeline.ablation import TABLE, ablation_of, ablation_stages, plan_ablation, read_table
from tumen.recipe import load_recipe

RATES = {  # shares that only some suites have, and their titles
    "slu_f1": "SLU-F1",
    "slot_f1": "slot F1",
    "oos_recall": "out of scope refused",
    "false_acts": "false acts",
}


def eval_bundle(
    bundle: Path = BUNDLE,
    *,
    suite: str = typer.Option(
        OWN,
        help=f"{OWN} (the scorecard in the bundle), {', '.join(SUITES)} or package.module:SUITE.",
    ),
    data: Path = typer.Option(
        None,
        help="File or folder of the suite: a checkout of OHF-Voice/intents, a SLURP jsonl, "
        "CLINC150's JSON, a folder of SNIPS, a file or folder of MASSIVE, JSON lines of end states "
        "or a folder of them, a folder of home-assistant-datasets.",
    ),
    understanding: str = typer.Option(
        None,
        help="Who reads the sentences of the suites of a home (states, assist, ohf, slurp-home): "
        f"{', '.join(UNDERSTANDINGS)}, or for states package.module:function; default: {BOTH}, "
        "as `tumen talk` does.",
    ),
    threads: int = typer.Option(1, help="Threads of the runner."),
    store: Path = TRUST,
    as_json: bool = JSON,
) -> None:
    """Show a bundle's scorecard, or evaluate the bundle on a public data set."""
    folder = trusted_bundle(bundle, store)
    if suite == OWN and data is None:
        _show_scorecard(folder, as_json)
        return
    chosen = suite_of(suite)  # an unknown suite is the first error
    if data is None:
        raise InputError(f"--suite {suite} reads files of yours: name them with --data")
    result = evaluate.evaluate_suite(folder, suite, data, threads, store, understanding)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    elif isinstance(chosen, DialogueSuite):
        print("\n".join(chosen.lines(result)))
    else:
        print("\n".join(suite_lines(result)))


def _show_scorecard(bundle: Path, as_json: bool) -> None:
    """Print the scorecard in a bundle."""
    if as_json:
        print(json.dumps(evaluate.scorecard_summary(bundle), ensure_ascii=False))
    else:
        print(scorecard_text(bundle / "scorecard"))


def suite_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result of a suite for people: a line over all cases, and one for each group.

    Args:
        result: of `evaluate.evaluate_suite`.
    """
    yield f"suite {result['suite']}: {', '.join(_suite_parts(result))}"
    for name, column in result.get("columns", {}).items():
        yield _column_line(name, column)
    for name, row in sorted(result["by"].items()):
        yield _group_line(name, row)
    for fault in result.get("faults", ()):
        yield f"not counted: {fault}"


def _column_line(name: str, column: dict[str, Any]) -> str:
    """Return a line about one of several that read the same sentences.

    Args:
        name: `model`, `matcher` or `both`.
        column: its shares and times.
    """
    times = f"{column['latency_ms_p50']:.1f} ms median, {column['latency_ms_p95']:.1f} ms 95%"
    shares = f"intent {100 * column['intent']:5.1f}  exact {100 * column['exact']:5.1f}"
    return f"{name:<34}{column['n']:>6}  {shares}  {times}"


def _suite_parts(result: dict[str, Any]) -> Iterator[str]:
    """Yield the metrics over all cases of a suite.

    Args:
        result: shares of one; a metric that the suite does not have is None.
    """
    yield f"n {result['n']}"
    yield f"right intent {100 * result['intent']:.1f} %"
    yield f"exact {100 * result['exact']:.1f} %"
    if result.get("exact_home_known") is not None:
        yield f"the model with the home known {100 * result['exact_home_known']:.1f} %"
    for name, title in RATES.items():
        rate = result[name]
        if rate is not None:
            yield f"{title} {100 * rate:.2f} %"
    yield f"invented {result['invented']}"
    yield f"{result['latency_ms_p50']:.1f} ms median"
    yield f"{result['latency_ms_p95']:.1f} ms 95%"


def _group_line(name: str, row: dict[str, Any]) -> str:
    """Return a line about a group of cases, such as a language.

    Args:
        name: of the group.
        row: its shares, and the number of its cases.
    """
    intent = f"intent {100 * row['intent']:5.1f}"
    exact = f"exact {100 * row['exact']:5.1f}"
    line = f"  {name:<32}{row['n']:>6}  {intent}  {exact}"
    if row["false_acts"] is not None:
        line += f"  false acts {100 * row['false_acts']:.2f} %"
    if "slot_f1" in row:
        line += f"  slot F1 {100 * row['slot_f1']:5.1f}"
    return line


def ablate(
    recipe: Path = typer.Argument(..., help="A recipe with [ablation], a TOML file."),
    folder: Path = NEW_RUN_FOLDER,
    changes: list[str] = CHANGES,
    plan: bool = typer.Option(
        False, "--plan", help="Only print what every variant would spend; train nothing."
    ),
    as_json: bool = JSON,
) -> None:
    """Train a recipe's variants at one budget over several seeds, and compare them.

    Interrupt it at any time; rerun the same command to resume.
    """
    loaded = load_recipe(recipe, changes)
    section = ablation_of(loaded)
    this = Run(loaded, run_folder(loaded, folder))
    planned = None
    if not section.seconds:  # before anything is made: a budget that pays for no step is an error
        planned = plan_ablation(loaded, this.folder)
    if plan:
        if planned is None:
            raise InputError(
                "--plan: a budget in seconds is measured during the run; "
                "set ablation.budget to plan"
            )
        _print_table(planned, as_json)
        return
    with this.locked():
        this.write_recipe()
        stages = ablation_stages(loaded, this.folder)
        this.make_stages(stages, Board(stderr=as_json))
    table = read_table(this.folder)
    _print_table(table, as_json)
    if not as_json:
        print(_measured(table, this.folder))


def _print_table(table: dict[str, Any], as_json: bool) -> None:
    """Print the table of variants."""
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        print("\n".join(table_lines(table)))


def _measured(table: dict[str, Any], run: Path) -> str:
    """Return a line about the circumstances of the measurement.

    Args:
        table: has the command, the machine and the versions.
        run: folder of the run.
    """
    versions = ", ".join(f"{name} {number}" for name, number in table["versions"].items())
    return (
        f"measured by `{table['command']}` on {table['machine']}, load {table['load']}; "
        f"{versions}; kept in {run / TABLE}"
    )


def table_lines(table: dict[str, Any]) -> Iterator[str]:
    """Yield a heading, a row for each variant, and the meaning of the columns.

    Args:
        table: of trained variants, or of a plan, which has no losses.
    """
    seeds = ", ".join(str(seed) for seed in table["seeds"])
    yield f"{table['recipe']}: {_budget(table)} for each variant and seed; seeds {seeds}"
    rows = [_cells(row, table) for row in table["variants"]]
    yield from _column_lines(rows)
    if "loss" in table["variants"][0]:
        interval = "one seed: no interval"
        if len(table["seeds"]) > 1:
            interval = "95% interval over seeds (Student's t)"
        yield (
            f"loss: validation, nats a learned token; {interval}; "
            "against: minus the first variant, seed by seed"
        )
    yield (
        "FLOPs: matmuls and scores of the steps, forward and backward; "
        "a teacher's, apart: its training and one pass to ask it"
    )


def _column_lines(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield a line of headings and one for each row, with the columns below each other.

    Args:
        rows: column -> text; all have the same columns.
    """
    heading = {column: column for column in rows[0]}
    every = [heading, *rows]
    widths = {}
    for column in heading:
        widths[column] = max(len(row[column]) for row in every)
    for row in every:
        cells = [_aligned(column, row[column], width) for column, width in widths.items()]
        yield "  ".join(cells)


def _aligned(column: str, text: str, width: int) -> str:
    """Return a cell: the variant's name to the left, numbers to the right.

    Args:
        column: heading of the cell's column.
        text: of the cell.
        width: characters of the column.
    """
    if column == "variant":
        return f"{text:<{width}}"
    return f"{text:>{width}}"


def _budget(table: dict[str, Any]) -> str:
    """Return what each variant and seed may spend."""
    if "budget_flops" in table:
        return f"{_flops(table['budget_flops'])} FLOPs"
    return f"{table['budget_seconds']:g} s of steps"


def _cells(row: dict[str, Any], table: dict[str, Any]) -> dict[str, str]:
    """Return one row of the table as text, by column.

    Args:
        row: of one variant.
        table: that the row belongs to; its speeds stand beside the rows.
    """
    cells = {"variant": row["name"]}
    cells |= _quality_cells(row)
    cells |= {
        "steps": f"{row['steps']:,}",
        "tokens": units.show_count(row["tokens"]),
        "weights": units.show_count(row["parameters"]),
        "active": units.show_count(row["active_parameters"]),
        "FLOPs": _flops(row["flops"]),
        "apart": _spent_apart(row),
        "KV bytes/token": f"{row['cache_bytes']:.0f}",
    }
    if "tokens_per_second" in table:
        pace = table["tokens_per_second"][row["name"]]
        cells["tokens/s"] = f"{pace:,}"
    return cells


def _quality_cells(row: dict[str, Any]) -> dict[str, str]:
    """Return what training and evaluation gave, as far as they are done.

    Args:
        row: of one variant; a plan has neither losses nor shares.
    """
    cells = {}
    if "loss" in row:
        cells["loss"] = _mean(row["loss"])
        cells["against"] = "-"
        if row["against_first"]:
            cells["against"] = _mean(row["against_first"], "+")
    if "exact" in row:
        cells["exact"] = _mean(row["exact"])
    return cells


def _spent_apart(row: dict[str, Any]) -> str:
    """Return what a variant takes for granted: a teacher, or weights to start from."""
    if row["teacher"]:
        return f"{row['teacher']} {_flops(row['teacher_flops'])}"
    if row["start"]:
        return "start"
    return "-"


def _flops(value: float) -> str:
    """Return FLOPs as `2.998e13`: four digits show that variants are equal."""
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{digits}e{int(power)}"


def _mean(mean: dict[str, Any], sign: str = "") -> str:
    """Return a mean with its interval.

    Args:
        mean: {mean, low, high}.
        sign: "+" shows the sign of positive numbers.
    """
    text = f"{mean['mean']:{sign}.4f}"
    if mean["low"] is None:  # of one seed
        return f"{text} (no interval)"
    return f"{text} [{mean['low']:{sign}.4f}, {mean['high']:{sign}.4f}]"
