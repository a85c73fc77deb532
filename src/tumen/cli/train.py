"""`tumen train RUN TIER`: what an engine starts. People use `tumen run`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from tumen.cli import arms, chain
from tumen.core import Events, InputError, RecipeError, TrainError, manifest_of, mesh_of_plan, read_plan
from tumen.core.recipe import Recipe, Train, changed


def train(
    run: Path = typer.Argument(..., help="Folder of a run, with its recipe.json."),
    tier: str = typer.Argument(..., help="Name of a tier of the recipe's family, or arms/<arm>/seed-<n>."),
    plan: Path = typer.Option(None, "--plan", help="A plan.json of `tumen plan --out`; default: the mesh of the recipe."),
    profile: Path = typer.Option(None, help="Profile a few steps into this folder (trace.json, profile.md) and stop."),
) -> None:
    """Train one tier of a run under torchrun's variables (an engine calls this)."""
    from tumen.cluster import die_with_parent

    die_with_parent()
    recipe = read_run_recipe(run)
    known = arms.arm_stages(recipe, run) if tier.startswith(f"{arms.FOLDER}/") else chain.stages(recipe)
    stage = next((stage for stage in known if stage.name == tier and stage.kind == "checkpoint"), None)
    if stage is None or stage.settings is None:
        raise InputError(f"{tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}")
    if stage.settings.train.compile:  # before torch is loaded; nobody else's, and gone with the run
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((run / ".compiled").resolve()))
    try:
        from tumen.data import Codec, refuse_other
        from tumen.shrink import distil, learn_grid, pruned
        from tumen.train import Adapter, fit, leave, profile_steps, start_from
    except ModuleNotFoundError as error:
        raise TrainError(f"training needs {error.name}, which is in the extra: pip install 'tumen[train]'") from None
    settings, codec = stage.settings, Codec.load(run / "tokenizer")
    section = meshed(settings.train, plan)
    shape = settings.shape.model_copy(update={"vocab": codec.vocab})
    if profile:
        print(profile_steps(section, shape, run / "dataset", profile, seed=stage.seed, tier=tier))
        return
    digests = {parent: manifest_of(run / parent).digest for parent in stage.parents}
    common: dict[str, Any] = {
        "seed": stage.seed,
        "inputs": stage.inputs(digests),
        "made_from": list(digests.values()),
        "events": Events((run / tier).with_name("events.jsonl")),
    }
    if settings.start:
        digest = chain.start_digest(tier, settings.start.path)
        common["made_from"] += [digest]
        rows = None
        if codec.vocabulary:
            refuse_other(codec.vocabulary, Path(settings.start.path))
            rows = codec.vocabulary.rows
        common["start"] = start_from(Path(settings.start.path), shape, settings.start.layers, rows)
        if settings.start.tune == "lora":
            base = settings.start.model_copy(update={"path": str(Path(settings.start.path).resolve())})
            common["adapter"] = Adapter(start=base, digest=digest, rows=rows)
    if settings.prune:
        common["start"] = pruned(run / settings.prune, shape, run / "dataset", section)
    if stage.name.endswith("-aware"):
        trained, grid = (run / parent for parent in stage.parents[:2])
        learn_grid(section, settings.quantise.teach, trained, grid, run / "dataset", run / tier, **common)
    elif settings.distil:
        teacher = run / settings.distil.teacher
        distil(section, shape, settings.distil, teacher, run / "dataset", run / tier, **common)
    else:
        fit(section, shape, run / "dataset", run / tier, **common)
    leave()


def meshed(section: Train, plan: Path | None) -> Train:
    """The section with the mesh of a plan, where there is one.

    Raises:
        PlanError: no plan, or one for another batch.
    """
    if plan is None:
        return section
    mesh = mesh_of_plan(read_plan(plan), str(plan), section.rows, section.row_tokens)
    return section.model_copy(update={"mesh": mesh})


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
