"""Packing a tier into a bundle and holding it against torch before it takes its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tumen.core.artifact import Manifest, add_facts, replace_folder, verify
from tumen.core.errors import ExportError
from tumen.core.events import Events
from tumen.pipeline.stages import Stage
from tumen.recipe import Recipe


def pack_and_check(
    recipe: Recipe, bundle: Stage, where: Path, inputs: str, events: Events
) -> Manifest:
    """Write the bundle of a tier; it stands there only if llama.cpp writes what torch would.

    Raises:
        ExportError: agreement below the recipe's floor; an older bundle stays as it was.
    """
    from tumen.data import read_corpus
    from tumen.serve.runners import load_runner
    from tumen.shrink import check_export, pack

    if bundle.settings is None:
        raise ExportError(f"{bundle.name}: nothing says how {bundle.tier} is packed")
    tier, quantise = bundle.tier, bundle.settings.quantize
    trained, grid = (
        where / (f"{tier}-qat" if quantise.qat else tier),
        None if quantise.plain else where / f"{tier}-quant",
    )
    about = {
        "recipe": recipe.name,
        "tier": tier,
        "serve": recipe.serve.model_dump(),
        "gate": recipe.gate.model_dump(),
    }
    final = where / bundle.name
    stage = final.with_name(f".packing-{final.name}")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        merge = bool(bundle.settings.init_from and bundle.settings.init_from.merge)
        pack(
            trained,
            where / "tokenizer",
            where / "corpus",
            quantise.word,
            about,
            stage,
            inputs,
            grid,
            merge,
        )
        sentences = [row["sentence"] for row in read_corpus(where / "corpus", "exam")]
        with load_runner(stage, context=recipe.serve.context, store="own") as runner:
            checked = check_export(
                where / tier,
                where / "tokenizer",
                sentences,
                lambda prompt: list(runner.complete(prompt, logprobs=False).tokens),
                recipe.gate.agreement,
                stage / "model.gguf",
            )
        events.emit("export", tier=tier, **checked)
        add_facts(stage, checked)
        replace_folder(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return verify(final, "bundle")


def choose_grid(
    recipe: Recipe, stage: Stage, where: Path, inputs: str, told: Callable[..., None]
) -> Manifest:
    """Calibrate a trained tier and choose the grid of each of its matrices.

    Raises:
        ExportError: no choice is within the recipe's budget.
    """
    from tumen.shrink.quantize import write_grid

    if stage.settings is None:
        raise ExportError(f"{stage.name}: nothing says how {stage.tier} is quantised")
    return write_grid(
        where / stage.tier,
        where / "tokenizer",
        where / "dataset",
        stage.settings.quantize,
        f"{recipe.name}-{stage.tier}",
        where / stage.name,
        seed=stage.seed,
        inputs=inputs,
        told=lambda done, of: told(done, of, "matrices measured"),
    )
