"""Public checkpoints: a folder that `transformers` reads and writes <-> a checkpoint artifact, one tensor at a time.

config.json                        what the network is (model/config.py)
model-00001-of-00003.safetensors   weights under their public names (model/names.py); one file is called model.safetensors
model.safetensors.index.json       {metadata: {total_size}, weight_map: {name: file}}
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tumen.core import (
    ArtifactError,
    InputError,
    Shape,
    TrainError,
    disk,
    foreign,
    hash_of,
    safetensors_check,
    verify,
    writing,
)
from tumen.core.foreign import Refusal
from tumen.model import Name, check_weights, config_of, inwards, names_of, outwards, shape_of, sizes_of
from tumen.train.checkpoint import SHAPE, WEIGHTS, read_final

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
MOST_CONFIG_BYTES = 1 << 20
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CODES = {torch.float32: "F32", torch.bfloat16: "BF16"}  # safetensors' names of types
READ = ("F32", "BF16", "F16")  # types of public weights that are numbers by themselves, not codes with scales elsewhere
BESIDE = (  # files of a public folder that belong to its tokeniser
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
UNKNOWN_IDS = {"bos_token_id": None, "eos_token_id": None}  # readers would take 1 and 2 for granted
KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings", "initializer_range", "use_cache")
HOW_TRAINED = (
    "balance",
    "balance_devices",
    "balance_communication",
    "bias_rate",
    "capacity",
    "protect",
)  # fields of experts that say how, not what, was trained

Sizes = Mapping[str, Sequence[int]]


def export_public(
    checkpoint: Path,
    out: Path,
    shard_bytes: int = SHARD_BYTES,
    precision: Literal["fp32", "bf16"] = "fp32",
    like: Path | None = None,
) -> None:
    """Write a checkpoint artifact as a public folder.

    Args:
        checkpoint: a finished tier, or what `import_public` wrote.
        out: a folder that does not exist yet or is empty.
        shard_bytes: most bytes of one file, unless a single tensor has more.
        precision: of the written weights; bf16 rounds.
        like: a public folder of the same shape, whose tokeniser files and token ids are taken over.

    Raises:
        ExportError: the public architectures have no such network.
        ArtifactError: the checkpoint is damaged.
        InputError: `out` holds something, or `like` is of another shape.
        DiskError: no room; nothing is left behind.
    """
    _refuse_full(out)
    verify(checkpoint, "checkpoint")
    shape = _shape_of_artifact(checkpoint)
    about = {"torch_dtype": str(TYPES[precision]).removeprefix("torch.")} | (_kept(like, shape) if like else UNKNOWN_IDS)
    config = config_of(shape) | about
    names = list(names_of(shape))
    stage = out.with_name(f".{out.name}.{os.getpid()}.new")
    with disk(out), ExitStack() as files:
        files.callback(shutil.rmtree, stage, ignore_errors=True)
        stage.mkdir(parents=True)
        source = Tensors(files, [checkpoint / WEIGHTS], ArtifactError)
        check_weights(sizes_of(shape), source.sizes, str(checkpoint), ArtifactError)
        (stage / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))
        _write_shards(stage, shape, names, source, shard_bytes, TYPES[precision])
        for name in BESIDE:
            if like and (like / name).is_file():
                shutil.copy(like / name, stage / name)
        os.replace(stage, out)


def import_public(folder: Path, out: Path) -> Shape:
    """Write a public folder as a checkpoint artifact that training can start from; its weights become fp32.

    Args:
        folder: config.json and safetensors; pickled weights are refused.
        out: a folder that does not exist yet or is empty.

    Raises:
        InputError: no such folder, another architecture, a config field that no network here has, a weight that is missing,
            unknown, of another size or quantised, a file that is damaged or pickle.
        DiskError: no room; nothing is left behind.
    """
    _refuse_full(out)
    foreign.check_folder(folder, InputError)
    config = _config(folder)
    shape = shape_of(config, str(folder / CONFIG))
    with ExitStack() as files:
        source = Tensors(files, _weight_files(folder), InputError)
        names = _names_within(shape, len(source.sizes), folder)
        check_weights({name.public: name.size for name in names}, source.sizes, str(folder), InputError)
        facts = {"source": str(folder), "parameters": shape.parameters()}
        with writing(out, "checkpoint", hash_of(["public", config]), [], facts) as stage:
            (stage / SHAPE).write_text(shape.model_dump_json(indent=1))
            parts = (inwards(shape, name, source.read(name.public)) for name in names)
            write_tensors(stage / WEIGHTS, sizes_of(shape), torch.float32, parts)
    return shape


def start_from(folder: Path, shape: Shape) -> dict[str, Tensor]:
    """Weights of a checkpoint artifact for `fit(start=...)`.

    Raises:
        ArtifactError: missing or damaged.
        TrainError: it is a checkpoint of another shape; says which field differs.
    """
    theirs, weights = read_final(folder)
    there, here = _network(theirs), _network(shape)
    differing = [field for field in sorted(there.keys() | here.keys()) if there.get(field) != here.get(field)]
    if differing:
        field = differing[0]
        raise TrainError(f"{folder}: its {field} is {there.get(field)}, the tier's {here.get(field)}; another network cannot go on")
    return weights


def _network(shape: Shape) -> dict[str, Any]:
    """The fields of a shape that say what is computed, not how it is trained, by dotted path."""
    return {name: value for name, value in _flat(shape.model_dump()).items() if name.removeprefix("experts.") not in HOW_TRAINED}


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return leaves


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: holds something already; name a new folder, or delete it first")


def _shape_of_artifact(folder: Path) -> Shape:
    try:
        return Shape.model_validate_json((folder / SHAPE).read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: has no {SHAPE}: a working checkpoint; take the tier's finished one") from None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{path}: no such file; name a folder that transformers wrote")
    config = foreign.read_json(path, InputError, MOST_CONFIG_BYTES)
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds no object")
    return config


def _kept(like: Path, shape: Shape) -> dict[str, Any]:
    """What a config says beside the network: token ids, the longest context."""
    config = _config(like)
    if _network(shape_of(config, str(like / CONFIG))) != _network(shape):
        raise InputError(f"{like}: is of another shape than the checkpoint; its tokeniser does not belong to it")
    return {name: config[name] for name in KEPT if name in config}


def _names_within(shape: Shape, count: int, folder: Path) -> list[Name]:
    """All names of a shape that a stranger's config describes; what no `count` tensors can hold is refused before it is built."""
    if not shape.vocab:
        raise InputError(f"{folder / CONFIG}: vocab_size is 0, a network without tokens")
    least = shape.layers + (shape.experts.routed if shape.experts else 0)
    if count < least:
        raise InputError(f"{folder}: holds {count} tensors, {CONFIG} describes more than {least}; files are missing")
    try:
        return list(names_of(shape))
    except (RuntimeError, TypeError, OverflowError):
        raise InputError(f"{folder / CONFIG}: describes tensors that are too large to exist") from None


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a public folder, from its index or by their ending."""
    if (folder / INDEX).exists():
        index = foreign.read_json(folder / INDEX, InputError)
        try:
            named = sorted(set(index["weight_map"].values()))
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{folder / INDEX}: is no index of weights") from None
        for name in named:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise InputError(f"{folder / INDEX}: names {name!r}, which is no safetensors file of its folder; refused")
        return [folder / name for name in named]
    found = sorted(folder.glob("*.safetensors"))
    pickled = sorted(path.name for ending in ("bin", "pt", "pth") for path in folder.glob(f"*.{ending}"))
    if not found and pickled:
        raise InputError(f"{folder / pickled[0]}: is pickle, which runs code when it is read: never opened; save it as safetensors")
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
                    raise error(f"{path}: {name} is stored as {tensor.get_dtype()}; only {', '.join(READ)} are read")
                self.sizes[name], self._where[name] = tuple(tensor.get_shape()), handle

    def read(self, name: str, expert: int | None = None) -> Tensor:
        """One tensor, or one expert of a stack."""
        handle = self._where[name]
        return handle.get_tensor(name) if expert is None else handle.get_slice(name)[expert]


def _opened(path: Path, error: Refusal) -> Any:
    safetensors_check.check(path, error)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as fault:
        raise error(f"{path}: no whole safetensors ({fault})") from None


def _write_shards(stage: Path, shape: Shape, names: Sequence[Name], source: Tensors, shard_bytes: int, dtype: torch.dtype) -> None:
    shards = list(_shards(names, shard_bytes, dtype.itemsize))
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        tensors = (outwards(shape, name, source.read(name.ours, name.expert)) for name in shard)
        write_tensors(stage / file, {name.public: name.size for name in shard}, dtype, tensors)
        places |= {name.public: file for name in shard}
    if len(shards) > 1:
        total = sum(math.prod(name.size) for name in names) * dtype.itemsize
        (stage / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2))


def _shards(names: Iterable[Name], shard_bytes: int, item_bytes: int) -> Iterator[list[Name]]:
    shard: list[Name] = []
    held = 0
    for name in names:
        size = math.prod(name.size) * item_bytes
        if shard and held + size > shard_bytes:
            yield shard
            shard, held = [], 0
        shard.append(name)
        held += size
    yield shard


def write_tensors(path: Path, sizes: Sizes, dtype: torch.dtype, parts: Iterable[Tensor]) -> None:
    """Write a safetensors file while its tensors are being made (github.com/huggingface/safetensors, "Format").

    Args:
        sizes: of all tensors, in the order in which they come.
        parts: their values in that order; a stack may come piece by piece.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in sizes.items():
        start, end = end, end + math.prod(size) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of eight
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            file.write(part.to(dtype).contiguous().flatten().view(torch.uint8).numpy().data)
