"""Packing a tier into a bundle and holding it against torch before it takes its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from tumen.cli.chain import Stage
from tumen.core import Events, ExportError, Manifest, Recipe, verify
from tumen.core.artifact import add_facts, replace_folder


def pack_and_check(recipe: Recipe, bundle: Stage, where: Path, inputs: str, events: Events) -> Manifest:
    """Write the bundle of a tier; it stands there only if llama.cpp writes what torch would.

    Raises:
        ExportError: agreement below the recipe's floor; an older bundle stays as it was.
    """
    from tumen.data import read_corpus
    from tumen.serve import load
    from tumen.shrink import check_export, pack

    if bundle.settings is None:
        raise ExportError(f"{bundle.name}: nothing says how {bundle.tier} is packed")
    tier = bundle.tier
    about = {"recipe": recipe.name, "tier": tier, "serve": recipe.serve.model_dump(), "gate": recipe.gate.model_dump()}
    final = where / bundle.name
    stage = final.with_name(f".packing-{final.name}")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        pack(where / tier, where / "tokenizer", where / "corpus", bundle.settings.quantise, about, stage, inputs)
        sentences = [row["sentence"] for row in read_corpus(where / "corpus", "exam")]
        with load(stage, context=recipe.serve.context) as runner:
            checked = check_export(
                where / tier,
                where / "tokenizer",
                sentences,
                lambda prompt: list(runner.complete(prompt, logprobs=False).tokens),
                recipe.gate.agreement,
            )
        events.emit("export", tier=tier, **checked)
        add_facts(stage, checked)
        replace_folder(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return verify(final, "bundle")
