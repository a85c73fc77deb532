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
from tumen.shrink.gguf import write_gguf
from tumen.train import read_final

Complete = Callable[[list[int]], list[int]]  # prompt ids -> greedy ids, the end token included if it was reached
BATCH = 64


def pack(checkpoint: Path, tokenizer: Path, corpus: Path, quantise: str, about: dict[str, Any], out: Path, inputs: str) -> Manifest:
    """Make a bundle from a trained tier.

    Args:
        checkpoint, tokenizer, corpus: artifacts.
        quantise: int8, int4 or bf16.
        about: content of bundle.json: recipe's name, tier, serve and gate sections.

    Raises:
        ExportError: the tier cannot be written as GGUF.
    """
    parents = [verify(checkpoint, "checkpoint"), verify(tokenizer, "tokenizer"), verify(corpus, "corpus")]
    shape, weights = read_final(checkpoint)
    facts = {"parameters": shape.parameters(), "active_parameters": shape.active_parameters(), "quantise": quantise}
    with writing(out, "bundle", inputs, [parent.digest for parent in parents], facts) as stage:
        codec = Codec.load(tokenizer)
        codec.ontology.save(stage)
        write_gguf(stage / "model.gguf", shape, weights, codec, quantise, f"{about['recipe']}-{about['tier']}")
        shutil.copy(corpus / "values.json", stage / "values.json")
        (stage / "bundle.json").write_text(json.dumps({**about, "quantise": quantise}, indent=1))
        facts["bytes"] = sum(path.stat().st_size for path in stage.iterdir())
    return verify(out, "bundle")


def check_export(checkpoint: Path, tokenizer: Path, sentences: Iterable[str], complete: Complete, floor: float) -> dict[str, Any]:
    """Agreement of an exported model with torch, token by token along what the export writes.

    Args:
        sentences: normalised.
        complete: greedy continuation by the exported model.
        floor: least share of positions that must agree.

    Returns:
        {positions, agreement, sentences, whole}: `whole` is the share of sentences without any difference.

    Raises:
        ExportError: the agreement is below the floor.
    """
    codec = Codec.load(tokenizer)
    shape, weights = read_final(checkpoint)
    network = build(shape)
    network.load_state_dict(weights)
    network.eval()
    pairs = [(prompt, complete(prompt)) for prompt in map(codec.prompt, sentences)]
    equal = [same for start in range(0, len(pairs), BATCH) for same in _equal(network, pairs[start : start + BATCH])]
    positions = sum(len(row) for row in equal)
    agreement = sum(map(sum, equal)) / max(1, positions)
    whole = sum(all(row) for row in equal) / max(1, len(equal))
    if agreement < floor:
        raise ExportError(
            f"the exported model writes torch's token at {agreement:.2%} of {positions} positions, the floor is {floor:.2%}: "
            "it is not the model that was trained. Quantise less (int8), or train with more steps"
        )
    return {"positions": positions, "agreement": round(agreement, 5), "sentences": len(equal), "whole": round(whole, 5)}


@torch.inference_mode()
def _equal(network: Transformer, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[bool]]:
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
