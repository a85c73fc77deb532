"""`tumen train RUN TIER`: what an engine starts. People use `tumen run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from tumen.cli import arms, chain
from tumen.core import Events, InputError, RecipeError, TrainError, manifest_of
from tumen.core.recipe import Recipe, changed


def train(
    run: Path = typer.Argument(..., help="Folder of a run, with its recipe.json."),
    tier: str = typer.Argument(..., help="Name of a tier of the recipe's family, or arms/<arm>/seed-<n>."),
) -> None:
    """Train one tier of a run under torchrun's variables (an engine calls this)."""
    from tumen.cluster import die_with_parent

    die_with_parent()
    recipe = read_run_recipe(run)
    known = arms.arm_stages(recipe, run) if tier.startswith(f"{arms.FOLDER}/") else chain.stages(recipe)
    stage = next((stage for stage in known if stage.name == tier and stage.kind == "checkpoint"), None)
    if stage is None or stage.settings is None:
        raise InputError(f"{tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}")
    try:
        from tumen.data import Codec
        from tumen.shrink import distil
        from tumen.train import fit, start_from
    except ModuleNotFoundError as error:
        raise TrainError(f"training needs {error.name}, which is in the extra: pip install 'tumen[train]'") from None
    settings = stage.settings
    digests = {parent: manifest_of(run / parent).digest for parent in stage.parents}
    common: dict[str, Any] = {
        "seed": stage.seed,
        "inputs": stage.inputs(digests),
        "made_from": list(digests.values()),
        "events": Events((run / tier).with_name("events.jsonl")),
    }
    shape = settings.shape.model_copy(update={"vocab": Codec.load(run / "tokenizer").vocab})
    if settings.start:
        common["start"] = start_from(Path(settings.start), shape)
        common["made_from"] += [chain.start_digest(tier, settings.start)]
    if settings.distil:
        teacher = run / settings.distil.teacher
        distil(settings.train, shape, settings.distil, teacher, run / "dataset", run / tier, **common)
    else:
        fit(settings.train, shape, run / "dataset", run / tier, **common)


def read_run_recipe(run: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe a run folder was started with, after `--set` changes.

    Raises:
        RecipeError: there is none.
    """
    import json

    path = run / "recipe.json"
    try:
        return changed(json.loads(path.read_text("utf-8")), changes, str(path))
    except FileNotFoundError:
        raise RecipeError(str(path), ["no such file; `tumen run RECIPE` starts a run"]) from None
    except ValueError:
        raise RecipeError(str(path), ["no JSON; `tumen run RECIPE` writes it anew"]) from None
