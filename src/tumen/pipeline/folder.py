"""What a path on the command line stands for: a run, its recipe, its engine, a bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tumen.cluster.engines import Engine, connect
from tumen.core.errors import DiskError, InputError, RecipeError
from tumen.core.events import Events
from tumen.pipeline import stages as chain
from tumen.recipe import Recipe, changed, load_recipe
from tumen.release import signing, slot


def read_run_recipe(run: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe a run folder was started with, after `--set` changes.

    Raises:
        RecipeError: there is none.
    """
    path = run / "recipe.json"
    try:
        return changed(json.loads(path.read_text("utf-8")), changes, str(path))
    except FileNotFoundError:
        raise RecipeError(str(path), ["no such file; `tumen run RECIPE` starts a run"]) from None
    except ValueError:
        raise RecipeError(str(path), ["no JSON; `tumen run RECIPE` writes it anew"]) from None


def asked(
    run: Path, on: str | None = None, changes: list[str] | None = None
) -> tuple[Recipe, Path]:
    """The recipe and the folder of a run, which is named by its folder or by its recipe.

    Raises:
        RecipeError: neither.
    """
    changes = [*(changes or []), *([f"fleet.engine={json.dumps(on)}"] if on else [])]
    if run.suffix == ".toml":
        recipe = load_recipe(run, changes)
        return recipe, Path("runs") / recipe.name
    return read_run_recipe(run, changes), run


def engine_of(run: Path | None, on: str | None) -> Engine:
    """The engine that is named, or that of a run's recipe.

    Raises:
        InputError: neither is given.
    """
    if run:
        fleet = asked(run, on)[0].fleet
        return connect(fleet.engine, fleet)
    if not on:
        raise InputError(
            "which engine? give --on slurm, or a run or recipe that says it in [fleet]"
        )
    return connect(on)


def stage_of(recipe: Recipe, tier: str) -> chain.Stage:
    """The stage that trains a tier.

    Raises:
        InputError: there is none.
    """
    for stage in chain.stages(recipe):
        if stage.name == tier and stage.kind == "checkpoint":
            return stage
    raise InputError(f"{tier!r} is no tier of {recipe.name}; it has {', '.join(recipe.family)}")


def newest_run(root: Path = Path("runs")) -> Path:
    """The run folder that was used last.

    Raises:
        InputError: there is none.
    """
    runs = sorted(root.glob("*/recipe.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise InputError(
            f"no run in {root.resolve()}: start one with `tumen run recipes/pocket.toml`, or name its folder"
        )
    return runs[-1].parent


def device_bundle(path: Path) -> Path:
    """A bundle folder as it is, the device bundle of a run folder, or what is live in a place.

    Raises:
        InputError: neither.
    """
    if (path / "bundle.json").exists():
        return path
    if (path / "recipe.json").exists():
        return path / f"bundle-{read_run_recipe(path).serve.device}"
    if slot.is_slot(path):
        return slot.live_bundle(path)
    raise InputError(
        f"{path}: neither a bundle nor the folder of a run; `tumen run RECIPE` makes both"
    )


def admitted(path: Path, store: Path | None) -> Path:
    """The bundle that a path means, let in by the trust store; the run or place that it stands in hears if nobody signed it.

    Raises:
        InputError, ArtifactError: see `device_bundle` and `signing.check_trust`.
    """
    folder = device_bundle(path)
    above = folder.parents[1] if folder.parent.name == slot.BUNDLES else folder.parent
    kept = above / slot.EVENTS
    try:
        events = Events(kept if kept.exists() and os.access(kept, os.W_OK) else None)
    except DiskError:
        events = Events(None)
    signing.check_trust(folder, store, events)
    return folder


def cloud_bundle(bundle: Path) -> Path | None:
    """The cloud tier's bundle beside a device bundle, if its recipe names one that runs here."""
    from tumen.serve.runners import read_bundle_info

    serve = read_bundle_info(bundle).serve
    if not serve.cloud or serve.cloud_url or serve.cloud == serve.device:
        return None
    beside = (
        path for path in bundle.parent.glob("bundle-*") if path.is_dir()
    )  # a stranger's name leads nowhere else
    return next((path for path in beside if path.name == f"bundle-{serve.cloud}"), None)
