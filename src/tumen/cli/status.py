"""`tumen status | nodes`: how a run and its machines are, in lines that are as few for 1,250 nodes as for one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from tumen.cli.options import JSON, ON, RUN
from tumen.cluster.engines import JobStatus, Node, connect, fold_hosts
from tumen.cluster.watcher import status_lines
from tumen.core import units
from tumen.core.events import read
from tumen.pipeline.folder import asked, engine_of
from tumen.pipeline.training.jobs import FOLDER, jobs, named_by


def status(run: Path = RUN, as_json: bool = JSON) -> None:
    """Say how a run's jobs are: waiting, running, silent (the engine does not answer), done, failed, cancelled or lost."""
    recipe, where = asked(run)
    engine = connect(recipe.fleet.engine, recipe.fleet)
    found = {tier: engine.status(str(where / FOLDER / tier)) for tier in jobs(recipe, where)}
    if as_json:
        print(json.dumps({tier: asdict(one) for tier, one in found.items()}, indent=1))
        return
    if not found:
        print(f"{where}: nothing was launched; `tumen launch {run}` does it")
    for tier, one in found.items():
        print(
            "\n  ".join(
                [
                    f"{tier}: {headline(one, where, tier)}",
                    *status_lines(where / FOLDER / tier, one.ended),
                ]
            )
        )


def headline(one: JobStatus, where: Path, tier: str) -> str:
    """What the engine and the training say of a job."""
    code = f" with exit code {one.exit_code}" if one.exit_code else ""
    parts = [
        f"{one.state}{code}",
        one.reason,
        named_by(where / FOLDER / tier),
        progress(where / tier),
    ]
    return ", ".join(part for part in parts if part)


def progress(said: Path) -> str:
    """The newest step of a tier, "" before the first."""
    steps = [
        row
        for row in read(said.with_name("events.jsonl"), "step", tail_bytes=65536)
        if row.get("tier") == said.name
    ]
    if not steps:
        return ""
    last = steps[-1]
    return f"step {last['step']} of {last['steps']}, loss {last['loss']:.3f}, {units.show_seconds(last['seconds_left'])} left"


def nodes(
    run: Path = typer.Argument(
        None, help="Folder of a run, or a recipe, for its [fleet]; needed without --on."
    ),
    on: str = ON,
    as_json: bool = JSON,
) -> None:
    """List the engine's nodes, those that are alike on one line: cards, and whether they take work."""
    found = engine_of(run, on).nodes()
    if as_json:
        print(json.dumps([asdict(node) for node in found], indent=1))
        return
    for line in alike(found):
        print(line)
    ready = [node for node in found if node.ready]
    print(
        f"{len(ready)} of {len(found)} nodes ready, {sum(node.accelerators for node in ready)} cards"
    )


def alike(found: Iterable[Node]) -> Iterator[str]:
    """Nodes with the same cards, and the same reason not to take work, on a line; the ready ones first."""
    groups: dict[tuple[bool, int, str], list[str]] = {}
    for node in found:
        groups.setdefault((not node.ready, node.accelerators, node.reason), []).append(node.name)
    for (away, cards, reason), names in sorted(groups.items()):
        yield f"{fold_hosts(names):<24} {cards:>3} cards  {reason if away else 'ready'}"
