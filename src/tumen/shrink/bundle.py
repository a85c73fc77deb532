"""Bundles: what goes on a device. One folder, one digest, nothing outside of it is needed.

    model.gguf    weights, tokeniser, chat template
    adapters/     of a tier that learnt beside an outside model: <name>.gguf, read with model.gguf as it is, and its ontology
    ontology.json intents and slots (core/ontology.py)
    values.json   what copied words are worth, by language and slot
    bundle.json   {recipe, tier, quantise, serve, gate, adapter, control}
    scorecard/    put there by `score`, an artifact of its own made from the bundle
The export gate compares tokens: what llama.cpp writes from the bundle against what torch would have written at that place.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tumen.core import ExportError, InputError, Manifest, Shape, disk, hash_of, verify, writing
from tumen.core.gguf_check import check_adapter
from tumen.core.ontology import Ontology
from tumen.core.outside import header_of, is_gguf
from tumen.core.recipe import ARM_NAME
from tumen.data import Codec
from tumen.model import Transformer, build, causal_mask
from tumen.shrink.gguf import write_adapter, write_gguf
from tumen.train import Adapter, is_adapter, read_adapter, read_final

Complete = Callable[[list[int]], list[int]]  # prompt ids -> greedy ids, the end token included if it was reached
BATCH = 64
ADAPTERS = "adapters"


def pack(
    checkpoint: Path, tokenizer: Path, corpus: Path, quantise: str, about: dict[str, Any], out: Path, inputs: str,
    merge: bool = False,
) -> Manifest:  # fmt: skip
    """Make a bundle from a trained tier.

    Args:
        checkpoint, tokenizer, corpus: artifacts.
        quantise: int8, int4 or bf16. The base of an adapter that is a GGUF and taken whole goes in as it came.
        about: content of bundle.json: recipe's name, tier, serve and gate sections.
        merge: of an adapter and its base make one model.

    Raises:
        ExportError: the tier cannot be written as GGUF.
    """
    parents = [verify(checkpoint, "checkpoint"), verify(tokenizer, "tokenizer"), verify(corpus, "corpus")]
    codec, name = Codec.load(tokenizer), f"{about['recipe']}-{about['tier']}"
    facts: dict[str, Any] = {}
    with writing(out, "bundle", inputs, [parent.digest for parent in parents], facts) as stage:
        codec.ontology.save(stage)
        if is_adapter(checkpoint) and not merge:
            shape, told = _write_beside(stage, checkpoint, codec, quantise, name, str(about["tier"]))
        else:
            shape, weights = read_final(checkpoint)
            write_gguf(stage / "model.gguf", shape, weights, codec, quantise, name)
            told = {"quantise": quantise}
        shutil.copy(corpus / "values.json", stage / "values.json")
        told |= {"control": [codec.begin, codec.do, codec.end]} if codec.vocabulary else {}
        (stage / "bundle.json").write_text(json.dumps({**about, **told}, indent=1))
        facts |= {"parameters": shape.parameters(), "active_parameters": shape.active_parameters(), "quantise": told["quantise"]}
        facts["bytes"] = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
    return verify(out, "bundle")


def _write_beside(stage: Path, checkpoint: Path, codec: Codec, quantise: str, name: str, tier: str) -> tuple[Shape, dict[str, Any]]:
    """Base and adapter as files of their own; returns the base's shape and what bundle.json says of them."""
    shape, adapter, tensors = read_adapter(checkpoint)
    base = Path(adapter.start.path)
    weights = adapter.base(shape)  # is what the adapter was trained on, or is refused
    whole = is_gguf(base) and adapter.rows is None and adapter.start.layers is None
    if whole:
        shutil.copyfile(base, stage / "model.gguf")
    else:
        write_gguf(stage / "model.gguf", shape, weights, codec, quantise, name)
    _write_adapter(stage, tier, shape, adapter, tensors, codec.ontology)
    return shape, {"quantise": "as it came" if whole else quantise, "adapter": tier, "base": _base(adapter)}


def _write_adapter(
    stage: Path, name: str, shape: Shape, adapter: Adapter, tensors: Mapping[str, Tensor], ontology: Ontology
) -> None:
    """`adapters/<name>.gguf`, held against the base as a runner will do, and what it may write."""
    (stage / ADAPTERS).mkdir(exist_ok=True)
    path = stage / ADAPTERS / f"{name}.gguf"
    write_adapter(path, shape, tensors, adapter.start.alpha, name)
    check_adapter(path, header_of(stage / "model.gguf"))
    path.with_suffix(".json").write_text(ontology.model_dump_json(indent=1))


def _base(adapter: Adapter) -> str:
    """What two adapters that may share a base have in common."""
    return hash_of([adapter.digest, adapter.start.layers, adapter.rows])


def add_adapter(bundle: Path, checkpoint: Path, tokenizer: Path, name: str, out: Path) -> Manifest:
    """A bundle with one more adapter on the same base, to be chosen by its name.

    Args:
        bundle: of a tier that is an adapter itself.
        checkpoint: an adapter trained on the same base, with its `tokenizer`.
        name: small letters, digits, - and _.

    Raises:
        ExportError: the adapter's base is not the bundle's, the name is taken, or no name for a file.
    """
    parents = [verify(bundle, "bundle"), verify(checkpoint, "checkpoint"), verify(tokenizer, "tokenizer")]
    shape, adapter, tensors = read_adapter(checkpoint)
    if json.loads((bundle / "bundle.json").read_text()).get("base") != _base(adapter):
        raise ExportError(f"{checkpoint}: was trained on another base than that of {bundle}; adapters share one")
    if not re.fullmatch(ARM_NAME, name) or (bundle / ADAPTERS / f"{name}.gguf").exists():
        raise ExportError(f"{name!r} is taken, or no name for an adapter: small letters, digits, - and _")
    digests = [parent.digest for parent in parents]
    with writing(out, "bundle", hash_of([name, *digests]), digests, dict(parents[0].facts)) as stage:
        for file in parents[0].files:
            (stage / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(bundle / file, stage / file)
        _write_adapter(stage, name, shape, adapter, tensors, Codec.load(tokenizer).ontology)
    return verify(out, "bundle")


def export_adapter(checkpoint: Path, out: Path) -> None:
    """Write an adapter as a GGUF of its own, for llama.cpp beside the base it was trained on.

    Raises:
        InputError: `out` is there already.
        ArtifactError: the checkpoint is no adapter, or damaged.
        ExportError: llama.cpp asks no adapter in such a model.
    """
    if out.exists():
        raise InputError(f"{out}: is there already; name a new file")
    shape, adapter, tensors = read_adapter(checkpoint)
    with disk(out):
        write_adapter(out, shape, tensors, adapter.start.alpha, checkpoint.name)


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
