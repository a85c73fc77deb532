"""Bundles: what goes on a device. One folder, one digest, nothing outside of it is needed.

    model.gguf    weights, tokeniser, chat template
    ontology.json intents and slots (core/ontology.py)
    values.json   what copied words are worth, by language and slot
    bundle.json   {recipe, tier, quantise, serve, gate}
    scorecard/    put there by `score`, an artifact of its own made from the bundle
The export gate compares tokens: what llama.cpp writes from the bundle against what torch would have written at that place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from tumen.core import ExportError, Manifest, verify, writing
from tumen.data import Codec
from tumen.model import Transformer, build, causal_mask
from tumen.shrink.choose import read_grid
from tumen.shrink.gguf import read_weights, write_gguf
from tumen.shrink.places import Places
from tumen.train import read_final

Complete = Callable[[list[int]], list[int]]  # prompt ids -> greedy ids, the end token included if it was reached
BATCH = 64


def pack(
    checkpoint: Path,
    tokenizer: Path,
    corpus: Path,
    quantise: str,
    about: dict[str, Any],
    out: Path,
    inputs: str,
    grid: Path | None = None,
) -> Manifest:
    """Make a bundle from a trained tier.

    Args:
        checkpoint, tokenizer, corpus: artifacts.
        quantise: int8, int4 or a grid's name; with `grid`, what the bundle calls it.
        about: content of bundle.json: recipe's name, tier, serve and gate sections.
        grid: artifact that says the grid of every matrix and its scales.

    Raises:
        ExportError: the tier cannot be written as GGUF, or the file is not of the size that was chosen.
    """
    parents = [verify(checkpoint, "checkpoint"), verify(tokenizer, "tokenizer"), verify(corpus, "corpus")]
    parents += [verify(grid, "grid")] if grid else []
    shape, weights = read_final(checkpoint)
    facts = {"parameters": shape.parameters(), "active_parameters": shape.active_parameters(), "quantise": quantise}
    with writing(out, "bundle", inputs, [parent.digest for parent in parents], facts) as stage:
        model, codec, name = stage / "model.gguf", Codec.load(tokenizer), f"{about['recipe']}-{about['tier']}"
        codec.ontology.save(stage)
        if grid:
            choice = read_grid(grid)
            write_gguf(model, shape, weights, codec, choice.grids, name, choice.scales)
            if choice.bytes not in (None, size := model.stat().st_size):
                raise ExportError(f"{model.name} has {size} bytes, {choice.bytes} were chosen; delete {grid} and run again")
        else:
            write_gguf(model, shape, weights, codec, quantise, name)
        shutil.copy(corpus / "values.json", stage / "values.json")
        (stage / "bundle.json").write_text(json.dumps({**about, "quantise": quantise}, indent=1))
        facts["bytes"] = sum(path.stat().st_size for path in stage.iterdir())
    return verify(out, "bundle")


def check_export(
    checkpoint: Path, tokenizer: Path, sentences: Iterable[str], complete: Complete, floor: float, model: Path | None = None
) -> dict[str, Any]:
    """Agreement of an exported model with torch, token by token along what the export writes.

    Args:
        checkpoint: the unquantised tier, whatever training on a grid came after it.
        sentences: normalised.
        complete: greedy continuation by the exported model.
        floor: least share of positions that must agree with the unquantised tier.
        model: the exported file; torch is then also asked with the very weights that it holds.

    Returns:
        {positions, agreement, sentences, whole} with the unquantised tier: `whole` is the share of sentences without any
        difference. With `model` also `agreement_on_grid`, with the file's own weights: what is left is the runner's arithmetic.

    Raises:
        ExportError: the agreement is below the floor.
    """
    codec = Codec.load(tokenizer)
    shape, weights = read_final(checkpoint)
    network = build(shape).eval()
    network.load_state_dict(weights)
    pairs = [(prompt, complete(prompt)) for prompt in map(codec.prompt, sentences)]
    equal = _all_equal(network, pairs)
    agreement = _share(equal)
    found = {"positions": sum(map(len, equal)), "agreement": agreement, "sentences": len(equal)}
    found["whole"] = round(sum(map(all, equal)) / max(1, len(equal)), 5)
    if model:
        network.load_state_dict(Places(shape, weights).back(weights, read_weights(model)))
        found["agreement_on_grid"] = _share(_all_equal(network, pairs))
    if agreement < floor:
        raise ExportError(
            f"the exported model writes torch's token at {agreement:.2%} of {found['positions']} positions, the floor is "
            f"{floor:.2%}: it is not the model that was trained. Quantise less (int8), train on the grid (aware), or train with "
            "more steps"
        )
    return found


Pairs = Sequence[tuple[list[int], list[int]]]


def _share(equal: list[list[bool]]) -> float:
    return round(sum(map(sum, equal)) / max(1, sum(map(len, equal))), 5)


def _all_equal(network: Transformer, pairs: Pairs) -> list[list[bool]]:
    return [same for start in range(0, len(pairs), BATCH) for same in _equal(network, pairs[start : start + BATCH])]


@torch.inference_mode()
def _equal(network: Transformer, pairs: Pairs) -> list[list[bool]]:
    """For every pair, whether torch's likeliest token is the written one, position by position."""
    longest = max(len(prompt) + len(written) for prompt, written in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    for row, (prompt, written) in enumerate(pairs):
        ids[row, : len(prompt) + len(written)] = torch.tensor(prompt + written)
    positions = torch.arange(longest).expand_as(ids)
    states, *_ = network(ids, positions, causal_mask(torch.ones_like(ids)))
    best = network.head(states).argmax(dim=-1).tolist()
    return [
        [best[row][len(prompt) - 1 + i] == token for i, token in enumerate(written)] for row, (prompt, written) in enumerate(pairs)
    ]
