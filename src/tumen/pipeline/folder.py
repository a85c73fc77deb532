"""What a path on the command line names: a run, its recipe, its engine, a bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tumen.cluster.engines import Engine, connect
from tumen.core.artifact import MANIFEST
from tumen.core.errors import DiskError, InputError, RecipeError
from tumen.core.events import Events
from tumen.pipeline.stages import bundle_of
from tumen.recipe import Recipe, load_recipe, recipe_of
from tumen.release import flagship, signing, slot
from tumen.serve.runners import read_bundle_info

RUNS = Path("runs")


def run_folder(recipe: Recipe, folder: Path | None) -> Path:
    """Return the folder of a recipe's run: the one that is given, or runs/<name>."""
    return folder or RUNS / recipe.name


def read_run_recipe(run: Path, changes: Sequence[str] = ()) -> Recipe:
    """Return the recipe that a run folder was started with, after `--set` changes.

    Raises:
        RecipeError: the folder has no recipe.json, or a damaged one.
    """
    path = run / "recipe.json"
    try:
        tree = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecipeError(str(path), ["no such file; `tumen run RECIPE` starts a run"]) from None
    except ValueError:
        raise RecipeError(str(path), ["not JSON; `tumen run RECIPE` writes it again"]) from None
    return recipe_of(tree, str(path), changes)


def recipe_and_run(
    path: Path, on: str | None = None, changes: Sequence[str] = ()
) -> tuple[Recipe, Path]:
    """Return the recipe and the folder of a run.

    Args:
        path: the folder, or the recipe's TOML file; then the folder is runs/<name>.
        on: replaces fleet.engine.
        changes: of fields, as `--set` takes them.

    Raises:
        RecipeError: the path is neither.
    """
    changes = list(changes)
    if on:
        changes.append(f"fleet.engine={json.dumps(on)}")
    if path.suffix == ".toml":
        recipe = load_recipe(path, changes)
        return recipe, run_folder(recipe, None)
    return read_run_recipe(path, changes), path


def engine_of(run: Path | None, on: str | None) -> Engine:
    """Return the engine that is named, or that of a run's recipe.

    Raises:
        InputError: neither is given.
    """
    if run:
        fleet = recipe_and_run(run, on)[0].fleet
        return connect(fleet.engine, fleet)
    if not on:
        raise InputError("no engine: give --on slurm, or a run or recipe whose [fleet] names one")
    return connect(on)


def newest_run(root: Path = RUNS) -> Path:
    """Return the run folder that was started last.

    Raises:
        InputError: there is none.
    """
    runs = sorted(root.glob("*/recipe.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise InputError(
            f"no run in {root.resolve()}: start one with `tumen run recipes/pocket.toml`, "
            "or name its folder"
        )
    return runs[-1].parent


def default_bundle(root: Path = RUNS) -> Path:
    """Return the bundle that is used where none is named.

    It is the evaluated device bundle of the run that was started last, or else the flagship.
    """
    runs = sorted(root.glob("*/recipe.json"), key=lambda path: path.stat().st_mtime)
    for recipe in reversed(runs):
        try:
            bundle = device_bundle(recipe.parent)
        except RecipeError:
            continue  # of an older tumen, or damaged
        if (bundle / signing.SCORECARD / MANIFEST).exists():
            return bundle
    return flagship.BUNDLE


def device_bundle(path: Path) -> Path:
    """Return a path's bundle: itself, the device bundle of a run, or the live bundle of a slot.

    Raises:
        InputError: the path is none of these.
    """
    if (path / "bundle.json").exists():
        return path
    if (path / "recipe.json").exists():
        return path / bundle_of(read_run_recipe(path).serve.device)
    if slot.is_slot(path):
        return slot.live_bundle(path)
    raise InputError(
        f"{path}: not a bundle, nor the folder of a run; `tumen run RECIPE` makes both"
    )


def trusted_bundle(path: Path, store: Path | None) -> Path:
    """Return the bundle that a path names, after its signature is checked.

    A bundle without a signature is reported in the events of the run or slot that holds it.

    Args:
        path: see `device_bundle`.
        store: a .pub file or a folder of them; None: the bundle must not be signed.

    Raises:
        InputError, ArtifactError: see `device_bundle` and `signing.check_trust`.
    """
    bundle = device_bundle(path)
    if bundle == flagship.BUNDLE:
        return bundle
    in_slot = bundle.parent.name == slot.BUNDLES
    if in_slot:
        owner = bundle.parents[1]
    else:
        owner = bundle.parent
    signing.check_trust(bundle, store, _events_of(owner))
    return bundle


def store_of(bundle: Path, store: Path | None) -> signing.TrustStore:
    """Return the trust store that a bundle is checked with; the flagship came with the code."""
    return "own" if bundle == flagship.BUNDLE else store


def _events_of(folder: Path) -> Events:
    """Return the events of a run or slot; in memory where the file is missing or read-only."""
    path = folder / slot.EVENTS
    if not (path.exists() and os.access(path, os.W_OK)):
        return Events(None)
    try:
        return Events(path)
    except DiskError:
        return Events(None)


def cloud_bundle(bundle: Path) -> Path | None:
    """Return the cloud tier's bundle beside a device bundle, if its recipe runs one here."""
    serve = read_bundle_info(bundle).serve
    if not serve.cloud or serve.cloud_url or serve.cloud == serve.device:
        return None
    # The name comes from an untrusted file: it is compared with folders, never made into a path.
    for folder in bundle.parent.glob("bundle-*"):
        if folder.is_dir() and folder.name == bundle_of(serve.cloud):
            return folder
    return None
