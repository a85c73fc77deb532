"""Cluster: how a training went: fault drills, goodput, metrics for other tools."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import typer

from tumen.cli.options import JSON, RUN, RUN_FOLDER, TIER
from tumen.cluster import GOODPUT_PARTS, INJECTABLE_FAULTS, DrillReport
from tumen.core import units
from tumen.core.errors import InputError, TrainError
from tumen.pipeline import Run, exporters, read_run_recipe, recipe_and_run
from tumen.pipeline.jobs import PATIENCE_SECONDS, Account, account_for, drill_tier, find_job

SECONDS_PER_HOUR = 3600
MAX_PORT = 65535


def drill(
    run: Path = RUN,
    fault: str = typer.Option(..., "--fault", help=f"One of {', '.join(INJECTABLE_FAULTS)}."),
    seed: int = typer.Option(0, "--seed", help="Decides which rank and node are hit."),
    tier: str = TIER,
    patience: float = typer.Option(
        PATIENCE_SECONDS, "--patience", help="Seconds to wait until the training goes on."
    ),
    as_json: bool = JSON,
) -> None:
    """Inject a fault into a training of this machine, and report how it was healed."""
    recipe, folder = recipe_and_run(run)
    job = find_job(Run(recipe, folder), tier)
    report = drill_tier(folder, job.tier, fault, seed, patience)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        print("\n".join(drill_lines(report)))
    # The report is printed in any case; a script learns of a failed drill by the exit code.
    if report.seen_seconds is None:
        raise TrainError(f"drill {fault}: not detected")
    if not report.right or report.resumed_seconds is None:
        raise TrainError(f"drill {fault}: not recovered as it should be")


def drill_lines(report: DrillReport) -> Iterator[str]:
    """Yield a drill's report for people.

    Args:
        report: of the injected fault; seconds count from the injection.
    """
    verdict = "" if report.right else ", which is wrong"
    yield f"{report.fault}: {report.victim}"
    yield f"  detected   {_after(report.seen_seconds)}"
    yield f"  diagnosed  {report.named or '-'}{verdict}"
    yield f"  resumed    {_after(report.resumed_seconds)}"
    yield f"  lost       {report.lost_steps} steps, {report.lost_seconds:.1f} s"


def _after(seconds: float | None) -> str:
    """Return when something happened, as text."""
    if seconds is None:
        return "never"
    return f"after {seconds:.1f} s"


def goodput(
    run: Path = RUN_FOLDER,
    tier: str = typer.Option(
        None, "--tier", help="Tier of the family; default: every tier that was trained."
    ),
    as_json: bool = JSON,
) -> None:
    """Report where the accelerator time of a training went, beside what the plan expects.

    Parts: productive, checkpoint, detection, restart, recomputed, idle.
    """
    accounts = account_for(read_run_recipe(run), run, tier)
    if as_json:
        print(json.dumps({one.tier: one.facts() for one in accounts}, indent=1))
        return
    for one in accounts:
        print("\n".join(goodput_lines(one)))


def goodput_lines(account: Account) -> Iterator[str]:
    """Yield a tier's goodput for people.

    Args:
        account: what was measured, and what the plan expects.
    """
    measured = account.measured
    counts = [f"{count} {kind}" for kind, count in sorted(measured.faults.items())]
    faults = ", ".join(counts) or "none"
    seconds = math.fsum(measured.seconds.values())
    yield (
        f"{account.tier}: {measured.steps:,} steps in {units.show_seconds(seconds)}, "
        f"{measured.steps_again:,} of them twice; faults: {faults}"
    )
    yield from _part_lines(measured.accelerator_seconds)
    line = f"  goodput    {measured.goodput:>8.2%}, the plan expects {account.planned:.1%}"
    if account.by_formula is not None:
        line += f"; its formula gives {account.by_formula:.1%} for these faults and checkpoints"
    yield line


def _part_lines(accelerator_seconds: Mapping[str, float]) -> Iterator[str]:
    """Yield a line for each part of the accelerator time: its share, and hours.

    Args:
        accelerator_seconds: part -> seconds, times the accelerators.
    """
    total = math.fsum(accelerator_seconds.values())
    for part in GOODPUT_PARTS:
        spent = accelerator_seconds[part]
        share = spent / total if total else 0.0
        hours = spent / SECONDS_PER_HOUR
        yield f"  {part:<11}{share:>8.2%}{hours:>14,.3f} accelerator-hours"


def metrics(
    run: Path = RUN_FOLDER,
    tensorboard: Path = typer.Option(
        None, help="Write TensorBoard's event files into this folder, one run for each tier."
    ),
    prometheus: str = typer.Option(
        None, help="Serve /metrics on HOST:PORT, or on 127.0.0.1 if only a port is given."
    ),
    textfile: Path = typer.Option(
        None, help="Write Prometheus' text into this file (*.prom), for node-exporter."
    ),
    follow: bool = typer.Option(
        False, "--follow", help="Continue while the run does; serving always does."
    ),
) -> None:
    """Export a run's training metrics to TensorBoard or Prometheus, live or afterwards."""
    # Else --follow would wait for a run that never starts.
    if not (run / "events.jsonl").exists():
        raise InputError(
            f"{run}: no events.jsonl; name the folder of a run (`tumen run RECIPE` starts one)"
        )
    if not (tensorboard or prometheus or textfile):
        raise InputError(
            "no export is named: give --tensorboard DIR, --prometheus HOST:PORT or --textfile FILE"
        )
    listen_on = address(prometheus) if prometheus else None
    exporters.export_metrics(
        run,
        tensorboard=tensorboard,
        prometheus=listen_on,
        textfile=textfile,
        follow=follow,
        report=_print_now,
    )


def address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `PORT`; loopback if no host is named.

    Raises:
        InputError: there is no port.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > MAX_PORT:
        raise InputError(f"--prometheus {text!r}: write it as HOST:PORT, such as 127.0.0.1:9400")
    host = host.strip("[]")  # of an IPv6 address
    return host or "127.0.0.1", int(port)


def _print_now(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)
