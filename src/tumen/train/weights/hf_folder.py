"""Public checkpoints: read and write folders as `transformers` does; read GGUF.

Tensors are converted one at a time.

config.json                        the network's shape (formats/hf_config.py)
model-00001-of-00003.safetensors   weights by their public names (model/names/public_names.py); a
single file is
                                   called model.safetensors
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
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from tumen.core import untrusted
from tumen.core.artifact import hash_of, verify, writing
from tumen.core.errors import ArtifactError, InputError, disk
from tumen.core.shape import Shape
from tumen.data import read_vocabulary
from tumen.formats import (
    CONFIG,
    config_of,
    digest_of_start,
    has_vocabulary,
    is_gguf,
    read_json,
    shape_of,
)
from tumen.model.names import Name, check_weights, from_gguf, inwards, names_of, outwards, sizes_of
from tumen.train.checkpoints.checkpoint import SHAPE, WEIGHTS, decoder_shape
from tumen.train.weights.initial import INDEX, Gguf, Tensors, differing, names_within, weight_files
from tumen.train.weights.lora import is_adapter, write_merged

SHARD_BYTES = 5_000_000_000
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CODES = {torch.float32: "F32", torch.bfloat16: "BF16"}  # safetensors' names of types
# Files of a public folder that belong to its tokenizer.
BESIDE = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
# Without these nulls, readers assume the ids 1 and 2.
UNKNOWN_IDS = {"bos_token_id": None, "eos_token_id": None}
KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_position_embeddings",
    "initializer_range",
    "use_cache",
)

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
        checkpoint: a finished tier, or an artifact of `import_public`.
        out: a folder that does not exist yet or is empty.
        shard_bytes: most bytes of one file, unless a single tensor has more.
        precision: of the written weights; bf16 rounds.
        like: a public folder of the same shape, whose tokenizer files and token ids are copied.

    Raises:
        ExportError: no public architecture has such a network.
        ArtifactError: the checkpoint is damaged.
        InputError: `out` is not empty, or `like` has another shape.
        DiskError: the disk is full; nothing is left behind.
    """
    _refuse_full(out)
    verify(checkpoint, "checkpoint")
    if is_adapter(checkpoint):
        with TemporaryDirectory(dir=out.parent) as folder:
            whole = write_merged(checkpoint, Path(folder) / "whole")
            export_public(whole, out, shard_bytes, precision, like)
        return
    shape = _shape_of_artifact(checkpoint)
    dtype = TYPES[precision]
    config = config_of(shape)
    config["torch_dtype"] = str(dtype).removeprefix("torch.")
    config |= _kept(like, shape) if like else UNKNOWN_IDS
    # Written beside and renamed at the end, so that `out` is never half full.
    stage = out.with_name(f".{out.name}.{os.getpid()}.new")
    with disk(out), ExitStack() as files:
        files.callback(shutil.rmtree, stage, ignore_errors=True)
        stage.mkdir(parents=True)
        source = Tensors(files, [checkpoint / WEIGHTS], ArtifactError)
        check_weights(sizes_of(shape), source.sizes, str(checkpoint), ArtifactError)
        (stage / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))
        _write_shards(stage, shape, list(names_of(shape)), source, shard_bytes, dtype)
        if like:
            _copy_tokenizer(like, stage)
        os.replace(stage, out)


def _copy_tokenizer(like: Path, stage: Path) -> None:
    for name in BESIDE:
        if (like / name).is_file():
            shutil.copy(like / name, stage / name)


def import_public(path: Path, out: Path) -> Shape:
    """Write a pretrained model as a checkpoint artifact in fp32, to start training from.

    Args:
        path: a GGUF; or a folder with config.json and safetensors. Pickled weights are refused.
        out: a folder that does not exist yet or is empty.

    Raises:
        InputError: the file is missing, damaged or pickle; the architecture or a field of it is not
            supported; a weight is missing, unknown, quantized safetensors or of another size.
        DiskError: the disk is full; nothing is left behind.
    """
    _refuse_full(out)
    if is_gguf(path):
        untrusted.refuse_packed(path)
        file = Gguf(path)
        parts = (tensor for _, tensor in from_gguf(file.shape, file.read))
        _write_checkpoint(path, out, file.shape, parts)
        return file.shape
    untrusted.check_folder(path, InputError)
    shape = shape_of(read_json(path / CONFIG), str(path / CONFIG))
    with ExitStack() as files:
        source = Tensors(files, weight_files(path), InputError)
        names = names_within(shape, len(source.sizes), path)
        wanted = {name.public: name.size for name in names}
        check_weights(wanted, source.sizes, str(path), InputError)
        parts = (inwards(shape, name, source.read(name.public)) for name in names)
        _write_checkpoint(path, out, shape, parts)
    return shape


def _write_checkpoint(source: Path, out: Path, shape: Shape, parts: Iterable[Tensor]) -> None:
    facts: dict[str, Any] = {"source": str(source), "parameters": shape.parameters()}
    inputs = hash_of(["public", digest_of_start(source)])
    with writing(out, "checkpoint", inputs, [], facts) as stage:
        (stage / SHAPE).write_text(shape.model_dump_json(indent=1))
        try:
            if has_vocabulary(source):
                read_vocabulary(source).save(stage)
        except InputError as error:
            # The weights are good without it; only training on its tokens needs the vocabulary.
            facts["vocabulary"] = str(error)
        write_tensors(stage / WEIGHTS, sizes_of(shape), torch.float32, parts)


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: holds something already; name a new folder, or delete it first")


def _shape_of_artifact(folder: Path) -> Shape:
    try:
        return decoder_shape(folder)
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder}: has no {SHAPE}: a working checkpoint; take the tier's finished one"
        ) from None


def _kept(like: Path, shape: Shape) -> dict[str, Any]:
    """Fields of a config that are not about the network: token ids, the longest context."""
    config = read_json(like / CONFIG)
    if differing(shape_of(config, str(like / CONFIG)), shape):
        raise InputError(
            f"{like}: is of another shape than the checkpoint; its tokenizer does not belong to it"
        )
    return {name: config[name] for name in KEPT if name in config}


def _write_shards(
    stage: Path,
    shape: Shape,
    names: Sequence[Name],
    source: Tensors,
    shard_bytes: int,
    dtype: torch.dtype,
) -> None:
    shards = list(_shards(names, shard_bytes, dtype.itemsize))
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        sizes = {name.public: name.size for name in shard}
        tensors = (outwards(shape, name, source.read(name.ours, name.expert)) for name in shard)
        write_tensors(stage / file, sizes, dtype, tensors)
        places |= dict.fromkeys(sizes, file)
    if len(shards) > 1:
        total = sum(math.prod(name.size) for name in names) * dtype.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (stage / INDEX).write_text(json.dumps(index, indent=2))


def _shards(names: Iterable[Name], shard_bytes: int, item_bytes: int) -> Iterator[list[Name]]:
    shard: list[Name] = []
    held = 0
    for name in names:
        size = math.prod(name.size) * item_bytes
        if shard and held + size > shard_bytes:
            yield shard
            shard = []
            held = 0
        shard.append(name)
        held += size
    yield shard


def write_tensors(path: Path, sizes: Sizes, dtype: torch.dtype, parts: Iterable[Tensor]) -> None:
    """Write a safetensors file tensor by tensor (github.com/huggingface/safetensors, "Format").

    Args:
        path: the new file.
        sizes: of all tensors, in the order of `parts`.
        dtype: of the written numbers.
        parts: their values; a stack may come in several parts.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in sizes.items():
        start = end
        end += math.prod(size) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of eight
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            flat = part.to(dtype).contiguous().flatten()
            file.write(flat.view(torch.uint8).numpy().data)
