"""Make every stage of a run that is not done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from tumen.core import units
from tumen.core.artifact import Manifest, done
from tumen.core.events import Events
from tumen.data import write_corpus, write_dataset, write_tokenizer
from tumen.pipeline import stages as chain
from tumen.pipeline.ablation import write_pace, write_table
from tumen.pipeline.evaluate import score_run
from tumen.pipeline.packing import choose_grid, pack_and_check
from tumen.pipeline.progress import Progress
from tumen.pipeline.training.tier import train_tier
from tumen.recipe import Recipe


def make(
    recipe: Recipe,
    where: Path,
    events: Events,
    progress: Progress,
    until: str | None = None,
    stages: Iterable[chain.Stage] | None = None,
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
    with progress:
        for stage in chain.stages(recipe) if stages is None else stages:
            inputs = stage.inputs(digests)
            manifest = done(where / stage.name, stage.kind, inputs)
            if manifest is None:
                events.emit("stage", name=stage.name, state="started")
                start = time.monotonic()
                manifest = _make_stage(recipe, stage, where, inputs, digests, events, progress)
                seconds = time.monotonic() - start
                events.emit(
                    "stage",
                    name=stage.name,
                    state="done",
                    seconds=round(seconds, 2),
                    digest=manifest.digest,
                )
                made.append(stage.name)
                progress.line(
                    f"{stage.name:<24} {manifest.digest}  made in {units.show_seconds(seconds)}  {_told(manifest)}"
                )
            elif progress.live:
                progress.line(f"{stage.name:<24} {manifest.digest}  done before")
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
    progress: Progress,
) -> Manifest:
    folder = where / stage.name
    if stage.kind == "checkpoint":
        return train_tier(recipe, stage, where, events, progress)
    if stage.kind == "calibration":
        return write_pace(recipe, stage, where, inputs)
    with progress.task(stage.name) as update:
        if stage.kind == "quant":
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
            return pack_and_check(recipe, stage, where, inputs, events)
        if stage.kind == "ablation":
            return write_table(recipe, where, inputs)
        return score_run(recipe, where, inputs, events)


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
