"""Initial weights of a tier: from a GGUF, a public folder or a checkpoint artifact, in fp32.

Quantized tensors are read as the numbers they stand for. Every header, name and size is checked
before a weight is read.
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
from tumen.model.names import (
    Name,
    check_weights,
    from_gguf,
    from_public,
    gguf_sizes,
    layer_of,
    names_of,
)
from tumen.train.checkpoints.checkpoint import read_whole

INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth")
# Types of public weights that are plain numbers, not codes with scales elsewhere.
READ = ("F32", "BF16", "F16")
ENDS = ("embed.weight", "output.weight")  # a row for each token
# Fields of experts that say how a network was trained, not what it computes.
HOW_TRAINED = (
    "aux_loss_alpha",
    "balance_devices",
    "balance_communication",
    "bias_rate",
    "capacity_factor",
    "protect",
)


class Gguf:
    """Tensors of a GGUF, checked against the shape that its header describes.

    Raises:
        InputError: not a GGUF, or a tensor is missing, unknown or of another size.
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
        sizes = tensor.dims[::-1]  # GGUF lists the fastest dimension first
        end = tensor.offset + tensor.bytes
        rows = self._data[tensor.offset : end].reshape(*sizes[:-1], -1)
        kind = gguf.GGMLQuantizationType(tensor.kind)
        numbers = gguf.quants.dequantize(np.array(rows), kind)
        numbers = numbers.astype(np.float32, copy=False)
        return torch.from_numpy(numbers.reshape(sizes))


def read_start(path: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Read shape and fp32 weights of a GGUF, a public folder or a checkpoint artifact.

    Raises:
        InputError: missing, pickle, or a network that is not supported; or a weight is missing,
            unknown or of another size.
        ArtifactError: the checkpoint artifact is damaged.
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
        wanted = {name.public: name.size for name in names}
        check_weights(wanted, source.sizes, str(path), InputError)
        weights = {name: source.read(name).float() for name in source.sizes}
        return shape, from_public(shape, weights)


def start_from(
    path: Path,
    shape: Shape,
    layers: int | Sequence[int] | None = None,
    rows: Sequence[EmbeddingRow] | None = None,
) -> dict[str, Tensor]:
    """Read the weights that a tier starts from, for `Method.start`.

    Args:
        path: a GGUF, a public folder or a checkpoint artifact.
        shape: of the tier, with its vocabulary.
        layers: number of first layers to take, or the layers themselves; None: all.
        rows: rows of the embedding that are the tier's tokens; None: all, in order.

    Raises:
        InputError, ArtifactError: it cannot be read.
        TrainError: it has another shape; says which field differs.
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
        largest = max(max(row) if isinstance(row, tuple) else row for row in rows)
        if largest >= theirs.vocab_size:
            raise TrainError(
                f"{path}: has {theirs.vocab_size} tokens, the tokenizer's come from a model "
                "of more: start from that one"
            )
        # The tier has fewer tokens, or means of several.
        theirs = theirs.model_copy(update={"vocab_size": len(rows)})
        for name in ENDS:
            if name in weights:
                weights[name] = _picked(weights[name], rows)
    differ = differing(theirs, shape)
    if differ:
        field, there, here = differ
        raise TrainError(
            f"{path}: its {field} is {there}, the tier's {here}; another network cannot go on"
        )
    return weights


def _of_layers(weights: Mapping[str, Tensor], kept: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """Embedding, norm and head, and the kept layers under their new numbers."""
    for name, weight in weights.items():
        layer = layer_of(name)
        if layer is None:
            yield name, weight
        elif layer in kept:
            yield name.replace(f".{layer}.", f".{kept.index(layer)}.", 1), weight


def _picked(matrix: Tensor, rows: Sequence[EmbeddingRow]) -> Tensor:
    """Rows of a matrix; several rows for one token are averaged."""
    found = []
    for row in rows:
        if isinstance(row, tuple):
            found.append(matrix[list(row)].mean(dim=0))
        else:
            found.append(matrix[row])
    return torch.stack(found)


def differing(theirs: Shape, ours: Shape) -> tuple[str, Any, Any] | None:
    """The first field in which two networks differ, with both values.

    Fields that say how a network was trained do not count.
    """
    there = _network(theirs)
    here = _network(ours)
    for field in sorted(there.keys() | here.keys()):
        if there.get(field) != here.get(field):
            return field, there.get(field), here.get(field)
    return None


def _network(shape: Shape) -> dict[str, Any]:
    """Fields of a shape that say what the network computes, by dotted path."""
    fields = _flat(shape.model_dump())
    for name in HOW_TRAINED:
        fields.pop(f"experts.{name}", None)
        fields.pop(name, None)
    return fields


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{above}{name}.")
        else:
            leaves[above + name] = value
    return leaves


def names_within(shape: Shape, count: int, folder: Path) -> list[Name]:
    """All weight names of a shape from an untrusted config.

    A config may describe more tensors than fit into memory, so their number is compared with the
    `count` of the files first.

    Raises:
        InputError: there are fewer tensors than layers and experts, or sizes are impossible.
    """
    if not shape.vocab_size:
        raise InputError(f"{folder / CONFIG}: vocab_size is 0, a network without tokens")
    least = shape.num_hidden_layers
    if shape.experts:
        least += shape.experts.n_routed_experts
    if count < least:
        raise InputError(
            f"{folder}: holds {count} tensors, {CONFIG} describes more than {least}; "
            "files are missing"
        )
    try:
        return list(names_of(shape))
    except (RuntimeError, TypeError, OverflowError):
        raise InputError(
            f"{folder / CONFIG}: describes tensors that are too large to exist"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a public folder, from its index or by their suffix.

    Raises:
        InputError: there are none, or the index names files outside of the folder.
    """
    if (folder / INDEX).exists():
        return _indexed(folder)
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.suffix in PICKLED:
            raise InputError(
                f"{path}: is pickle, which runs code when it is read: never opened; "
                "save it as safetensors"
            )
    raise InputError(f"{folder}: has no safetensors file")


def _indexed(folder: Path) -> list[Path]:
    """The files that a folder's index names."""
    path = folder / INDEX
    index = untrusted.read_json(path, InputError)
    try:
        named = sorted(set(index["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is no index of weights") from None
    for name in named:
        inside = isinstance(name, str) and Path(name).name == name
        if not inside or not name.endswith(".safetensors"):
            raise InputError(
                f"{path}: names {name!r}, which is no safetensors file of its folder; refused"
            )
    return [folder / name for name in named]


class Tensors:
    """Tensors of some safetensors files, read one by one.

    Headers are checked against the files' sizes first.

    Raises:
        `error`: a file is missing, truncated, not safetensors or quantized, or two files have the
            same name.
    """

    def __init__(self, files: ExitStack, paths: Sequence[Path], error: Refusal) -> None:
        self.sizes: dict[str, tuple[int, ...]] = {}
        self._where: dict[str, Any] = {}
        for path in paths:
            handle = files.enter_context(_opened(path, error))
            for name in handle.keys():  # noqa: SIM118  it is no dict
                tensor = handle.get_slice(name)
                dtype = tensor.get_dtype()
                if name in self.sizes:
                    raise error(f"{path}: {name} is in another file too")
                if dtype not in READ:
                    known = ", ".join(READ)
                    raise error(f"{path}: {name} is stored as {dtype}; only {known} are read")
                self.sizes[name] = tuple(tensor.get_shape())
                self._where[name] = handle

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
