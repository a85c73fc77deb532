"""`tumen train RUN TIER`: what an engine starts. People use `tumen run`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from tumen.cluster.engines import die_with_parent
from tumen.core.errors import InputError
from tumen.heartbeat import sender
from tumen.pipeline import ablation as arms
from tumen.pipeline import stages as chain
from tumen.pipeline.folder import read_run_recipe
from tumen.pipeline.training.learn import end_at_once, learn, stand_by, told_why


def train(
    run: Path = typer.Argument(..., help="Folder of a run, with its recipe.json."),
    tier: str = typer.Argument(
        ..., help="Name of a tier of the recipe's family, or ablation/<variant>/seed-<n>."
    ),
    plan: Path = typer.Option(
        None, "--plan", help="A plan.json of `tumen plan --out`; default: the mesh of the recipe."
    ),
    profile: Path = typer.Option(
        None, help="Profile a few steps into this folder (trace.json, profile.md) and stop."
    ),
    standby: bool = typer.Option(
        False, "--standby", help="Load everything, then wait for one line of JSON: the environment."
    ),
) -> None:
    """Train one tier of a run under torchrun's variables (an engine calls this)."""
    die_with_parent()
    recipe = read_run_recipe(run)
    known = (
        arms.arm_stages(recipe, run) if tier.startswith(f"{arms.FOLDER}/") else chain.stages(recipe)
    )
    stage = next(
        (stage for stage in known if stage.name == tier and stage.kind == "checkpoint"), None
    )
    if stage is None or stage.settings is None:
        raise InputError(f"{tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}")
    if stage.settings.train.compile:  # before torch is loaded; nobody else's, and gone with the run
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((run / ".compiled").resolve()))
    if standby:
        stand_by()
    sender.current()  # from here on somebody may listen
    with told_why():
        if text := learn(run, recipe, stage, plan, profile):
            print(text)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        end_at_once()
