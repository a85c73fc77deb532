"""What a tier starts from: the weights of a GGUF, a public folder or a checkpoint artifact, under our names in fp32.

Quantised tensors are taken as the numbers they stand for. Every header, name and size is checked before a weight is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tumen.core import untrusted
from tumen.core.errors import InputError, TrainError
from tumen.core.shape import Shape
from tumen.core.untrusted import Refusal
from tumen.data.tokenizer import EmbeddingRow
from tumen.formats import (
    CONFIG,
    header_of,
    is_gguf,
    read_json,
    safetensors_header,
    shape_of,
    shape_of_gguf,
)
from tumen.model import Name, check_weights, from_gguf, from_public, gguf_sizes, layer_of, names_of
from tumen.train.checkpoints.checkpoint import read_whole

INDEX = "model.safetensors.index.json"
READ = (
    "F32",
    "BF16",
    "F16",
)  # types of public weights that are numbers by themselves, not codes with scales elsewhere
ENDS = ("embed.weight", "output.weight")  # a row for each token
HOW_TRAINED = (
    "aux_loss_alpha",
    "balance_devices",
    "balance_communication",
    "bias_rate",
    "capacity_factor",
    "protect",
)  # fields of experts that say how, not what, was trained


class Gguf:
    """Tensors of a GGUF, checked against the shape that its header describes.

    Raises:
        InputError: no GGUF, or a tensor that is missing, unknown or of another size.
    """

    def __init__(self, path: Path) -> None:
        header = header_of(path)
        self.shape = shape_of_gguf(header, path)
        self._tensors = header.tensors
        self._data = np.memmap(path, np.uint8, "r", header.data_start)
        held = {name: tensor.dims[::-1] for name, tensor in header.tensors.items()}
        check_weights(gguf_sizes(self.shape), held, str(path), InputError)

    def read(self, name: str) -> Tensor:
        """One tensor in fp32."""
        tensor = self._tensors[name]
        rows = self._data[tensor.offset : tensor.offset + tensor.bytes].reshape(
            *tensor.dims[:0:-1], -1
        )
        numbers = gguf.quants.dequantize(np.array(rows), gguf.GGMLQuantizationType(tensor.kind))
        return torch.from_numpy(numbers.astype(np.float32, copy=False).reshape(tensor.dims[::-1]))


def read_start(path: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Shape and fp32 weights of a model, whatever it is stored as.

    Raises:
        InputError: nothing there, a network that is not built here, a weight missing, unknown or of another size, pickle.
        ArtifactError: a damaged checkpoint of ours.
    """
    if is_gguf(path):
        file = Gguf(path)
        return file.shape, dict(from_gguf(file.shape, file.read))
    if not (path / CONFIG).is_file():
        return read_whole(path)
    untrusted.check_folder(path, InputError)
    shape = shape_of(read_json(path / CONFIG), str(path / CONFIG))
    with ExitStack() as files:
        source = Tensors(files, weight_files(path), InputError)
        names = names_within(shape, len(source.sizes), path)
        check_weights(
            {name.public: name.size for name in names}, source.sizes, str(path), InputError
        )
        return shape, from_public(shape, {name: source.read(name).float() for name in source.sizes})


def start_from(
    path: Path,
    shape: Shape,
    layers: int | Sequence[int] | None = None,
    rows: Sequence[EmbeddingRow] | None = None,
) -> dict[str, Tensor]:
    """Weights of a model for `fit(start=...)`.

    Args:
        path: a GGUF, a public folder or a checkpoint artifact.
        shape: of the tier, with its vocabulary.
        layers: how many of its first layers are taken, or which; None: all.
        rows: which rows of its embedding the tier's tokens are; None: all, in order.

    Raises:
        InputError, ArtifactError: it cannot be read.
        TrainError: it is of another shape; says which field differs.
    """
    theirs, weights = read_start(path)
    if layers is not None:
        if isinstance(layers, int):
            kept = list(range(min(layers, theirs.num_hidden_layers)))
        else:
            kept = list(layers)
        theirs = theirs.model_copy(update={"num_hidden_layers": len(kept)})
        weights = dict(_of_layers(weights, kept))
    if rows is not None:
        if max(max(row) if isinstance(row, tuple) else row for row in rows) >= theirs.vocab_size:
            raise TrainError(
                f"{path}: has {theirs.vocab_size} tokens, the tokeniser's come from a model of more: start from that one"
            )
        theirs = theirs.model_copy(update={"vocab_size": len(rows)})
        weights |= {name: _picked(weights[name], rows) for name in ENDS if name in weights}
    differ = differing(theirs, shape)
    if differ:
        raise TrainError(
            f"{path}: its {differ[0]} is {differ[1]}, the tier's {differ[2]}; another network cannot go on"
        )
    return weights


def _of_layers(weights: Mapping[str, Tensor], kept: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The ends, and the layers that are kept under their new numbers."""
    for name, weight in weights.items():
        layer = layer_of(name)
        if layer is None:
            yield name, weight
        elif layer in kept:
            yield name.replace(f".{layer}.", f".{kept.index(layer)}.", 1), weight


def _picked(matrix: Tensor, rows: Sequence[EmbeddingRow]) -> Tensor:
    """Rows of a matrix, and means of several."""
    return torch.stack(
        [matrix[list(row)].mean(dim=0) if isinstance(row, tuple) else matrix[row] for row in rows]
    )


def differing(theirs: Shape, ours: Shape) -> tuple[str, Any, Any] | None:
    """The first field in which two networks differ, and its two values; how they were trained does not count."""
    there = _network(theirs)
    here = _network(ours)
    fields = sorted(
        field for field in there.keys() | here.keys() if there.get(field) != here.get(field)
    )
    if fields:
        return (fields[0], there.get(fields[0]), here.get(fields[0]))
    return None


def _network(shape: Shape) -> dict[str, Any]:
    """The fields of a shape that say what is computed, by dotted path."""
    return {
        name: value
        for name, value in _flat(shape.model_dump()).items()
        if name.removeprefix("experts.") not in HOW_TRAINED
    }


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= (
            _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
        )
    return leaves


def names_within(shape: Shape, count: int, folder: Path) -> list[Name]:
    """All names of a shape that a stranger's config describes; what no `count` tensors can hold is refused before it is built."""
    if not shape.vocab_size:
        raise InputError(f"{folder / CONFIG}: vocab_size is 0, a network without tokens")
    least = shape.num_hidden_layers + (shape.experts.n_routed_experts if shape.experts else 0)
    if count < least:
        raise InputError(
            f"{folder}: holds {count} tensors, {CONFIG} describes more than {least}; files are missing"
        )
    try:
        return list(names_of(shape))
    except (RuntimeError, TypeError, OverflowError):
        raise InputError(
            f"{folder / CONFIG}: describes tensors that are too large to exist"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a public folder, from its index or by their ending."""
    if (folder / INDEX).exists():
        index = untrusted.read_json(folder / INDEX, InputError)
        try:
            named = sorted(set(index["weight_map"].values()))
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{folder / INDEX}: is no index of weights") from None
        for name in named:
            if (
                not isinstance(name, str)
                or Path(name).name != name
                or not name.endswith(".safetensors")
            ):
                raise InputError(
                    f"{folder / INDEX}: names {name!r}, which is no safetensors file of its folder; refused"
                )
        return [folder / name for name in named]
    found = sorted(folder.glob("*.safetensors"))
    pickled = sorted(
        path.name for ending in ("bin", "pt", "pth") for path in folder.glob(f"*.{ending}")
    )
    if not found and pickled:
        raise InputError(
            f"{folder / pickled[0]}: is pickle, which runs code when it is read: never opened; save it as safetensors"
        )
    if not found:
        raise InputError(f"{folder}: has no safetensors file")
    return found


class Tensors:
    """Tensors of some safetensors files, read one by one; headers are checked against the files' sizes before anything else.

    Raises:
        `error`: a file is missing, cut short or no safetensors, holds quantised weights, or two files hold one name.
    """

    def __init__(self, files: ExitStack, paths: Sequence[Path], error: Refusal) -> None:
        self.sizes: dict[str, tuple[int, ...]] = {}
        self._where: dict[str, Any] = {}
        for path in paths:
            handle = files.enter_context(_opened(path, error))
            for name in handle.keys():  # noqa: SIM118  it is no dict
                tensor = handle.get_slice(name)
                if name in self.sizes:
                    raise error(f"{path}: {name} is in another file too")
                if tensor.get_dtype() not in READ:
                    raise error(
                        f"{path}: {name} is stored as {tensor.get_dtype()}; only {', '.join(READ)} are read"
                    )
                self.sizes[name], self._where[name] = tuple(tensor.get_shape()), handle

    def read(self, name: str, expert: int | None = None) -> Tensor:
        """One tensor, or one expert of a stack."""
        handle = self._where[name]
        if expert is None:
            return handle.get_tensor(name)
        return handle.get_slice(name)[expert]


def _opened(path: Path, error: Refusal) -> Any:
    safetensors_header.check(path, error)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as fault:
        raise error(f"{path}: no whole safetensors ({fault})") from None
