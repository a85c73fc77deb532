"""Bundles: what goes on a device. One folder, one digest, nothing outside of it is needed.

    model.gguf    weights, tokeniser, chat template
    adapters/     of a tier that learnt beside an outside model: <name>.gguf, read with model.gguf as it is, and its ontology
    ontology.json intents and slots (language/ontology.py)
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

from tumen.core.artifact import Manifest, hash_of, verify, writing
from tumen.core.errors import ExportError, InputError, disk
from tumen.core.shape import Shape
from tumen.data import Codec
from tumen.formats import check_adapter, header_of, is_gguf
from tumen.language import Ontology
from tumen.model import Transformer, build, causal_mask
from tumen.recipe.field_types import VARIANT_NAME
from tumen.shrink.gguf_writer import read_weights, write_adapter, write_gguf
from tumen.shrink.quantize.allocation import read_grid
from tumen.shrink.quantize.tensors import Places
from tumen.train.weights import Adapter, is_adapter, read_adapter, read_final

Complete = Callable[
    [list[int]], list[int]
]  # prompt ids -> greedy ids, the end token included if it was reached
BATCH = 64
ADAPTERS = "adapters"


def pack(
    checkpoint: Path,
    tokenizer: Path,
    corpus: Path,
    quantise: str,
    about: dict[str, Any],
    out: Path,
    inputs: str,
    grid: Path | None = None,
    merge: bool = False,
) -> Manifest:
    """Make a bundle from a trained tier.

    Args:
        checkpoint, tokenizer, corpus: artifacts.
        quantise: int8, int4 or a grid's name; with `grid`, what the bundle calls it. The base of an adapter that is a GGUF and
            taken whole goes in as it came.
        about: content of bundle.json: recipe's name, tier, serve and gate sections.
        grid: artifact that says the grid of every matrix and its scales.
        merge: of an adapter and its base make one model.

    Raises:
        ExportError: the tier cannot be written as GGUF, or the file is not of the size that was chosen.
    """
    parents = [
        verify(checkpoint, "checkpoint"),
        verify(tokenizer, "tokenizer"),
        verify(corpus, "corpus"),
    ]
    parents += [verify(grid, "quant")] if grid else []
    codec, name = Codec.load(tokenizer), f"{about['recipe']}-{about['tier']}"
    facts: dict[str, Any] = {}
    with writing(out, "bundle", inputs, [parent.digest for parent in parents], facts) as stage:
        codec.ontology.save(stage)
        if is_adapter(checkpoint) and not merge:
            shape, told = _write_beside(
                stage, checkpoint, codec, quantise, name, str(about["tier"])
            )
        else:
            shape, weights = read_final(checkpoint)
            _write_model(stage / "model.gguf", shape, weights, codec, quantise, name, grid)
            told = {"quantise": quantise}
        shutil.copy(corpus / "values.json", stage / "values.json")
        told |= {"control": [codec.begin, codec.do, codec.end]} if codec.vocabulary else {}
        (stage / "bundle.json").write_text(json.dumps({**about, **told}, indent=1))
        facts |= {
            "parameters": shape.parameters(),
            "active_parameters": shape.active_parameters(),
            "quantise": told["quantise"],
        }
        facts["bytes"] = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
    return verify(out, "bundle")


def _write_model(
    model: Path,
    shape: Shape,
    weights: Mapping[str, Tensor],
    codec: Codec,
    quantise: str,
    name: str,
    grid: Path | None,
) -> None:
    """One whole model, on the grids that were chosen if there are any."""
    if grid is None:
        write_gguf(model, shape, weights, codec, quantise, name)
        return
    choice = read_grid(grid)
    write_gguf(model, shape, weights, codec, choice.grids, name, choice.scales)
    if choice.bytes not in (None, size := model.stat().st_size):
        raise ExportError(
            f"{model.name} has {size} bytes, {choice.bytes} were chosen; delete {grid} and run again"
        )


def _write_beside(
    stage: Path, checkpoint: Path, codec: Codec, quantise: str, name: str, tier: str
) -> tuple[Shape, dict[str, Any]]:
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
    return shape, {
        "quantise": "as it came" if whole else quantise,
        "adapter": tier,
        "base": _base(adapter),
    }


def _write_adapter(
    stage: Path,
    name: str,
    shape: Shape,
    adapter: Adapter,
    tensors: Mapping[str, Tensor],
    ontology: Ontology,
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
    parents = [
        verify(bundle, "bundle"),
        verify(checkpoint, "checkpoint"),
        verify(tokenizer, "tokenizer"),
    ]
    shape, adapter, tensors = read_adapter(checkpoint)
    if json.loads((bundle / "bundle.json").read_text()).get("base") != _base(adapter):
        raise ExportError(
            f"{checkpoint}: was trained on another base than that of {bundle}; adapters share one"
        )
    if not re.fullmatch(VARIANT_NAME, name) or (bundle / ADAPTERS / f"{name}.gguf").exists():
        raise ExportError(
            f"{name!r} is taken, or no name for an adapter: small letters, digits, - and _"
        )
    digests = [parent.digest for parent in parents]
    with writing(
        out, "bundle", hash_of([name, *digests]), digests, dict(parents[0].facts)
    ) as stage:
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


def check_export(
    checkpoint: Path,
    tokenizer: Path,
    sentences: Iterable[str],
    complete: Complete,
    floor: float,
    model: Path | None = None,
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
    return [
        same
        for start in range(0, len(pairs), BATCH)
        for same in _equal(network, pairs[start : start + BATCH])
    ]


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
        [best[row][len(prompt) - 1 + i] == token for i, token in enumerate(written)]
        for row, (prompt, written) in enumerate(pairs)
    ]
