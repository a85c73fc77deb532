"""The chain of a recipe: which artifact comes from which, what each was asked, and what is stale.

corpus -> tokenizer -> dataset -> <teacher> -> <student> -> bundle-<tier> -> bundle-<tier>/scorecard
and between a tier and its bundle, where the recipe quantises it with care: -> <tier>-quant -> <tier>-qat
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.core.artifact import Kind, Manifest, hash_of, manifest_of
from tumen.core.errors import ArtifactError, InputError
from tumen.formats import digest_of_start, vocabulary_digest
from tumen.recipe import Recipe, Tier, Tokenizer

# Raise a number when the code of a maker changes what it makes from the same inputs.
MAKERS: dict[Kind, int] = {
    "corpus": 4,
    "tokenizer": 2,
    "dataset": 1,
    "checkpoint": 3,
    "quant": 1,
    "bundle": 3,
    "scorecard": 1,
    "ablation": 1,
    "calibration": 1,
}


@dataclass(frozen=True)
class Stage:
    """One artifact of a run: its name (and folder), kind, the stages it is made from, and what it is asked besides them.

    A checkpoint's stage also says what is trained: `settings` and the `seed` of weights and order.
    """

    name: str
    kind: Kind
    parents: tuple[str, ...]
    asked: Any
    tier: str = ""
    settings: Tier | None = None
    seed: int = 0

    def inputs(self, digests: dict[str, str]) -> str:
        """Hash of everything that decides this artifact."""
        return hash_of(
            [
                self.kind,
                MAKERS[self.kind],
                self.asked,
                [digests.get(parent, "") for parent in self.parents],
            ]
        )


def stages(recipe: Recipe) -> Iterator[Stage]:
    """All stages of a recipe in an order that respects their parents."""
    data = recipe.data.model_dump(
        mode="json", exclude={"engine", "document_tokens"}
    )  # where it is made, and what comes later
    yield Stage("corpus", "corpus", (), {"data": data, "seed": recipe.seed})
    yield Stage(
        "tokenizer", "tokenizer", ("corpus",), {"tokenizer": vocabulary_asked(recipe.tokenizer)}
    )
    yield Stage(
        "dataset", "dataset", ("corpus", "tokenizer"), {"document_tokens": recipe.document_tokens()}
    )
    for name in recipe.tiers_in_order():
        yield learning(name, recipe.family[name], recipe.seed)
    if recipe.data.is_text():
        return  # nothing in it acts on a home: no bundle, no scorecard
    served = served_tiers(recipe)
    for name in served:
        yield from packing(f"bundle-{name}", name, recipe.family[name], recipe, recipe.seed)
    bundles = tuple(f"bundle-{name}" for name in served)
    yield Stage(
        f"bundle-{recipe.serve.device}/scorecard",
        "scorecard",
        (*bundles, "corpus"),
        {"gate": recipe.gate},
    )


def learning(name: str, tier: Tier, seed: int) -> Stage:
    """The stage that trains a tier."""
    parents = ("dataset", "tokenizer", *tier.made_from())
    learnt: dict[str, Any] = {
        "shape": tier.shape,
        "train": _deciding(tier.train.model_dump()),
        "distil": tier.distil,
        "seed": seed,
    }
    if tier.prune:
        learnt["prune"] = tier.prune
    if tier.init_from:
        learnt["start"] = start_digest(name, tier.init_from.path)
        learnt |= (
            {"layers": tier.init_from.layers} if isinstance(tier.init_from.layers, tuple) else {}
        )  # a number is in the shape
        learnt |= (
            {"lora": tier.init_from.model_dump(exclude={"path", "merge"})}
            if tier.init_from.tune == "lora"
            else {}
        )
    return Stage(name, "checkpoint", parents, learnt, name, tier, seed)


def packing(name: str, tier: str, settings: Tier, recipe: Recipe, seed: int) -> Iterator[Stage]:
    """The stages that make a bundle of a trained tier: where the recipe asks for it, its grids, and training on them."""
    quantise, parents = settings.quantize, [tier, "tokenizer", "corpus"]
    if not quantise.plain:
        asked = quantise.model_dump(include={"type", "budget", "types", "calibrate"}) | {
            "seed": seed,
            "name": recipe.name,
        }
        parents.append(f"{tier}-quant")
        yield Stage(
            f"{tier}-quant", "quant", (tier, "tokenizer", "dataset"), asked, tier, settings, seed
        )
    if quantise.qat:
        train = quantise.section(settings.train)
        asked = {"train": _deciding(train.model_dump()), "teach": quantise.teach, "seed": seed}
        parents.append(f"{tier}-qat")
        qat = settings.model_copy(
            update={"train": train, "distil": None, "init_from": None, "prune": None}
        )
        made_from = (tier, f"{tier}-quant", "dataset", "tokenizer")
        yield Stage(f"{tier}-qat", "checkpoint", made_from, asked, f"{tier}-qat", qat, seed)
    told: dict[str, Any] = {
        "quantise": quantise.word,
        "serve": recipe.serve,
        "gate": recipe.gate,
        "name": recipe.name,
    }
    told |= (
        {"merge": settings.init_from.merge}
        if settings.init_from and settings.init_from.tune == "lora"
        else {}
    )
    yield Stage(name, "bundle", tuple(parents), told, tier, settings)


def start_digest(tier: str, start: str) -> str:
    """Digest of the checkpoint or outside model that a tier starts from.

    Raises:
        InputError: there is none.
    """
    try:
        return digest_of_start(Path(start))
    except (ArtifactError, InputError) as error:
        field = tier.replace("/", ".") if "/" in tier else f"family.{tier}"
        raise InputError(f"{field}.init_from: {error}") from None


def vocabulary_asked(section: Tokenizer) -> Any:
    """What decides a tokeniser: the section, and whose vocabulary it takes."""
    if section.init_from is None:
        return section.model_dump(include={"vocab_size"})
    return {
        "start": vocabulary_digest(Path(section.init_from)),
        "trim": section.trim,
        "pieces": section.pieces,
    }


def served_tiers(recipe: Recipe) -> list[str]:
    """The tiers that become bundles: the device's, and the cloud's when it runs here."""
    cloud = recipe.serve.cloud if recipe.serve.cloud and not recipe.serve.cloud_url else None
    return [recipe.serve.device] + ([cloud] if cloud and cloud != recipe.serve.device else [])


def _deciding(train: dict[str, Any]) -> dict[str, Any]:
    """Fields of a train section that decide the weights: not how often it is saved, when it gives up, nor over how many ranks
    it is spread."""
    besides = ("checkpoint_every", "keep", "async_checkpoint", "spike", "mesh")
    return {name: value for name, value in train.items() if name not in besides}


@dataclass(frozen=True)
class Link:
    """A stage as it stands on disk: `state` is done, stale, damaged or missing."""

    stage: Stage
    state: str
    manifest: Manifest | None
    why: str = ""


def links(recipe: Recipe, run: Path) -> Iterator[Link]:
    """The chain of a run folder, compared with what the recipe asks today."""
    digests: dict[str, str] = {}
    stale: set[str] = set()
    for stage in stages(recipe):
        try:
            manifest = manifest_of(run / stage.name, stage.kind)
        except ArtifactError as error:
            missing = not (run / stage.name).exists()
            stale.add(stage.name)
            yield Link(
                stage, "missing" if missing else "damaged", None, "" if missing else str(error)
            )
            continue
        digests[stage.name] = manifest.digest
        old = [parent for parent in stage.parents if parent in stale]
        if old:
            stale.add(stage.name)
            yield Link(stage, "stale", manifest, f"made from an older {', '.join(old)}")
        elif manifest.inputs != stage.inputs(digests):
            stale.add(stage.name)
            yield Link(stage, "stale", manifest, "the recipe asks for something else now")
        else:
            yield Link(stage, "done", manifest)
