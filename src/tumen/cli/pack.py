"""Packing a tier into a bundle and holding it against torch before it takes its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from tumen.core import Events, Manifest, Recipe, verify
from tumen.core.artifact import add_facts, replace_folder


def pack_and_check(recipe: Recipe, tier: str, where: Path, inputs: str, events: Events) -> Manifest:
    """Write `bundle-<tier>`; it stands there only if llama.cpp writes what torch would.

    Raises:
        ExportError: agreement below the recipe's floor; an older bundle stays as it was.
    """
    from tumen.data import read_corpus
    from tumen.serve import load
    from tumen.shrink import check_export, pack

    about = {"recipe": recipe.name, "tier": tier, "serve": recipe.serve.model_dump(), "gate": recipe.gate.model_dump()}
    stage, final = where / f".packing-{tier}", where / f"bundle-{tier}"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        pack(where / tier, where / "tokenizer", where / "corpus", recipe.family[tier].quantise, about, stage, inputs)
        sentences = [row["sentence"] for row in read_corpus(where / "corpus", "exam")]
        with load(stage, context=recipe.serve.context) as runner:
            checked = check_export(
                where / tier,
                where / "tokenizer",
                sentences,
                lambda prompt: list(runner.complete(prompt, n_probs=0).tokens),
                recipe.gate.agreement,
            )
        events.emit("export", tier=tier, **checked)
        add_facts(stage, checked)
        replace_folder(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return verify(final, "bundle")
