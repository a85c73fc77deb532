"""Layout of a GGUF file: read its header without believing a number that the file cannot carry.

    "GGUF" | version u32 | tensors u64 | pairs u64 | pairs: key, type u32, value
    | tensors: name, dims u32, dim u64 ..., type u32, offset u64 | padding to the alignment | data

Little-endian; ggml/docs/gguf.md, versions 2 and 3. Each count is compared with the bytes that are
left before anything is read, so a hostile file costs neither memory nor time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from tumen.formats.ggml_types import BY_NUMBER

# Limits. The largest honest files known are well below them.
MOST_PAIRS = 4096
MOST_TENSORS = 65_536
MOST_DIMS = 4  # GGML_MAX_DIMS
MOST_ITEMS = 1 << 20  # of an array: the largest vocabulary in use has 262,144 tokens
MOST_ITEMS_IN_ALL = 1 << 22
MOST_HEADER_BYTES = 64 << 20
MOST_TEXT_BYTES = 1 << 20
MOST_NAME_BYTES = 63  # GGML_MAX_NAME is 64 with its closing zero

# Types of values: number -> struct format. Strings and arrays have a length of their own.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING = 8
ARRAY = 9


class GgufFault(Exception):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the header.

    Attributes:
        name: as in the file.
        dims: as in the file, the fastest first.
        kind: ggml's number of its type (ggml_types).
        offset: in bytes, within the data.
        bytes: size of its data.
    """

    name: str
    dims: tuple[int, ...]
    kind: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """Header of a GGUF: pairs, tensors by name, and the byte where the data start."""

    architecture: str
    pairs: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    data_start: int

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return len(self.pairs["tokenizer.ggml.tokens"])


class Cursor:
    """Reads a file forward, never past its end and never past MOST_HEADER_BYTES.

    In all methods, `what` names the part that is read, for the fault.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size  # bytes of the file
        self.position = 0
        self.items = 0  # of all arrays so far

    def _need(self, count: int, what: str) -> None:
        """Check that so many bytes are left; the bytes themselves are not read."""
        left = self.size - self.position
        if count > left:
            raise GgufFault(f"{what} needs {count} bytes, {left} are left")
        if self.position + count > MOST_HEADER_BYTES:
            raise GgufFault(
                f"{what} ends past the first {MOST_HEADER_BYTES} bytes, the most of a header"
            )

    def read(self, count: int, what: str) -> bytes:
        """Read bytes."""
        self._need(count, what)
        # Read, not mapped: a mapped file that shrinks ends the process that looks at it.
        raw = self.file.read(count)
        if len(raw) < count:
            raise GgufFault(f"{what} ends early: the file is being changed")
        self.position += count
        return raw

    def number(self, form: str, what: str) -> Any:
        """Read one number in a format of `struct`."""
        form = "<" + form
        raw = self.read(struct.calcsize(form), what)
        return struct.unpack(form, raw)[0]

    def name(self, what: str, most: int) -> str:
        """Read a printable text of at most `most` bytes."""
        text = self.text(what, most)
        if not text.isprintable():
            raise GgufFault(f"{what} has characters that cannot be printed")
        return text

    def text(self, what: str, most: int = MOST_TEXT_BYTES) -> str:
        """Read a text with its length before it."""
        length = self.number("Q", what)
        if length > most:
            raise GgufFault(f"{what} claims {length} bytes, {most} is the most")
        raw = self.read(length, what)
        # A text of C ends there: two tokens become one, and llama.cpp aborts.
        if 0 in raw:
            raise GgufFault(f"{what} has a zero byte in a text")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise GgufFault(f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        """Read a value of a type of GGUF."""
        if kind in SCALARS:
            return _finite(self.number(SCALARS[kind], what), what)
        if kind == STRING:
            return self.text(what)
        if kind == ARRAY:
            return self._array(what)
        raise GgufFault(f"{what} has value type {kind}, which does not exist")

    def _array(self, what: str) -> list[Any]:
        kind = self.number("I", what)
        count = self.number("Q", what)
        if kind not in SCALARS and kind != STRING:
            raise GgufFault(f"{what} is an array of type {kind}; numbers and strings are known")
        self._count_items(count, what)
        if kind == STRING:
            self._need(8 * count, what)  # each string has at least its length
            return [self.text(what) for _ in range(count)]
        # All numbers at once: one by one would take minutes for a large vocabulary.
        form = f"<{count}{SCALARS[kind]}"
        raw = self.read(struct.calcsize(form), what)
        return [_finite(value, what) for value in struct.unpack(form, raw)]

    def _count_items(self, count: int, what: str) -> None:
        if count > MOST_ITEMS:
            raise GgufFault(f"{what} claims {count} items, {MOST_ITEMS} is the most")
        # Together as well: thousands of lists could each be just small enough.
        self.items += count
        if self.items > MOST_ITEMS_IN_ALL:
            raise GgufFault(f"its lists have more than {MOST_ITEMS_IN_ALL} items together")


def _finite(value: Any, what: str) -> Any:
    """Return a value that is not NaN or infinite: such numbers pass every comparison or none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise GgufFault(f"{what} is not a finite number")
    return value


def read_header(cursor: Cursor) -> Header:
    """Read pairs and tensors. What they mean is not checked, only that the file can carry them.

    Raises:
        GgufFault: not a GGUF, cut short, or a number that the file cannot carry.
    """
    tensor_count, pair_count = _counts(cursor)
    pairs = _pairs(cursor, pair_count)
    tensors = _tensors(cursor, tensor_count)
    data_start = _data_start(cursor, pairs, tensors.values())
    architecture = str(pairs.get("general.architecture"))
    return Header(architecture, pairs, tensors, data_start)


def _pairs(cursor: Cursor, count: int) -> dict[str, Any]:
    """Read the pairs; the key of one that is too large names it in the fault."""
    pairs: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.name("a key", MOST_NAME_BYTES * 4)
        if key in pairs:
            raise GgufFault(f"key {key!r} stands twice")
        kind = cursor.number("I", key)
        pairs[key] = cursor.value(kind, key)
    return pairs


def _tensors(cursor: Cursor, count: int) -> dict[str, GgufTensor]:
    """Read the descriptions of the tensors, by name."""
    tensors: dict[str, GgufTensor] = {}
    for _ in range(count):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise GgufFault(f"tensor {tensor.name!r} stands twice")
        tensors[tensor.name] = tensor
    return tensors


def _counts(cursor: Cursor) -> tuple[int, int]:
    """Read the first fields; returns the numbers of tensors and of pairs."""
    if cursor.read(4, "the magic word") != b"GGUF":
        raise GgufFault("it does not begin with GGUF")
    # A big-endian file has version 3 << 24.
    version = cursor.number("I", "the version")
    if version not in (2, 3):
        raise GgufFault(f"version {version} (2 and 3 are known, little-endian)")
    tensors = cursor.number("Q", "the tensor count")
    pairs = cursor.number("Q", "the pair count")
    if not 0 < tensors <= MOST_TENSORS:
        raise GgufFault(f"{tensors} tensors (1 to {MOST_TENSORS})")
    if not 0 < pairs <= MOST_PAIRS:
        raise GgufFault(f"{pairs} pairs (1 to {MOST_PAIRS})")
    return tensors, pairs


def _tensor(cursor: Cursor) -> GgufTensor:
    """Read the description of one tensor."""
    name = cursor.name("a tensor's name", MOST_NAME_BYTES)
    count = cursor.number("I", name)
    if not 0 < count <= MOST_DIMS:
        raise GgufFault(f"tensor {name!r} has {count} dimensions (1 to {MOST_DIMS})")
    dims = tuple(cursor.number("Q", name) for _ in range(count))
    kind = cursor.number("I", name)
    offset = cursor.number("Q", name)
    size = _data_bytes(name, dims, kind)
    if size > cursor.size:
        raise GgufFault(f"tensor {name!r} claims {size} bytes, the file has {cursor.size}")
    return GgufTensor(name, dims, kind, offset, size)


def _data_bytes(name: str, dims: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor's data; each row must be whole blocks."""
    if kind not in BY_NUMBER:
        raise GgufFault(f"tensor {name!r} has type {kind}, which is not known here")
    block = BY_NUMBER[kind]
    blocks = math.prod(dims) // block.values  # Python's integers do not overflow
    if blocks == 0 or dims[0] % block.values:
        raise GgufFault(f"tensor {name!r} has shape {list(dims)}, which its type cannot hold")
    return blocks * block.bytes


def _data_start(cursor: Cursor, pairs: Mapping[str, Any], tensors: Iterable[GgufTensor]) -> int:
    """Check that tensors lie one after another, without holes, to the end of the file.

    Returns the byte where the data start: after the header, padded to the alignment.
    """
    align = _alignment(pairs)
    # Rounded up to a multiple of the alignment.
    start = -(-cursor.position // align) * align
    end = 0  # of the tensor before, within the data
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        _check_offset(tensor, end, align)
        last = start + tensor.offset + tensor.bytes
        if last > cursor.size:
            raise GgufFault(
                f"tensor {tensor.name!r} ends at byte {last}, the file at {cursor.size}"
            )
        gap = tensor.offset - end
        if gap >= align:
            raise GgufFault(f"{gap} bytes before tensor {tensor.name!r} belong to none")
        end = tensor.offset + tensor.bytes
    rest = cursor.size - start - end
    if rest >= align:
        raise GgufFault(f"{rest} bytes after its last tensor belong to none")
    return start


def _alignment(pairs: Mapping[str, Any]) -> int:
    """Return the multiple of bytes at which tensors start; 32 where the file does not say."""
    align = pairs.get("general.alignment", 32)
    in_range = isinstance(align, int) and 8 <= align <= 65_536
    # A power of two has one bit.
    if not in_range or align & (align - 1):
        raise GgufFault(f"general.alignment is {short(align)} (a power of two from 8 to 65536)")
    return int(align)


def _check_offset(tensor: GgufTensor, end: int, align: int) -> None:
    """Check that a tensor starts at an aligned byte, and not before `end`."""
    if tensor.offset % align:
        raise GgufFault(
            f"tensor {tensor.name!r} starts at {tensor.offset}, which is not aligned to {align}"
        )
    if tensor.offset < end:
        raise GgufFault(f"tensor {tensor.name!r} overlaps the one before it")


def short(value: Any) -> str:
    """Show a value of the file in a fault, however long it is."""
    return "missing" if value is None else repr(value)[:40]
