"""The stages of a recipe: the only place that reads the whole of it.

corpus -> tokenizer -> dataset -> <teacher> -> <student> -> bundle-<tier> -> bundle-<tier>/scorecard
and between a tier and its bundle, where the recipe quantizes with calibration: -> <tier>-quant ->
<tier>-qat
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tumen.core.errors import ArtifactError, InputError
from tumen.eval import ALONE, CLOUD, DEVICE, TEACHER
from tumen.formats import digest_of_start, vocabulary_digest
from tumen.pipeline.evaluate import ScorecardStage
from tumen.pipeline.packing import BundleStage, QuantizationStage, qat_of, types_of
from tumen.pipeline.preparation import (
    CORPUS,
    DATASET,
    TOKENIZER,
    CorpusStage,
    DatasetStage,
    TokenizerStage,
)
from tumen.pipeline.stage import Stage
from tumen.pipeline.training.tier import QatStage, TrainingStage
from tumen.recipe import Recipe, Tier, Tokenizer


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Yield every stage of a recipe, parents first.

    Raises:
        InputError: weights to start from are missing or damaged.
    """
    yield from preparation_stages(recipe)
    for name in recipe.tiers_in_order():
        yield training_stage(name, recipe.family[name], recipe, recipe.seed)
    if recipe.data.is_text():
        return  # plain text has no actions: no bundle, no scorecard
    columns = evaluated_tiers(recipe)
    for name in dict.fromkeys(columns.values()):
        yield from packing_stages(bundle_of(name), name, recipe.family[name], recipe, recipe.seed)
    yield scorecard_stage(recipe, columns)


def preparation_stages(recipe: Recipe) -> Iterator[Stage]:
    """Yield the stages before training."""
    yield CorpusStage(CORPUS, (), recipe.data, recipe.seed)
    pretrained = _vocabulary_digest(recipe.tokenizer)
    yield TokenizerStage(TOKENIZER, (CORPUS,), recipe.tokenizer, pretrained)
    tokens = recipe.document_tokens()
    yield DatasetStage(DATASET, (CORPUS, TOKENIZER), tokens, recipe.data.engine)


def training_stage(name: str, tier: Tier, recipe: Recipe, seed: int) -> TrainingStage:
    """Return the stage that trains a tier.

    Raises:
        InputError: the weights to start from are missing or damaged.
    """
    return TrainingStage(
        name=name,
        parents=(DATASET, TOKENIZER, *tier.made_from()),
        tier=tier,
        seed=seed,
        fleet=recipe.fleet,
        recipe_name=recipe.name,
        start_digest=start_digest(name, tier.init_from.path) if tier.init_from else "",
    )


def packing_stages(
    name: str, tier_name: str, tier: Tier, recipe: Recipe, seed: int
) -> Iterator[Stage]:
    """Yield the stages that make a bundle of a trained tier.

    Args:
        name: of the bundle.
        tier_name: of the training stage.
        tier: its section.
        recipe: for its name, and the sections `serve` and `gate`.
        seed: of the calibration and the training on quantization types.
    """
    quantize = tier.quantize
    parents = [tier_name, TOKENIZER, CORPUS]
    if not quantize.plain:
        types = QuantizationStage(
            name=types_of(tier_name),
            parents=(tier_name, TOKENIZER, DATASET),
            tier=tier_name,
            quantize=quantize,
            recipe_name=recipe.name,
            seed=seed,
        )
        parents.append(types.name)
        yield types
    if quantize.qat:
        qat = qat_stage(tier_name, tier, recipe, seed)
        parents.append(qat.name)
        yield qat
    yield BundleStage(
        name=name,
        parents=tuple(parents),
        tier_name=tier_name,
        tier=tier,
        serve=recipe.serve,
        gate=recipe.gate,
        recipe_name=recipe.name,
    )


def qat_stage(tier_name: str, tier: Tier, recipe: Recipe, seed: int) -> QatStage:
    """Return the stage that trains a trained tier with its quantization types."""
    changes = {
        "train": tier.quantize.section(tier.train),
        "distil": None,  # its teacher is the trained tier
        "init_from": None,
        "prune": None,
    }
    return QatStage(
        name=qat_of(tier_name),
        parents=(tier_name, types_of(tier_name), DATASET, TOKENIZER),
        tier=tier.model_copy(update=changes),
        seed=seed,
        fleet=recipe.fleet,
        recipe_name=recipe.name,
    )


def scorecard_stage(recipe: Recipe, columns: Mapping[str, str]) -> ScorecardStage:
    """Return the stage that evaluates the bundles of some tiers, see `evaluated_tiers`."""
    bundles = {column: bundle_of(tier) for column, tier in columns.items()}
    teacher = teacher_of(recipe)
    return ScorecardStage(
        name=f"{bundles[DEVICE]}/scorecard",
        parents=(*dict.fromkeys(bundles.values()), CORPUS),
        bundles=tuple(bundles.items()),
        teacher=next((column for column, tier in columns.items() if tier == teacher), ""),
        gate=recipe.gate,
        threads=recipe.serve.threads,
        languages=recipe.data.languages,
    )


def find_training(known: Iterable[Stage], tier: str) -> TrainingStage:
    """Return the stage that trains a tier.

    Raises:
        InputError: names the tiers that there are.
    """
    names = []
    for stage in known:
        if isinstance(stage, TrainingStage):
            if stage.name == tier:
                return stage
            names.append(stage.name)
    raise InputError(f"there is no tier {tier!r}; the tiers are {', '.join(names)}")


def bundle_of(tier: str) -> str:
    """Return the name of a served tier's bundle."""
    return f"bundle-{tier}"


def teacher_of(recipe: Recipe) -> str:
    """Return the tier that the device tier learns from, "" without one."""
    distil = recipe.family[recipe.serve.device].distil
    return distil.teacher if distil else ""


def evaluated_tiers(recipe: Recipe) -> dict[str, str]:
    """Return the tiers that become bundles, by their column of the scorecard.

    They are the device's, the cloud's if it runs here, and what the gate compares besides: the
    device's teacher, and the tier that learns without it.
    """
    serve = recipe.serve
    columns = {DEVICE: serve.device}
    if serve.cloud and not serve.cloud_url and serve.cloud != serve.device:
        columns[CLOUD] = serve.cloud
    teacher = teacher_of(recipe)
    if teacher and teacher not in columns.values():
        columns[TEACHER] = teacher
    if teacher and recipe.gate.alone:
        columns[ALONE] = recipe.gate.alone
    return columns


def _vocabulary_digest(section: Tokenizer) -> str:
    """Return the digest of a tokenizer's pretrained vocabulary, "" for one that is learned."""
    if section.init_from is not None:
        return vocabulary_digest(Path(section.init_from))
    return ""


def start_digest(tier: str, path: str) -> str:
    """Return the digest of the weights that a tier starts from.

    Raises:
        InputError: names the recipe's field.
    """
    try:
        return digest_of_start(Path(path))
    except (ArtifactError, InputError) as error:
        if "/" in tier:
            field = tier.replace("/", ".")
        else:
            field = f"family.{tier}"
        raise InputError(f"{field}.init_from: {error}") from None
