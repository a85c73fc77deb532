"""Lineage: the stages of a run as they are on disk, compared with what the recipe asks now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import ArtifactError
from tumen.pipeline.stage import Stage
from tumen.pipeline.stages import stages
from tumen.recipe import Recipe


@dataclass(frozen=True)
class Link:
    """A stage and the state of its artifact.

    Attributes:
        manifest: None where the artifact is missing or damaged.
        why: it is stale or damaged.
    """

    stage: Stage
    state: Literal["done", "stale", "damaged", "missing"]
    manifest: Manifest | None = None
    why: str = ""


def links(recipe: Recipe, run: Path) -> Iterator[Link]:
    """Yield the stages of a recipe with the states of their artifacts, parents first."""
    digests: dict[str, str] = {}
    outdated: set[str] = set()
    for stage in stages(recipe):
        link = _link(stage, run, digests, outdated)
        if link.manifest:
            digests[stage.name] = link.manifest.digest
        if link.state != "done":
            outdated.add(stage.name)
        yield link


def _link(stage: Stage, run: Path, digests: dict[str, str], outdated: set[str]) -> Link:
    """Return the state of one stage.

    Args:
        digests: of the stages before it.
        outdated: names of those before it that are not done.
    """
    folder = run / stage.name
    if not folder.exists():
        return Link(stage, "missing")
    try:
        manifest = manifest_of(folder, stage.kind)
    except ArtifactError as error:
        return Link(stage, "damaged", why=str(error))
    parents = [parent for parent in stage.parents if parent in outdated]
    if parents:
        return Link(stage, "stale", manifest, f"made from an older {', '.join(parents)}")
    if manifest.inputs != stage.inputs(digests):
        return Link(stage, "stale", manifest, "the recipe asks for something else now")
    return Link(stage, "done", manifest)
