"""`tumen run RECIPE`: the whole chain. What is done stays; what a kill cut short goes on."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tumen.cli import chain
from tumen.core import units
from tumen.core.artifact import Manifest, done, verify, write_text
from tumen.core.errors import InputError, PlanError, TrainError
from tumen.core.events import Events, read
from tumen.core.lock import alone
from tumen.recipe import Recipe, load_recipe, mesh_of_plan, read_plan

POLL_SECONDS = 0.25
CLUSTER_POLL_SECONDS = 5.0  # a controller answers many people
PROFILE = Path("profile.json")  # what `tumen plan calibrate` writes
QUIET_SECONDS = 15.0  # without a terminal: one line of progress this often


def run(
    recipe: Path = typer.Argument(..., help="A recipe, a TOML file."),
    folder: Path = typer.Option(
        None, "--run", help="Folder of the run; default: runs/<name of the recipe>."
    ),
    changes: list[str] = typer.Option(
        [], "--set", help="Change a field: family.cloud.train.steps=10. May be given often."
    ),
    until: str = typer.Option(None, help="Stop after this stage, such as dataset or cloud."),
    plan: Path = typer.Option(
        None, "--plan", help="A plan.json of `tumen plan --out`; its tier trains on its mesh."
    ),
) -> None:
    """Take a recipe through the whole chain, from sentences to a gated bundle. Kill it at any moment; it goes on where it was."""
    asked = load_recipe(recipe, changes)
    where = folder or Path("runs") / asked.name
    names = [stage.name for stage in chain.stages(asked)]
    if until and until not in names:
        raise InputError(f"--until {until!r} is no stage; they are {', '.join(names)}")
    with alone(where):
        if plan:
            asked = planned(asked, plan)
            write_text(where / "plan.json", plan.read_text("utf-8"))
        write_text(where / "recipe.json", asked.model_dump_json(indent=1))
        events = Events(where / "events.jsonl")
        made = make(asked, where, events, until)
        if any(name in asked.family for name in made):
            predicted(where, events)
    if not made:
        print(f"{where}: everything this recipe asks for is there, nothing to do")
    card = where / f"bundle-{asked.serve.device}" / "scorecard"
    if card.exists():
        from tumen.eval import show

        print(show(card))
        print(f'try: tumen talk "turn on the kitchen light"      ({where})')


def planned(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with a plan's layout as the mesh of the tier it was made for.

    Raises:
        PlanError: no plan, or one for another tier or batch.
    """
    plan = read_plan(path)
    name = str(plan.get("name", "")).rpartition("/")[2]
    if name not in recipe.family:
        raise PlanError(
            f"{path}: planned for {plan.get('name')!r}, no tier of {recipe.name}; it has {', '.join(recipe.family)}"
        )
    tier = recipe.family[name]
    mesh = mesh_of_plan(plan, str(path), tier.train.rows, tier.train.row_tokens)
    train = tier.train.model_copy(update={"mesh": mesh})
    return recipe.model_copy(
        update={"family": {**recipe.family, name: tier.model_copy(update={"train": train})}}
    )


def predicted(where: Path, events: Events, profile: Path = PROFILE) -> None:
    """Print what the planner had said of the tiers' steps and memory beside what came; kept in the run's events."""
    from tumen.plan.accuracy import actual, load_profile, uncalibrated

    known = profile.exists()
    if not known:
        print(
            f"predicted for a generic machine; `tumen plan calibrate` makes a {profile} for this one"
        )
    for one in actual(where, load_profile(profile) if known else uncalibrated()):
        events.emit("plan_actual", **one.model_dump())
        print(one.line())


def make(
    recipe: Recipe,
    where: Path,
    events: Events,
    until: str | None = None,
    stages: Iterable[chain.Stage] | None = None,
    board: Board | None = None,
) -> list[str]:
    """Make every stage that is not done; returns the names of those made.

    Args:
        stages: default: the chain of the recipe. Taken one by one, so a later one may be decided by what an earlier one made.

    Raises:
        TumenError: the first stage that cannot be made; what was done before stays.
    """
    digests: dict[str, str] = {}
    made: list[str] = []
    _sweep(where)
    with board or Board() as board:
        for stage in chain.stages(recipe) if stages is None else stages:
            inputs = stage.inputs(digests)
            manifest = done(where / stage.name, stage.kind, inputs)
            if manifest is None:
                events.emit("stage", name=stage.name, state="started")
                start = time.monotonic()
                manifest = _make_stage(recipe, stage, where, inputs, digests, events, board)
                seconds = time.monotonic() - start
                events.emit(
                    "stage",
                    name=stage.name,
                    state="done",
                    seconds=round(seconds, 2),
                    digest=manifest.digest,
                )
                made.append(stage.name)
                board.line(
                    f"{stage.name:<24} {manifest.digest}  made in {units.show_seconds(seconds)}  {_told(manifest)}"
                )
            elif sys.stdout.isatty():
                board.line(f"{stage.name:<24} {manifest.digest}  done before")
            digests[stage.name] = manifest.digest
            if stage.name == until:
                break
    return made


def _sweep(where: Path) -> None:
    """Remove what killed writers left beside their artifacts; the lock says that none of them is at work."""
    for rest in list(where.rglob(".*")):
        if rest.suffix in (".new", ".old"):
            shutil.rmtree(rest, ignore_errors=True)
        elif rest.suffix == ".part":
            rest.unlink(missing_ok=True)


def _make_stage(
    recipe: Recipe,
    stage: chain.Stage,
    where: Path,
    inputs: str,
    digests: dict[str, str],
    events: Events,
    board: Board,
) -> Manifest:
    from tumen.data import write_corpus, write_dataset, write_tokenizer

    folder = where / stage.name
    if stage.kind == "checkpoint":
        return train_tier(recipe, stage, where, events, board)
    if stage.kind == "calibration":
        from tumen.cli.arms import write_pace

        return write_pace(recipe, stage, where, inputs)
    with board.task(stage.name) as update:
        if stage.kind == "grid":
            from tumen.cli.pack import choose_grid

            return choose_grid(recipe, stage, where, inputs, update)
        if stage.kind == "corpus":
            return write_corpus(recipe.data, recipe.seed, folder, inputs)
        if stage.kind == "tokenizer":
            return write_tokenizer(recipe.tokenizer, where / "corpus", folder, inputs)
        if stage.kind == "dataset":
            return write_dataset(
                where / "corpus",
                where / "tokenizer",
                folder,
                inputs,
                recipe.document_tokens(),
                recipe.data.engine,
            )
        if stage.kind == "bundle":
            from tumen.cli.pack import pack_and_check

            return pack_and_check(recipe, stage, where, inputs, events)
        if stage.kind == "arms":
            from tumen.cli.arms import write_table

            return write_table(recipe, where, inputs)
        from tumen.cli.score import score_run

        return score_run(recipe, where, inputs, events)


def train_tier(
    recipe: Recipe, stage: chain.Stage, where: Path, events: Events, board: Board
) -> Manifest:
    """Train a tier through the engine and follow its events. A cluster's job of this tier that lives already is followed.

    Raises:
        TrainError: it ended without a checkpoint; says why.
    """
    from tumen.cli.job import cause, job_of
    from tumen.cli.watch import expect, gave_up, guarded
    from tumen.cluster.engines import Cluster, connect
    from tumen.cluster.watcher import shown

    engine, job = connect(recipe.fleet.engine, recipe.fleet), job_of(recipe, stage, where)
    lives = isinstance(engine, Cluster) and not engine.status(str(job.folder)).ended
    since = 0.0 if lives else time.time()
    watched = not isinstance(engine, Cluster) and job.nodes * job.processes > 1
    if not lives:
        shutil.rmtree(job.folder, ignore_errors=True)
        if watched:
            expect(job.folder)
        engine.submit(job)
    job_id, said = str(job.folder), where / stage.tier
    with board.task(stage.name) as update, guarded(where, stage.tier, job, watched) as guard:
        try:
            while not (status := engine.status(job_id)).ended:
                _follow(said.with_name("events.jsonl"), since, said.name, update)
                for row in guard.look() if guard else ():
                    if row["event"] != "watch":
                        board.line(f"{stage.name}: {shown(row)}")
                time.sleep(CLUSTER_POLL_SECONDS if isinstance(engine, Cluster) else POLL_SECONDS)
        finally:
            engine.cancel(job_id)
    if status.state != "done":
        raise TrainError(
            f"{stage.tier}: {gave_up(job) or cause(engine.logs(job_id), status)} (log: {job.folder / 'log'})"
        )
    return verify(where / stage.name, "checkpoint")


def _follow(path: Path, since: float, tier: str, update: Callable[..., None]) -> None:
    """Show the newest step of a tier."""
    newest: dict[str, Any] | None = None
    for row in read(path, tail_bytes=4096):
        if row.get("event") in ("step", "logits") and row["time"] >= since:
            newest = row
    if newest and newest["event"] == "step" and newest["tier"] == tier:
        left = units.show_seconds(newest["seconds_left"])
        text = f"loss {newest['loss']:.3f}, {newest['tokens_per_second']:,} tokens/s, {left} left"
        update(newest["step"], newest["steps"], text)
    elif newest and newest["event"] == "logits":
        update(newest["step"], newest["steps"], f"logits of {newest['tier']}")


def _told(manifest: Manifest) -> str:
    facts = manifest.facts
    parts = []
    for name in (
        "train",
        "exam",
        "vocab",
        "train_tokens",
        "validation_loss",
        "tokens_per_second",
        "agreement",
    ):
        value = facts.get(name)
        if isinstance(value, (int, float)):
            parts.append(
                f"{name.replace('_', ' ')} {value:,}"
                if isinstance(value, int)
                else f"{name.replace('_', ' ')} {value}"
            )
    size = sum(file.bytes for file in manifest.files.values())
    return ", ".join([*parts, units.show_bytes(size)])


class Board:
    """Progress: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stderr: bool = False) -> None:
        self.console = Console(highlight=False, stderr=stderr)
        self.live = self.console.is_terminal
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self.progress = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> Board:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.progress.stop()

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[..., None]]:
        """One stage at work; yields update(step, steps, text)."""
        task = self.progress.add_task(name, total=None, text="")
        last = time.monotonic()

        def update(step: int, steps: int, text: str) -> None:
            nonlocal last
            self.progress.update(task, completed=step, total=steps, text=text)
            if not self.live and time.monotonic() - last > QUIET_SECONDS:
                last = time.monotonic()
                self.line(f"{name:<24} step {step} of {steps}, {text}")

        try:
            yield update
        finally:
            self.progress.remove_task(task)
