"""Which grid for which matrix: measured one by one, then the least sum within a byte budget.

What a matrix costs on a grid is the KL of the model's output when that matrix alone is put on it, over sentences of the training
shards. Small errors of different matrices add up nearly (the table of benchmarks/quantise.py shows how nearly), so the choice is
a knapsack with one item a matrix, solved exactly.

    grids.json           {grids: {matrix: grid}, bytes: of model.gguf or null, options: {matrix: {grid: [bytes, KL]}}}
    scales.safetensors   <matrix>.d and .dmin in half precision, .level and .depth as whole numbers (grid.py)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
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
from tumen.data import Codec
from tumen.model import build
from tumen.recipe import Quantize
from tumen.recipe.field_types import QuantType
from tumen.shrink.gguf_writer import grids_of, matrices_of, tensors_of, write_gguf
from tumen.shrink.quant_types import GRIDS, Scales
from tumen.shrink.quantize.divergence import Reference, some_batches
from tumen.shrink.quantize.importance import importance_of
from tumen.shrink.quantize.tensors import Places
from tumen.train.checkpoints import load_tensors
from tumen.train.weights import read_final

ALIGN = 32  # bytes; a tensor of a GGUF file starts at a multiple
MOST_UNITS = (
    1 << 17
)  # steps of the budget that the solver looks at; sizes are rounded up to one where the budget is larger
CHOICE, SCALES = "grids.json", "scales.safetensors"
TWIN = {"output.weight": "token_embd.weight"}  # a tied embedding that deepseek2 wants twice


class Option(NamedTuple):
    """A matrix on a grid: bytes in the file, padding included, and the divergence it alone causes, in nats."""

    bytes: int
    divergence: float


Options = dict[str, dict[QuantType, Option]]


class Choice(NamedTuple):
    """What an artifact `grid` says. `bytes` of the model file; None where no budget was asked."""

    grids: dict[str, QuantType]
    scales: dict[str, Scales]
    bytes: int | None


def write_grid(
    checkpoint: Path,
    tokenizer: Path,
    dataset: Path,
    quantise: Quantize,
    name: str,
    out: Path,
    *,
    seed: int,
    inputs: str,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Manifest:
    """Calibrate a trained tier and choose its grids; writes the artifact `out`.

    Args:
        name: of the model, which stands in the file's header and so counts.
        told: progress of the measurements.

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
    batches = (
        some_batches(dataset / "train", quantise.calibrate, seed) if quantise.calibrate else []
    )
    network = build(shape)
    network.load_state_dict(weights)
    importance = importance_of(network, batches)
    options: Options = {}
    size = None
    if quantise.type:
        grids = grids_of(tensors, quantise.type)
    else:
        options = measured(
            Reference(shape, weights, batches), shape, weights, importance, quantise.types, told
        )
        rest = header_bytes(shape, weights, Codec.load(tokenizer), name)
        grids = cheapest(options, int(quantise.budget_bytes()) - rest)
        size = rest + sum(options[matrix][grid].bytes for matrix, grid in grids.items())
        grids |= {twin: grids[one] for twin, one in twins(shape).items()}
    facts = {
        "grids": {grid: list(grids.values()).count(grid) for grid in sorted(set(grids.values()))},
        "bytes": size,
    }
    with writing(out, "quant", inputs, [parent.digest for parent in parents], facts) as stage:
        (stage / CHOICE).write_text(
            json.dumps({"grids": grids, "bytes": size, "options": options}, indent=1)
        )
        scales = {
            name: GRIDS[grid].fit(tensors[name], importance.get(name))
            for name, grid in grids.items()
        }
        save_file(stored(scales), stage / SCALES)
    return verify(out, "quant")


def read_grid(folder: Path) -> Choice:
    """What was chosen.

    Raises:
        ArtifactError: missing, damaged, or a grid that nobody here knows.
    """
    verify(folder, "quant")
    found = json.loads((folder / CHOICE).read_text())
    unknown = set(found["grids"].values()) - set(GRIDS)
    if unknown:
        raise ArtifactError(
            f"{folder}: grid {', '.join(sorted(unknown))} is not known here; known: {', '.join(GRIDS)}"
        )
    held = load_tensors(folder / SCALES)
    scales = {
        name: Scales(*(held[f"{name}.{part}"].float() for part in Scales._fields))
        for name in found["grids"]
    }
    return Choice(found["grids"], scales, found["bytes"])


def stored(scales: Mapping[str, Scales]) -> dict[str, Tensor]:
    """Scales as a file keeps them; all of it exact."""
    kinds = {"d": torch.half, "dmin": torch.half, "level": torch.int16, "depth": torch.int16}
    return {
        f"{name}.{part}": one._asdict()[part].to(kind)
        for name, one in scales.items()
        for part, kind in kinds.items()
    }


def measured(
    reference: Reference,
    shape: Shape,
    weights: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    among: Iterable[QuantType],
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Options:
    """Size and divergence of every matrix on every grid whose blocks fit its rows (bf16 where none does)."""
    places = Places(shape, weights)
    tensors = {
        name: tensor
        for name, tensor in matrices_of(tensors_of(shape, weights)).items()
        if name not in twins(shape)
    }
    options: Options = {}
    for name, tensor in tensors.items():
        fits = [grid for grid in among if tensor.shape[-1] % GRIDS[grid].block == 0]
        options[name] = {}
        for grid in fits or ["bf16"]:
            chosen = GRIDS[grid]
            seen = chosen.see(tensor, chosen.fit(tensor, importance.get(name)))
            cost = float(reference.divergence(places.back(weights, {name: seen})).mean())
            copies = 1 + (name in twins(shape).values())
            options[name][grid] = Option(copies * padded(chosen.bytes_of(tensor)), cost)
        told(len(options), len(tensors))
    return options


def cheapest(options: Options, budget_bytes: int) -> dict[str, QuantType]:
    """The grid of every matrix with the least sum of divergences within a budget.

    A table over the budget in units of 32 bytes (more, rounded up, where that is over 131,072 units), one matrix after another.

    Raises:
        ExportError: even the smallest grids are too large.
    """
    least = sum(min(option.bytes for option in row.values()) for row in options.values())
    if least > budget_bytes:
        short = units.show_bytes(least - budget_bytes)
        raise ExportError(
            f"the budget is {short} below what the smallest allowed grids take; raise it, or take a smaller shape"
        )
    unit = max(ALIGN, -(-budget_bytes // MOST_UNITS))
    room = budget_bytes // unit
    best = np.zeros(room + 1)
    picks: list[np.ndarray] = []
    for row in options.values():
        costs = np.full((len(row), room + 1), np.inf)
        for number, option in enumerate(row.values()):
            size = -(-option.bytes // unit)
            if size <= room:
                costs[number, size:] = best[: room + 1 - size] + option.divergence
        picks.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    if not np.isfinite(best[room]):
        return {
            name: min(row, key=lambda grid: row[grid].bytes) for name, row in options.items()
        }  # fits, but not in whole units
    return _traced(options, picks, room, unit)


def _traced(
    options: Options, picks: list[np.ndarray], room: int, unit: int
) -> dict[str, QuantType]:
    """Which pick of each matrix led to the end of the table."""
    grids: dict[str, QuantType] = {}
    for name, pick in reversed(list(zip(options, picks, strict=True))):
        grids[name] = list(options[name])[int(pick[room])]
        room -= -(-options[name][grids[name]].bytes // unit)
    return {name: grids[name] for name in options}


def header_bytes(shape: Shape, weights: Mapping[str, Tensor], codec: Codec, name: str) -> int:
    """Bytes of a model file besides its matrices: header, tokeniser, vectors."""
    matrices = matrices_of(tensors_of(shape, weights))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(path, shape, weights, codec, "bf16", name)
        return path.stat().st_size - sum(
            padded(GRIDS["bf16"].bytes_of(matrix)) for matrix in matrices.values()
        )


def padded(count: int) -> int:
    """Bytes of a tensor with what fills it up to the next one's start."""
    return -(-count // ALIGN) * ALIGN


def twins(shape: Shape) -> dict[str, str]:
    """Matrices that the file holds a second time: the copy, and what it copies."""
    return TWIN if shape.tie_word_embeddings and isinstance(shape.attention, Mla) else {}
