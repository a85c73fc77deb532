"""`tumen run RECIPE`: the whole chain. What is done stays; what a kill cut short goes on."""

from __future__ import annotations

from pathlib import Path

import typer

from tumen.cli.board import Board
from tumen.core.artifact import write_text
from tumen.core.errors import InputError
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.pipeline import stages as chain
from tumen.pipeline.make import make
from tumen.pipeline.training.tier import planned
from tumen.recipe import load_recipe

PROFILE = Path("profile.json")  # what `tumen plan calibrate` writes


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
        made = make(asked, where, events, Board(), until)
        if any(name in asked.family for name in made):
            predicted(where, events)
    if not made:
        print(f"{where}: everything this recipe asks for is there, nothing to do")
    card = where / f"bundle-{asked.serve.device}" / "scorecard"
    if card.exists():
        from tumen.eval import scorecard_text

        print(scorecard_text(card))
        print(f'try: tumen talk "turn on the kitchen light"      ({where})')


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
