"""Read and check a safetensors file's header before the library opens the file.

    header length u64, little-endian
    | header, JSON: {name: {dtype, shape, data_offsets: [begin, end]}}
    | data

Tensors fill the data from its first byte to its last, without hole or overlap, each with the bytes
that its type and shape need (github.com/huggingface/safetensors, "Format"). A number that the file
cannot carry is refused in one line, so a hostile file costs neither memory nor time.
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
MOST_TENSORS = 100_000
MOST_DIMS = 8
MOST_NAME_CHARS = 512
META = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}
# Bytes of one value, by the library's name of its type.
WIDTHS = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}


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
        `error`: not safetensors (pickle and archives are named), cut short, or a number in it that
            cannot be true.
    """
    size = check_file(path, error)
    try:
        with open(path, "rb") as handle:
            length = _header_length(handle.read(8), size)
            header = parse_json(handle.read(length))
            return _tensors(header, size - 8 - length)
    except _LengthError as fault:
        # Only now: a header of 1152 bytes begins as a pickle does.
        refuse_packed(path, error)
        raise error(f"{path}: no safetensors: {fault}; make or fetch it again") from None
    except ValueError as fault:
        raise error(f"{path}: no whole safetensors: {fault}; make or fetch it again") from None


class _LengthError(ValueError):
    """The first eight bytes are not the length of a header in this file."""


def _header_length(head: bytes, size: int) -> int:
    """Return the bytes of the header, in a file of `size` bytes."""
    if len(head) < 8:
        raise _LengthError(f"cut short at {len(head)} bytes")
    length = int(struct.unpack("<Q", head)[0])
    left = size - 8
    if not 2 <= length <= left:
        raise _LengthError(f"the header claims {length} bytes, {left} are left")
    if length > MOST_HEADER_BYTES:
        raise _LengthError(f"the header claims {length} bytes, {MOST_HEADER_BYTES} is the most")
    return length


def _tensors(header: Any, data_bytes: int) -> dict[str, SafetensorsEntry]:
    """Return the tensors of a header whose data have so many bytes."""
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    _check_metadata(header.pop(META, {}))
    if len(header) > MOST_TENSORS:
        raise ValueError(f"{len(header)} tensors ({MOST_TENSORS} is the most)")
    tensors = {name: _entry(name, row) for name, row in header.items()}
    # The same rule as in the library: a hole could hide data, an overlap could share them.
    end = 0
    # An empty tensor begins where it ends, so `end` decides between two that begin alike.
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            raise ValueError(
                f"{_short(tensor.name)} begins at byte {tensor.begin}, "
                f"the one before it ends at {end}"
            )
        end = tensor.end
    if end != data_bytes:
        raise ValueError(f"its tensors have {end} bytes, the file has {data_bytes} for them")
    return tensors


def _check_metadata(metadata: Any) -> None:
    """Check the one entry that is not a tensor: texts by name."""
    values = metadata.values() if isinstance(metadata, dict) else [None]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{META} is no object of texts")


def _entry(name: str, row: Any) -> SafetensorsEntry:
    """Return one tensor of the header; its bytes must be those of its type and shape."""
    shown = _short(name)
    # A name becomes a key of dictionaries and a part of errors.
    if not name or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise ValueError(f"{shown} is no name of a tensor")
    if not isinstance(row, Mapping) or set(row) != FIELDS:
        raise ValueError(f"{shown} has not dtype, shape and data_offsets")
    needed = _data_bytes(shown, row["dtype"], row["shape"])
    offsets = row["data_offsets"]
    if not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{shown} has the offsets {_short(offsets)}")
    begin, end = offsets
    if end - begin != needed:
        raise ValueError(f"{shown} needs {needed} bytes, its offsets leave {end - begin}")
    return SafetensorsEntry(name, row["dtype"], tuple(row["shape"]), begin, end)


def _data_bytes(shown: str, dtype: Any, shape: Any) -> int:
    """Return the bytes that a type and a shape need; `shown` names the tensor in a fault."""
    # A list is no key of a dictionary, so its type is checked first.
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise ValueError(f"{shown} has the type {_short(dtype)}, which is not known here")
    if not _are_counts(shape) or len(shape) > MOST_DIMS:
        raise ValueError(f"{shown} has the shape {_short(shape)}")
    values: int = math.prod(shape)  # Python's integers do not overflow
    return values * WIDTHS[dtype]


def _are_counts(values: Any) -> bool:
    """Whether a value is a list of whole numbers that a file can mean; true and false are not."""
    if not isinstance(values, list):
        return False
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _short(value: Any) -> str:
    """Show a value of the file in a fault, however long it is."""
    return ascii(value)[:60]
