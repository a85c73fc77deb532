"""Bundles: the folder that a device needs, under one digest.

    model.gguf    weights, tokenizer, chat template
    adapters/     of a tier trained as an adapter beside a pretrained model: <name>.gguf, loaded
    with
                  the unchanged model.gguf, and <name>.json, the adapter's ontology
    ontology.json intents and slots (language/ontology.py)
    values.json   what copied words are worth, by language and slot
    bundle.json   {recipe, tier, quantize, serve, gate, adapter, control}
    scorecard/    an artifact of its own, made from the bundle by `tumen eval`

The export gate compares tokens: what llama.cpp writes from the bundle with what torch would have
written at that place.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tumen.core.artifact import Manifest, hash_of, verify, writing
from tumen.core.errors import ExportError, InputError, disk
from tumen.core.shape import Shape
from tumen.data import Codec
from tumen.formats import gguf_header, header_of, is_gguf
from tumen.language import Ontology
from tumen.model import Transformer, build, causal_mask
from tumen.recipe.field_types import VARIANT_NAME
from tumen.shrink.gguf_writer import read_weights, write_adapter, write_gguf
from tumen.shrink.quantize.allocation import read_types
from tumen.shrink.quantize.tensors import Places
from tumen.train.weights import Adapter, is_adapter, read_adapter, read_final

# prompt ids -> greedy ids, the end token included if it was reached
Complete = Callable[[list[int]], list[int]]
BATCH = 64
ADAPTERS = "adapters"


@dataclass(frozen=True)
class BundleInputs:
    """The artifacts that a bundle is made from.

    Attributes:
        checkpoint: the trained tier.
        tokenizer: its tokenizer.
        corpus: for the values of copied words.
        types: type and scales of every matrix (`write_types`); None: one type for all.
    """

    checkpoint: Path
    tokenizer: Path
    corpus: Path
    types: Path | None = None

    def digests(self) -> list[str]:
        """Verify all artifacts and return their digests."""
        parents = [
            verify(self.checkpoint, "checkpoint"),
            verify(self.tokenizer, "tokenizer"),
            verify(self.corpus, "corpus"),
        ]
        if self.types:
            parents.append(verify(self.types, "quant"))
        return [parent.digest for parent in parents]


def pack(
    parts: BundleInputs,
    quantize: str,
    about: dict[str, Any],
    out: Path,
    inputs: str,
    *,
    merge: bool = False,
) -> Manifest:
    """Make a bundle from a trained tier.

    Args:
        parts: the artifacts it is made from.
        quantize: int8, int4 or a quantization type; with `parts.types`, the name that the bundle
            gives it. The base of an adapter that is a GGUF and taken whole is copied unchanged.
        about: content of bundle.json: recipe's name, tier, serve and gate sections.
        out: the new folder.
        inputs: what the artifact is made for, see core.artifact.
        merge: merge an adapter into its base.

    Raises:
        ExportError: the tier cannot be written as GGUF, or the file's size is not the chosen one.
    """
    digests = parts.digests()
    codec = Codec.load(parts.tokenizer)
    name = f"{about['recipe']}-{about['tier']}"
    facts: dict[str, Any] = {}
    with writing(out, "bundle", inputs, digests, facts) as stage:
        codec.ontology.save(stage)
        if is_adapter(parts.checkpoint) and not merge:
            tier = str(about["tier"])
            shape, packed = _write_beside(stage, parts.checkpoint, codec, quantize, name, tier)
        else:
            shape, weights = read_final(parts.checkpoint)
            model = _Model(stage / "model.gguf", shape, weights, codec, name)
            model.write(quantize, parts.types)
            packed = {"quantize": quantize}
        shutil.copy(parts.corpus / "values.json", stage / "values.json")
        if codec.vocabulary:
            packed["control"] = [codec.begin, codec.do, codec.end]
        content = {**about, **packed}
        (stage / "bundle.json").write_text(json.dumps(content, indent=1))
        facts |= _facts(shape, packed["quantize"], stage)
    return verify(out, "bundle")


def _facts(shape: Shape, quantize: str, stage: Path) -> dict[str, Any]:
    """Sizes of a model and of the files written so far."""
    files = [path for path in stage.rglob("*") if path.is_file()]
    return {
        "parameters": shape.parameters(),
        "active_parameters": shape.active_parameters(),
        "quantize": quantize,
        "bytes": sum(path.stat().st_size for path in files),
    }


@dataclass(frozen=True)
class _Model:
    """A whole model to write as GGUF."""

    path: Path
    shape: Shape
    weights: Mapping[str, Tensor]
    codec: Codec
    name: str

    def write(self, quantize: str, types: Path | None) -> None:
        """Write in the types of the artifact `types` if there is one, else in one type."""
        path = self.path
        if types is None:
            write_gguf(path, self.shape, self.weights, self.codec, quantize, self.name)
            return
        choice = read_types(types)
        write_gguf(
            path,
            self.shape,
            self.weights,
            self.codec,
            choice.types,
            self.name,
            scales=choice.scales,
        )
        size = path.stat().st_size
        if choice.bytes not in (None, size):
            raise ExportError(
                f"{path.name} has {size} bytes, {choice.bytes} were chosen; "
                f"delete {types} and run again"
            )


def _write_beside(
    stage: Path, checkpoint: Path, codec: Codec, quantize: str, name: str, tier: str
) -> tuple[Shape, dict[str, Any]]:
    """Write base and adapter as two files; return the base's shape and its part of bundle.json."""
    shape, adapter, tensors = read_adapter(checkpoint)
    base = Path(adapter.start.path)
    # Refuses a base that differs from the one the adapter was trained on.
    weights = adapter.base(shape)
    every_layer = adapter.start.layers is None
    whole = is_gguf(base) and adapter.rows is None and every_layer
    if whole:
        shutil.copyfile(base, stage / "model.gguf")
    else:
        _Model(stage / "model.gguf", shape, weights, codec, name).write(quantize, None)
    _write_adapter(stage, tier, shape, adapter, tensors, codec.ontology)
    about = {
        "quantize": "as it came" if whole else quantize,
        "adapter": tier,
        "base": _base(adapter),
    }
    return shape, about


def _write_adapter(
    stage: Path,
    name: str,
    shape: Shape,
    adapter: Adapter,
    tensors: Mapping[str, Tensor],
    ontology: Ontology,
) -> None:
    """Write `adapters/<name>.gguf`, checked against the base as a runner does, and its ontology."""
    (stage / ADAPTERS).mkdir(exist_ok=True)
    path = stage / ADAPTERS / f"{name}.gguf"
    write_adapter(path, shape, tensors, adapter.start.alpha, name)
    gguf_header.check_adapter(path, header_of(stage / "model.gguf"))
    path.with_suffix(".json").write_text(ontology.model_dump_json(indent=1))


def _base(adapter: Adapter) -> str:
    """A hash that is equal for two adapters that can share a base."""
    return hash_of([adapter.digest, adapter.start.layers, adapter.rows])


def add_adapter(bundle: Path, checkpoint: Path, tokenizer: Path, name: str, out: Path) -> Manifest:
    """Copy a bundle and add one more adapter on the same base, selected by its name.

    Args:
        bundle: of a tier that is an adapter itself.
        checkpoint: an adapter trained on the same base.
        tokenizer: the checkpoint's tokenizer.
        name: small letters, digits, - and _.
        out: the new folder.

    Raises:
        ExportError: the adapter's base is not the bundle's, or the name is taken or not permitted.
    """
    parents = [
        verify(bundle, "bundle"),
        verify(checkpoint, "checkpoint"),
        verify(tokenizer, "tokenizer"),
    ]
    shape, adapter, tensors = read_adapter(checkpoint)
    about = json.loads((bundle / "bundle.json").read_text())
    if about.get("base") != _base(adapter):
        raise ExportError(
            f"{checkpoint}: was trained on another base than that of {bundle}; adapters share one"
        )
    taken = (bundle / ADAPTERS / f"{name}.gguf").exists()
    if taken or not re.fullmatch(VARIANT_NAME, name):
        raise ExportError(
            f"{name!r} is taken, or no name for an adapter: small letters, digits, - and _"
        )
    digests = [parent.digest for parent in parents]
    inputs = hash_of([name, *digests])
    whole = parents[0]
    with writing(out, "bundle", inputs, digests, dict(whole.facts)) as stage:
        for file in whole.files:
            (stage / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(bundle / file, stage / file)
        ontology = Codec.load(tokenizer).ontology
        _write_adapter(stage, name, shape, adapter, tensors, ontology)
    return verify(out, "bundle")


def export_adapter(checkpoint: Path, out: Path) -> None:
    """Write an adapter as a GGUF of its own, for llama.cpp beside the base it was trained on.

    Raises:
        InputError: `out` exists.
        ArtifactError: the checkpoint is not an adapter, or is damaged.
        ExportError: llama.cpp applies no adapters in such a model.
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
    """Compare an exported model with torch, token by token along what the export writes.

    Args:
        checkpoint: the unquantized tier, also where quantization-aware training came after it.
        tokenizer: tokenizer artifact.
        sentences: normalised.
        complete: greedy continuation by the exported model.
        floor: least share of positions where both must write the same token.
        model: the exported file; its weights are then compared in torch, too.

    Returns:
        {positions, agreement, sentences, whole} with the unquantized tier: `whole` is the share of
        sentences without any difference. With `model` also `agreement_quantized`, with the file's
        own weights: any difference there comes from the runner's arithmetic.

    Raises:
        ExportError: the agreement is below the floor.
    """
    codec = Codec.load(tokenizer)
    shape, weights = read_final(checkpoint)
    network = build(shape).eval()
    network.load_state_dict(weights)
    prompts = [codec.prompt(sentence) for sentence in sentences]
    pairs = [(prompt, complete(prompt)) for prompt in prompts]
    equal = _all_equal(network, pairs)
    agreement = _share(equal)
    positions = sum(len(row) for row in equal)
    whole = sum(all(row) for row in equal)
    found = {
        "positions": positions,
        "agreement": agreement,
        "sentences": len(equal),
        "whole": round(whole / max(1, len(equal)), 5),
    }
    if model:
        rounded = Places(shape, weights).back(weights, read_weights(model))
        network.load_state_dict(rounded)
        found["agreement_quantized"] = _share(_all_equal(network, pairs))
    if agreement < floor:
        raise ExportError(
            f"the exported model writes torch's token at {agreement:.2%} of {positions} positions, "
            f"the floor is {floor:.2%}: it is not the model that was trained; "
            "quantize less (int8), set quantize.qat, or train more steps"
        )
    return found


Pairs = Sequence[tuple[list[int], list[int]]]


def _share(equal: list[list[bool]]) -> float:
    """Share of positions that are equal."""
    same = sum(sum(row) for row in equal)
    positions = sum(len(row) for row in equal)
    return round(same / max(1, positions), 5)


def _all_equal(network: Transformer, pairs: Pairs) -> list[list[bool]]:
    equal: list[list[bool]] = []
    for start in range(0, len(pairs), BATCH):
        equal += _equal(network, pairs[start : start + BATCH])
    return equal


@torch.inference_mode()
def _equal(network: Transformer, pairs: Pairs) -> list[list[bool]]:
    """For every pair and position, whether torch's likeliest token is the written one."""
    longest = max(len(prompt) + len(written) for prompt, written in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)  # (B, T)
    for row, (prompt, written) in enumerate(pairs):
        whole = torch.tensor(prompt + written)
        ids[row, : len(whole)] = whole
    positions = torch.arange(longest).expand_as(ids)
    mask = causal_mask(torch.ones_like(ids))
    states, *_ = network(ids, positions, mask)  # (B, T, D)
    best = network.head(states).argmax(dim=-1).tolist()
    equal = []
    for row, (prompt, written) in enumerate(pairs):
        # The token at place p is predicted at p - 1.
        start = len(prompt) - 1
        predicted = best[row][start : start + len(written)]
        equal.append([ours == theirs for ours, theirs in zip(predicted, written, strict=True)])
    return equal
