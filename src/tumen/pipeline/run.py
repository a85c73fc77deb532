"""A run: a recipe, its folder, and the making of every stage that is not done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tumen.core import units
from tumen.core.artifact import Manifest, done, write_text
from tumen.core.errors import InputError, PlanError
from tumen.core.events import Events
from tumen.core.lock import alone
from tumen.pipeline.stage import Progress, Stage, Work
from tumen.pipeline.stages import stages
from tumen.recipe import Mesh, Recipe, read_plan

# Facts of a manifest that a line about a finished stage shows.
SHOWN_FACTS = (
    "train",
    "eval",
    "vocab",
    "train_tokens",
    "validation_loss",
    "tokens_per_second",
    "agreement",
)
LABELS = {"eval": "eval sentences"}  # of facts whose name says too little


@dataclass(frozen=True)
class Run:
    """A recipe and the folder where its artifacts are made."""

    recipe: Recipe
    folder: Path

    def events(self) -> Events:
        """Return the writer of the run's events."""
        return Events(self.folder / "events.jsonl")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock while the block runs.

        Raises:
            RunnerBusy: another process works on this run.
        """
        with alone(self.folder):
            yield

    def write_recipe(self, plan: Path | None = None) -> None:
        """Write the recipe into the folder, for `tumen train` and for later commands.

        Args:
            plan: the plan.json that the recipe's mesh comes from; it is copied.
        """
        if plan:
            write_text(self.folder / "plan.json", plan.read_text("utf-8"))
        write_text(self.folder / "recipe.json", self.recipe.model_dump_json(indent=1))

    def build(
        self, progress: Progress, until: str | None = None, plan: Path | None = None
    ) -> list[str]:
        """Make everything that the recipe asks for; return the names of the stages made.

        The run's lock is held meanwhile, and the recipe is kept in the folder.

        Args:
            progress: where progress is shown.
            until: the last stage to make; default: all.
            plan: the plan.json that the recipe's mesh comes from.

        Raises:
            InputError: `until` is not a stage, or weights to start from cannot be read; nothing
                is made.
            RunnerBusy: another process works on this run.
            TumenError: a stage cannot be made; what was made before stays.
        """
        check_stages(self.recipe, until)
        with self.locked():
            self.write_recipe(plan)
            return self.make(progress, until)

    def make(self, progress: Progress, until: str | None = None) -> list[str]:
        """Make every stage of the recipe that is not done; return the names of those made.

        Args:
            progress: where progress is shown.
            until: the last stage to make; default: all.

        Raises:
            TumenError: a stage cannot be made; what was made before stays.
        """
        return self.make_stages(stages(self.recipe), progress, until)

    def make_stages(
        self, wanted: Iterable[Stage], progress: Progress, until: str | None = None
    ) -> list[str]:
        """Make stages that are not done, in their order.

        Args:
            wanted: taken one by one, so that a later stage may depend on what an earlier one made.
            progress, until: see `make`.
        """
        remove_leftovers(self.folder)
        events = self.events()
        digests: dict[str, str] = {}
        made = []
        with progress:
            for stage in wanted:
                name = stage.name
                inputs = stage.inputs(digests)
                manifest = done(self.folder / name, stage.kind, inputs)
                if manifest is None:
                    manifest = self._make(stage, inputs, events, progress)
                    made.append(name)
                elif progress.live:
                    progress.line(f"{name:<24} {manifest.digest}  done before")
                digests[name] = manifest.digest
                if name == until:
                    break
        return made

    def _make(self, stage: Stage, inputs: str, events: Events, progress: Progress) -> Manifest:
        """Make one stage, with events and a line about it."""
        events.emit("stage", name=stage.name, state="started")
        start = time.monotonic()
        with progress.task(stage.name) as update:
            manifest = stage.make(Work(self.folder, inputs, events, progress, update))
        seconds = time.monotonic() - start
        events.emit(
            "stage",
            name=stage.name,
            state="done",
            seconds=round(seconds, 2),
            digest=manifest.digest,
        )
        took = units.show_seconds(seconds)
        progress.line(f"{stage.name:<24} {manifest.digest}  made in {took}  {_facts(manifest)}")
        return manifest


def check_stages(recipe: Recipe, until: str | None) -> None:
    """Check that a recipe's pretrained models can be read and that `until` is a stage.

    Called before anything is made.

    Raises:
        InputError: says what is missing.
    """
    names = [stage.name for stage in stages(recipe)]
    if until and until not in names:
        raise InputError(f"--until {until!r} is not a stage; the stages are {', '.join(names)}")


def with_plan(recipe: Recipe, path: Path) -> Recipe:
    """Return the recipe with a plan's layout as the mesh of the tier that the plan is for.

    Raises:
        PlanError: the file is not a plan, or is one for another tier or batch.
    """
    plan = read_plan(path)
    name = str(plan.get("name", "")).rpartition("/")[2]
    if name not in recipe.family:
        raise PlanError(
            f"{path}: planned for {plan.get('name')!r}, which is not a tier of {recipe.name}; "
            f"it has {', '.join(recipe.family)}"
        )
    tier = recipe.family[name]
    mesh = Mesh.of_plan(plan, str(path), tier.train.batch_size, tier.train.seq_len)
    train = tier.train.model_copy(update={"mesh": mesh})
    family = {**recipe.family, name: tier.model_copy(update={"train": train})}
    return recipe.model_copy(update={"family": family})


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished folders and files of writers that were killed.

    The caller holds the run's lock, so no writer is at work.
    """
    for path in list(folder.rglob(".*")):
        if path.suffix in (".new", ".old"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".part":
            path.unlink(missing_ok=True)


def _facts(manifest: Manifest) -> str:
    """Return the facts of an artifact, and its size, for a line."""
    parts = []
    for name in SHOWN_FACTS:
        value = manifest.facts.get(name)
        label = LABELS.get(name, name.replace("_", " "))
        if isinstance(value, int):
            parts.append(f"{label} {value:,}")
        elif isinstance(value, float):
            parts.append(f"{label} {value}")
    parts.append(units.show_bytes(manifest.payload_bytes))
    return ", ".join(parts)
