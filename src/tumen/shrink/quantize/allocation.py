"""Choose a quantization type for each matrix: least divergence within a byte budget.

What a matrix costs in a type is the KL of the model's output when that matrix alone is quantized,
over sentences of the training shards. Small errors of different matrices nearly add up (the table
of benchmarks/quantize.py shows how nearly), so the choice is a knapsack with one item a matrix,
solved exactly.

    types.json           {types: {matrix: type}, bytes: of model.gguf or null,
                          options: {matrix: {type: [bytes, KL]}}}
    scales.safetensors   <matrix>.d and .dmin in fp16, .level and .depth as integers
    (quant_types.py)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tumen.core import units
from tumen.core.artifact import Manifest, verify, writing
from tumen.core.errors import ArtifactError, ExportError
from tumen.core.shape import Mla, Shape
from tumen.data import Batch, Codec
from tumen.model import build
from tumen.recipe import Quantize
from tumen.recipe.field_types import QuantType
from tumen.shrink.gguf_writer import matrices_of, quant_types_of, tensors_of, write_gguf
from tumen.shrink.quant_types import QUANTIZERS, Scales
from tumen.shrink.quantize.divergence import Reference, some_batches
from tumen.shrink.quantize.importance import importance_of
from tumen.shrink.quantize.tensors import Places
from tumen.train import Making
from tumen.train.checkpoints import load_tensors
from tumen.train.weights import read_final

ALIGN = 32  # bytes; a tensor of a GGUF file starts at a multiple
# Most steps of the budget that the solver looks at; for a larger budget, sizes are rounded up.
MOST_UNITS = 1 << 17
CHOICE = "types.json"
OLDER_CHOICE = "grids.json"  # before it was renamed; `types` was `grids` in it
SCALES = "scales.safetensors"
# A tied embedding that deepseek2 wants twice: the copy, and what it copies.
TWIN = {"output.weight": "token_embd.weight"}


class Option(NamedTuple):
    """A matrix in a type: bytes in the file with padding, and its divergence alone, in nats."""

    bytes: int
    divergence: float


Options = dict[str, dict[QuantType, Option]]
Report = Callable[[int, int], None]


class QuantChoice(NamedTuple):
    """Content of an artifact `quant`. `bytes` of the model file; None where there was no budget."""

    types: dict[str, QuantType]
    scales: dict[str, Scales]
    bytes: int | None


def _silent(done: int, total: int) -> None:
    """Report no progress."""


def write_types(
    checkpoint: Path,
    tokenizer: Path,
    dataset: Path,
    quantize: Quantize,
    name: str,
    out: Path,
    *,
    making: Making,
    report: Report = _silent,
) -> Manifest:
    """Calibrate a trained tier and choose its quantization types; write the artifact `out`.

    Args:
        checkpoint: the trained tier.
        tokenizer: tokenizer artifact; it is part of the file, so its size counts.
        dataset: dataset artifact to calibrate on.
        quantize: the recipe's section.
        name: of the model; it is part of the file's header, so its size counts.
        out: the new artifact.
        making: seed of the calibration's order, and inputs.
        report: called with the matrices measured and their number.

    Raises:
        ExportError: no choice is within the budget.
    """
    parents = [
        verify(checkpoint, "checkpoint"),
        verify(tokenizer, "tokenizer"),
        verify(dataset, "dataset"),
    ]
    shape, weights = read_final(checkpoint)
    tensors = tensors_of(shape, weights)
    batches: list[Batch] = []
    if quantize.calibrate:
        batches = some_batches(dataset / "train", quantize.calibrate, making.seed)
    network = build(shape)
    network.load_state_dict(weights)
    importance = importance_of(network, batches)
    options: Options = {}
    size = None
    if quantize.type:
        types = quant_types_of(tensors, quantize.type)
    else:
        reference = Reference(shape, weights, batches)
        options = measured(reference, shape, weights, importance, quantize.types, report)
        rest = header_bytes(shape, weights, Codec.load(tokenizer), name)
        budget = int(quantize.budget_bytes()) - rest
        types, held = _within(options, budget, twins(shape))
        size = rest + held
    scales = {}
    for matrix, quant_type in types.items():
        scales[matrix] = QUANTIZERS[quant_type].fit(tensors[matrix], importance.get(matrix))
    facts = {"types": _counted(types), "bytes": size}
    digests = [parent.digest for parent in parents]
    with writing(out, "quant", making.inputs, digests, facts) as stage:
        content = {"types": types, "bytes": size, "options": options}
        (stage / CHOICE).write_text(json.dumps(content, indent=1))
        save_file(stored(scales), stage / SCALES)
    return verify(out, "quant")


def _within(
    options: Options, budget_bytes: int, copies: Mapping[str, str]
) -> tuple[dict[str, QuantType], int]:
    """Choose types within a budget, for copies too; return them and the bytes they take."""
    types = cheapest(options, budget_bytes)
    held = sum(options[matrix][quant_type].bytes for matrix, quant_type in types.items())
    for copy, original in copies.items():
        types[copy] = types[original]
    return types, held


def _counted(types: Mapping[str, QuantType]) -> dict[str, int]:
    """How many matrices have each type."""
    used = list(types.values())
    return {quant_type: used.count(quant_type) for quant_type in sorted(set(used))}


def read_types(folder: Path) -> QuantChoice:
    """Read the chosen types and scales.

    Raises:
        ArtifactError: missing, damaged, or with a type that this version does not know.
    """
    verify(folder, "quant")
    path = folder / CHOICE
    if not path.exists():
        path = folder / OLDER_CHOICE
    found = json.loads(path.read_text())
    types = found["types"] if "types" in found else found["grids"]
    unknown = set(types.values()) - set(QUANTIZERS)
    if unknown:
        raise ArtifactError(
            f"{folder}: type {', '.join(sorted(unknown))} is not known here; "
            f"known: {', '.join(QUANTIZERS)}"
        )
    held = load_tensors(folder / SCALES)
    scales = {}
    for name in types:
        parts = [held[f"{name}.{part}"].float() for part in Scales._fields]
        scales[name] = Scales(*parts)
    return QuantChoice(types, scales, found["bytes"])


def stored(scales: Mapping[str, Scales]) -> dict[str, Tensor]:
    """Scales as the file holds them; the conversion is exact."""
    kinds = {"d": torch.half, "dmin": torch.half, "level": torch.int16, "depth": torch.int16}
    found = {}
    for name, one in scales.items():
        parts = one._asdict()
        for part, kind in kinds.items():
            found[f"{name}.{part}"] = parts[part].to(kind)
    return found


def measured(
    reference: Reference,
    shape: Shape,
    weights: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    among: Sequence[QuantType],
    report: Report = _silent,
) -> Options:
    """Size and divergence of every matrix in each type whose block divides its rows, or in bf16."""
    places = Places(shape, weights)
    copied = twins(shape)
    matrices = matrices_of(tensors_of(shape, weights))
    tensors = {name: tensor for name, tensor in matrices.items() if name not in copied}
    options: Options = {}
    for name, tensor in tensors.items():
        columns = tensor.shape[-1]
        fits = [quant_type for quant_type in among if columns % QUANTIZERS[quant_type].block == 0]
        copies = 2 if name in copied.values() else 1
        options[name] = {}
        for quant_type in fits or ["bf16"]:
            chosen = QUANTIZERS[quant_type]
            scales = chosen.fit(tensor, importance.get(name))
            rounded = places.back(weights, {name: chosen.fake_quantize(tensor, scales)})
            cost = float(reference.divergence(rounded).mean())
            size = copies * padded(chosen.bytes_of(tensor))
            options[name][quant_type] = Option(size, cost)
        report(len(options), len(tensors))
    return options


def cheapest(options: Options, budget_bytes: int) -> dict[str, QuantType]:
    """The type of every matrix with the least sum of divergences within a budget.

    Dynamic programming over the budget in units of 32 bytes, one matrix after another; above
    131,072 units a unit is larger and sizes are rounded up.

    Raises:
        ExportError: even the smallest types are too large.
    """
    smallest = {name: min(row, key=lambda kind: row[kind].bytes) for name, row in options.items()}
    least = sum(options[name][quant_type].bytes for name, quant_type in smallest.items())
    if least > budget_bytes:
        short = units.show_bytes(least - budget_bytes)
        raise ExportError(
            f"the budget is {short} below what the smallest allowed types take; "
            "raise it, or take a smaller shape"
        )
    unit = max(ALIGN, _divided_up(budget_bytes, MOST_UNITS))
    room = budget_bytes // unit
    best = np.zeros(room + 1)  # least divergence so far, by units spent
    picks: list[np.ndarray] = []
    for row in options.values():
        costs = _costs(list(row.values()), best, unit)
        picks.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    if not np.isfinite(best[room]):
        return smallest  # fits in bytes, but not in whole units
    return _traced(options, picks, room, unit)


def _costs(options: Sequence[Option], best: np.ndarray, unit: int) -> np.ndarray:
    """Least divergence with one more matrix, by its option and the units spent in all.

    Args:
        options: of the matrix.
        best: (units + 1,) least divergence of the matrices before.
        unit: bytes.

    Returns:
        (options, units + 1), infinite where the option does not fit.
    """
    costs = np.full((len(options), len(best)), np.inf)
    for number, option in enumerate(options):
        size = _divided_up(option.bytes, unit)
        if size < len(best):
            costs[number, size:] = best[: len(best) - size] + option.divergence
    return costs


def _traced(
    options: Options, picks: list[np.ndarray], room: int, unit: int
) -> dict[str, QuantType]:
    """Walk the table back from its end and collect the pick of each matrix."""
    types: dict[str, QuantType] = {}
    pairs = list(zip(options, picks, strict=True))
    for name, pick in reversed(pairs):
        row = options[name]
        quant_type = list(row)[int(pick[room])]
        types[name] = quant_type
        room -= _divided_up(row[quant_type].bytes, unit)
    return {name: types[name] for name in options}


def header_bytes(shape: Shape, weights: Mapping[str, Tensor], codec: Codec, name: str) -> int:
    """Bytes of a model file besides its matrices: header, tokenizer, vectors."""
    matrices = matrices_of(tensors_of(shape, weights))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(path, shape, weights, codec, "bf16", name)
        size = path.stat().st_size
    held = [padded(QUANTIZERS["bf16"].bytes_of(matrix)) for matrix in matrices.values()]
    return size - sum(held)


def padded(count: int) -> int:
    """Bytes of a tensor with the padding to the next one's start."""
    return _divided_up(count, ALIGN) * ALIGN


def _divided_up(count: int, by: int) -> int:
    return -(-count // by)


def twins(shape: Shape) -> dict[str, str]:
    """Matrices that the file holds twice: the copy, and what it copies."""
    if shape.tie_word_embeddings and isinstance(shape.attention, Mla):
        return TWIN
    return {}
