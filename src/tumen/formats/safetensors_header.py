"""A safetensors file's header, read and judged before the library sees it (github.com/huggingface/safetensors, "Format").

    header length u64, little-endian | header, JSON: {name: {dtype, shape, data_offsets: [begin, end]}} | data

Tensors fill the data from its first byte to its last, without hole or overlap, each with the bytes that its type and shape need.
Nothing is believed that the file cannot carry, so a hostile one costs neither memory nor time; every refusal is one line.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.core.errors import ArtifactError
from tumen.core.untrusted import Refusal, check_file, parse_json, refuse_packed

MOST_HEADER_BYTES = 16 << 20  # a shard with 100,000 tensors has some 12 MB
MOST_TENSORS, MOST_DIMS, MOST_NAME_CHARS = 100_000, 8, 512
META = "__metadata__"
# Bytes of one value, by the library's name of its type.
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class SafetensorsEntry:
    """One tensor of the header; `begin` and `end` are bytes within the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def check(path: Path, error: Refusal = ArtifactError) -> dict[str, SafetensorsEntry]:
    """Read a safetensors header and check it against the file. Returns its tensors by name.

    Raises:
        `error`: no safetensors (pickle and archives are named), cut short, or a number in it that cannot be true.
    """
    size = check_file(path, error)
    try:
        with open(path, "rb") as handle:
            length = _length(handle.read(8), size)
            return _tensors(parse_json(handle.read(length)), size - 8 - length)
    except _LengthError as fault:
        refuse_packed(path, error)  # then alone: a header of 1152 bytes begins as a pickle does
        raise error(f"{path}: no safetensors: {fault}; make or fetch it again") from None
    except ValueError as fault:
        raise error(f"{path}: no whole safetensors: {fault}; make or fetch it again") from None


class _LengthError(ValueError):
    """The first eight bytes are no length of a header in this file."""


def _length(head: bytes, size: int) -> int:
    if len(head) < 8:
        raise _LengthError(f"cut short at {len(head)} bytes")
    length = int(struct.unpack("<Q", head)[0])
    if not 2 <= length <= size - 8:
        raise _LengthError(f"the header claims {length} bytes, {size - 8} are left")
    if length > MOST_HEADER_BYTES:
        raise _LengthError(f"the header claims {length} bytes, {MOST_HEADER_BYTES} is the most")
    return length


def _tensors(header: Any, data_bytes: int) -> dict[str, SafetensorsEntry]:
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    about = header.pop(META, {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise ValueError(f"{META} is no object of texts")
    if len(header) > MOST_TENSORS:
        raise ValueError(f"{len(header)} tensors ({MOST_TENSORS} is the most)")
    tensors = {name: _tensor(name, row) for name, row in header.items()}
    end = 0
    for tensor in sorted(tensors.values(), key=lambda one: (one.begin, one.end)):
        if tensor.begin != end:
            raise ValueError(
                f"{_short(tensor.name)} begins at byte {tensor.begin}, the one before it ends at {end}"
            )
        end = tensor.end
    if end != data_bytes:
        raise ValueError(f"its tensors have {end} bytes, the file has {data_bytes} for them")
    return tensors


def _tensor(name: str, row: Any) -> SafetensorsEntry:
    if not name or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise ValueError(f"{_short(name)} is no name of a tensor")
    if not isinstance(row, Mapping) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{_short(name)} has not dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise ValueError(f"{_short(name)} has the type {_short(dtype)}, which is not known here")
    if not _counts(shape) or len(shape) > MOST_DIMS:
        raise ValueError(f"{_short(name)} has the shape {_short(shape)}")
    if not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{_short(name)} has the offsets {_short(offsets)}")
    needed = math.prod(shape) * WIDTHS[dtype]  # Python's integers do not overflow
    if offsets[1] - offsets[0] != needed:
        raise ValueError(
            f"{_short(name)} needs {needed} bytes, its offsets leave {offsets[1] - offsets[0]}"
        )
    return SafetensorsEntry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    """Whether a value is a list of whole numbers that a file can mean."""
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 62 for value in values
    )


def _short(value: Any) -> str:
    return ascii(value)[:60]
