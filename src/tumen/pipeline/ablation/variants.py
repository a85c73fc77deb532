"""The variants of an ablation as stages, and what each may spend.

corpus -> tokenizer -> dataset -> <teachers>       shared with `tumen run` of the same folder
    -> ablation/<variant>/seed-<n>                 checkpoints
    -> ablation/<variant>/bundle-<n>               bundles, if the variants are evaluated
    -> ablation/table                              table.json
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumen.core.artifact import manifest_of
from tumen.core.errors import InputError, PlanError
from tumen.core.shape import Shape
from tumen.data import Codec
from tumen.pipeline.ablation.step_pace import PaceStage, read_pace
from tumen.pipeline.ablation.variant_table import (
    TABLE,
    TableStage,
    variant_bundle,
    variant_checkpoint,
    variant_pace,
)
from tumen.pipeline.preparation import DATASET, TOKENIZER
from tumen.pipeline.stage import Stage
from tumen.pipeline.stages import packing_stages, preparation_stages, stages, training_stage
from tumen.plan import steps_within, training_compute
from tumen.recipe import Ablation, Recipe, Tier


def ablation_of(recipe: Recipe) -> Ablation:
    """Return the recipe's section of variants.

    Raises:
        InputError: it has none.
    """
    if recipe.ablation is None:
        raise InputError(f"{recipe.name} has no [ablation]; see recipes/ablation-pocket.toml")
    return recipe.ablation


def ablation_stages(recipe: Recipe, run: Path) -> Iterator[Stage]:
    """Yield what the variants need of the recipe's stages, then their own."""
    names = {stage.name for stage in preparation_stages(recipe)}
    for variant in ablation_of(recipe).each():
        names.update(teachers_of(recipe, recipe.variant(variant)))
    for stage in stages(recipe):
        if stage.name in names:
            yield stage
    yield from variant_stages(recipe, run)


def variant_stages(recipe: Recipe, run: Path) -> Iterator[Stage]:
    """Yield the stages of the variants, seed after seed; the table is last.

    An interrupted run has then compared all variants over the first seeds.

    They are yielded one by one: the steps of a variant depend on the tokenizer and on the paces,
    which are made before.
    """
    section = ablation_of(recipe)
    vocab = _vocab(run)
    if section.seconds:
        for name in section.each():
            yield pace_stage(name, recipe, vocab)
    tiers = {name: with_budget(recipe, run, name, vocab) for name in section.each()}
    made = []
    for seed in section.seeds:
        for name, tier in tiers.items():
            trained = training_stage(variant_checkpoint(name, seed), tier, recipe, seed)
            yield trained
            made.append(trained.name)
            if section.eval:
                bundle = variant_bundle(name, seed)
                yield from packing_stages(bundle, trained.name, tier, recipe, seed)
                made.append(bundle)
    spendings = {name: spending(recipe, run, tier, vocab) for name, tier in tiers.items()}
    yield TableStage(
        name=TABLE,
        parents=tuple(made),
        section=section,
        heading=heading(recipe),
        spendings=spendings,
        threads=recipe.serve.threads,
    )


def pace_stage(name: str, recipe: Recipe, vocab: int) -> PaceStage:
    """Return the stage that measures the step of a variant."""
    tier = recipe.variant(name)
    return PaceStage(
        name=variant_pace(name),
        parents=(),
        shape=whole_shape(tier, vocab),
        train=tier.train,
        fleet=recipe.fleet,
        recipe_name=recipe.name,
    )


def plan_ablation(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Return what every variant would spend; without a tokenizer, by the recipe's vocabulary.

    Raises:
        PlanError: the budget of a variant pays for no step.
    """
    vocab = recipe.tokenizer.vocab_size
    if (run / TOKENIZER).exists():
        vocab = _vocab(run)
    rows = []
    for name in ablation_of(recipe).each():
        tier = with_budget(recipe, run, name, vocab)
        rows.append({"name": name, **spending(recipe, run, tier, vocab)})
    return {**heading(recipe), "variants": rows}


def heading(recipe: Recipe) -> dict[str, Any]:
    """Return what all variants share: the budget and the seeds."""
    section = ablation_of(recipe)
    found: dict[str, Any] = {"recipe": recipe.name}
    if section.seconds:
        found["budget_seconds"] = section.seconds
    else:
        found["budget_flops"] = section.flops()
    found["seeds"] = list(section.seeds)
    return found


def with_budget(recipe: Recipe, run: Path, name: str, vocab: int) -> Tier:
    """Return a variant's tier with the steps that its budget pays for.

    Raises:
        PlanError: the budget pays for no step.
    """
    section = ablation_of(recipe)
    tier = recipe.variant(name)
    if section.seconds:
        pace = read_pace(run / variant_pace(name))
        steps = int(section.seconds // pace)
        if not steps:
            raise PlanError(
                f"ablation.{name}: one step takes {pace:.3g} s here, the budget is "
                f"{section.seconds:g} s; raise ablation.seconds"
            )
    else:
        shape = whole_shape(tier, vocab)
        steps = steps_within(section.flops(), shape, tier.train, f"ablation.{name}")
    train = tier.train.model_copy(update={"steps": steps})
    return tier.model_copy(update={"train": train})


def spending(recipe: Recipe, run: Path, tier: Tier, vocab: int) -> dict[str, Any]:
    """Return what one seed of a variant spends, and apart from it what its teachers cost.

    A teacher costs its training and, once the dataset is made, one pass over the dataset to ask it.
    """
    row: dict[str, Any] = training_compute(whole_shape(tier, vocab), tier.train).model_dump()
    row["teacher"] = None
    row["teacher_flops"] = 0
    row["start"] = tier.init_from and tier.init_from.path
    teachers = teachers_of(recipe, tier)
    if not teachers:
        return row
    training_flops = 0
    for name in teachers:
        teacher = recipe.family[name]
        training_flops += training_compute(whole_shape(teacher, vocab), teacher.train).flops
    dataset = run / DATASET
    tokens = manifest_of(dataset).facts["train_tokens"] if dataset.exists() else 0
    shape = whole_shape(recipe.family[teachers[0]], vocab)
    asking_flops = tokens * shape.flops_per_token(tier.train.seq_len)
    row["teacher"] = teachers[0]
    row["teacher_flops"] = training_flops + asking_flops
    return row


def teachers_of(recipe: Recipe, tier: Tier) -> list[str]:
    """Return the tiers that a tier is made from, those that they are made from, and so on."""
    found = list(tier.made_from())
    for name in found:  # grows while it is read
        found += [other for other in recipe.family[name].made_from() if other not in found]
    return found


def whole_shape(tier: Tier, vocab: int) -> Shape:
    """Return a tier's shape with its vocabulary."""
    return tier.decoder.model_copy(update={"vocab_size": vocab})


def _vocab(run: Path) -> int:
    """Return the vocabulary of the run's tokenizer."""
    return Codec.load(run / TOKENIZER).vocab
