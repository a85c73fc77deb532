"""A GGUF file's header, read and judged before llama.cpp sees it: nothing is believed that the file cannot carry.

Layout (ggml/docs/gguf.md, version 3, little-endian):

    "GGUF" | version u32 | tensors u64 | pairs u64 | pairs: key, type u32, value
    | tensors: name, dims u32, dim u64 ..., type u32, offset u64 | padding to the alignment | data

llama.cpp aborts its whole process on some headers (a block_count of 2^31-1) and accepts others that cannot be meant
(an end token that does not exist). Here each count is compared with the bytes that are left before anything is read,
so a hostile file costs neither memory nor time, and every refusal is one line.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.core.errors import ArtifactError

ARCHITECTURES = ("llama", "deepseek2")
MOST_PAIRS, MOST_TENSORS, MOST_DIMS, MOST_LAYERS = 4096, 65_536, 4, 512
MOST_ITEMS = 1 << 20  # of an array: the largest vocabulary in use has 262,144 tokens
MOST_TEXT_BYTES = 1 << 20
MOST_NAME_BYTES = 63  # GGML_MAX_NAME is 64 with its closing zero
MOST_CONTEXT = 1 << 24
BYTE_TOKENS = 256

# Value types: number -> struct format; 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# Tensor types: number -> (values a block, bytes a block), ggml.h.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 30: (1, 2),  # F32 F16 BF16
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),  # Q4_0 Q4_1 Q5_0 Q5_1 Q8_0
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),  # Q2_K .. Q6_K
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor of the header. `dims` as in the file: the fastest first. `offset` and `bytes` within the data."""

    name: str
    dims: tuple[int, ...]
    offset: int
    bytes: int
    kind: int


@dataclass(frozen=True)
class Header:
    """What a checked GGUF says about itself."""

    architecture: str
    pairs: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    data_start: int

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return len(self.pairs["tokenizer.ggml.tokens"])


class _FaultError(Exception):
    """What is wrong, without the file's name."""


class _Cursor:
    """Reads forward in a file's bytes and never past their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.size = data, 0, len(data)

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise _FaultError(f"{what} needs {count} bytes, {self.size - self.at} are left")

    def take(self, form: str, what: str) -> Any:
        width = struct.calcsize("<" + form)
        self.need(width, what)
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += width
        return value

    def text(self, what: str, most: int = MOST_TEXT_BYTES) -> str:
        length = self.take("Q", what)
        if length > most:
            raise _FaultError(f"{what} claims {length} bytes, {most} is the most")
        self.need(length, what)
        raw = self.data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _FaultError(f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        if kind in SCALARS:
            return _finite(self.take(SCALARS[kind], what), what)
        if kind == STRING:
            return self.text(what)
        if kind == ARRAY:
            return self.array(what)
        raise _FaultError(f"{what} has value type {kind}, which does not exist")

    def array(self, what: str) -> list[Any]:
        kind, count = self.take("I", what), self.take("Q", what)
        if kind not in SCALARS and kind != STRING:
            raise _FaultError(f"{what} is an array of type {kind}; numbers and strings are known")
        if count > MOST_ITEMS:
            raise _FaultError(f"{what} claims {count} items, {MOST_ITEMS} is the most")
        if kind == STRING:
            self.need(8 * count, what)  # each string has at least its length
            return [self.text(what) for _ in range(count)]
        width = struct.calcsize("<" + SCALARS[kind])
        self.need(width * count, what)
        values = list(struct.unpack_from(f"<{count}{SCALARS[kind]}", self.data, self.at))
        self.at += width * count
        return [_finite(value, what) for value in values]


def _finite(value: Any, what: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise _FaultError(f"{what} is not a finite number")
    return value


def check(path: Path) -> Header:
    """Read a GGUF header and check it against the file and against itself.

    Raises:
        ArtifactError: no GGUF, cut short, or a number in it that cannot be true.
    """
    try:
        with open(path, "rb") as handle:
            if handle.seek(0, 2) < 24:
                raise _FaultError("too short for a GGUF header")
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _judge(_Cursor(data))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run the recipe again") from None
    except _FaultError as fault:
        raise ArtifactError(f"{path}: not a usable GGUF: {fault}; run the recipe again") from None


def _judge(cursor: _Cursor) -> Header:
    n_tensors, n_pairs = _opening(cursor)
    pairs: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.text("a key", MOST_NAME_BYTES * 4)
        if key in pairs:
            raise _FaultError(f"key {key!r} stands twice")
        pairs[key] = cursor.value(cursor.take("I", key), key)
    tensors: dict[str, Tensor] = {}
    for _ in range(n_tensors):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise _FaultError(f"tensor {tensor.name!r} stands twice")
        tensors[tensor.name] = tensor
    data_start = _check_places(cursor, pairs, tensors)
    architecture = _check_shape(pairs, tensors)
    _check_tokens(pairs, architecture, tensors)
    return Header(architecture, pairs, tensors, data_start)


def _opening(cursor: _Cursor) -> tuple[int, int]:
    if cursor.data[:4] != b"GGUF":
        raise _FaultError("it does not begin with GGUF")
    cursor.at = 4
    version = cursor.take("I", "the version")
    if version not in (2, 3):
        raise _FaultError(f"version {version} (2 and 3 are known, little-endian)")
    n_tensors, n_pairs = cursor.take("Q", "the tensor count"), cursor.take("Q", "the pair count")
    if not 0 < n_tensors <= MOST_TENSORS:
        raise _FaultError(f"{n_tensors} tensors (1 to {MOST_TENSORS})")
    if not 0 < n_pairs <= MOST_PAIRS:
        raise _FaultError(f"{n_pairs} pairs (1 to {MOST_PAIRS})")
    return n_tensors, n_pairs


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.text("a tensor's name", MOST_NAME_BYTES)
    count = cursor.take("I", name)
    if not 0 < count <= MOST_DIMS:
        raise _FaultError(f"tensor {name!r} has {count} dimensions (1 to {MOST_DIMS})")
    dims = tuple(cursor.take("Q", name) for _ in range(count))
    kind, offset = cursor.take("I", name), cursor.take("Q", name)
    if kind not in BLOCKS:
        raise _FaultError(f"tensor {name!r} has type {kind}, which is not known here")
    values, width = BLOCKS[kind]
    size = math.prod(dims) // values * width  # Python's integers do not overflow
    if size == 0 or dims[0] % values:
        raise _FaultError(f"tensor {name!r} has shape {list(dims)}, which its type cannot hold")
    if size > cursor.size:
        raise _FaultError(f"tensor {name!r} claims {size} bytes, the file has {cursor.size}")
    return Tensor(name, dims, offset, size, kind)


def _check_places(cursor: _Cursor, pairs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Tensors lie one after another inside the file. Returns where the data starts."""
    align = pairs.get("general.alignment", 32)
    if not isinstance(align, int) or not 8 <= align <= 65_536 or align & (align - 1):
        raise _FaultError(f"general.alignment is {align!r} (a power of two from 8 to 65536)")
    start = -(-cursor.at // align) * align
    end = 0
    for tensor in sorted(tensors.values(), key=lambda one: one.offset):
        if tensor.offset % align:
            raise _FaultError(f"tensor {tensor.name!r} starts at {tensor.offset}, which is not aligned to {align}")
        if tensor.offset < end:
            raise _FaultError(f"tensor {tensor.name!r} overlaps the one before it")
        end = tensor.offset + tensor.bytes
        if start + end > cursor.size:
            raise _FaultError(f"tensor {tensor.name!r} ends at byte {start + end}, the file at {cursor.size}")
    return start


def _number(pairs: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None) -> int:
    value = pairs.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _FaultError(f"{key} is {_short(value)} ({low} to {high})")
    return value


def _short(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]


def _check_shape(pairs: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The architecture's numbers agree with one another and with the tensors."""
    arch = pairs.get("general.architecture")
    if arch not in ARCHITECTURES:
        raise _FaultError(f"architecture {_short(arch)}; known: {', '.join(ARCHITECTURES)}")
    layers = _number(pairs, f"{arch}.block_count", 1, MOST_LAYERS)
    found = {name.split(".")[1] for name in tensors if name.startswith("blk.")}
    if found != {str(n) for n in range(layers)}:
        raise _FaultError(f"{arch}.block_count is {layers}, the tensors have {len(found)} blocks")
    width = _number(pairs, f"{arch}.embedding_length", 8, 1 << 16)
    _number(pairs, f"{arch}.feed_forward_length", 1, 1 << 20)
    _number(pairs, f"{arch}.context_length", 1, MOST_CONTEXT)
    heads = _number(pairs, f"{arch}.attention.head_count", 1, 1024)
    kv_heads = _number(pairs, f"{arch}.attention.head_count_kv", 1, heads, default=heads)
    if heads % kv_heads:
        raise _FaultError(f"{arch}.attention.head_count_kv is {kv_heads}, which does not divide {heads} heads")
    if f"{arch}.attention.key_length" not in pairs and width % heads:
        raise _FaultError(f"{arch}.embedding_length is {width}, which {heads} heads do not divide")
    for part in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        _number(pairs, f"{arch}.{part}", 1, 1 << 16, default=1)
    for part in ("attention.q_lora_rank", "attention.kv_lora_rank", "leading_dense_block_count"):
        _number(pairs, f"{arch}.{part}", 0, 1 << 16, default=0)
    experts = _number(pairs, f"{arch}.expert_count", 0, 512, default=0)
    _number(pairs, f"{arch}.expert_used_count", min(1, experts), experts, default=0)
    return str(arch)


def _check_tokens(pairs: Mapping[str, Any], arch: str, tensors: Mapping[str, Tensor]) -> None:
    """The vocabulary is whole: no token twice, all 256 bytes, special tokens that exist, one embedding each."""
    if pairs.get("tokenizer.ggml.model") != "llama":
        raise _FaultError(f"tokenizer.ggml.model is {_short(pairs.get('tokenizer.ggml.model'))}, 'llama' is needed")
    tokens = pairs.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise _FaultError("tokenizer.ggml.tokens is no list of tokens")
    if len(set(tokens)) != len(tokens):
        raise _FaultError("tokenizer.ggml.tokens has a token twice")
    if not {f"<0x{byte:02X}>" for byte in range(BYTE_TOKENS)} <= set(tokens):
        raise _FaultError(f"tokenizer.ggml.tokens has not all {BYTE_TOKENS} byte tokens")
    for part in ("scores", "token_type"):
        values = pairs.get(f"tokenizer.ggml.{part}")
        if not isinstance(values, list) or len(values) != len(tokens):
            raise _FaultError(f"tokenizer.ggml.{part} has not one value for each of {len(tokens)} tokens")
    for key in pairs:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            _number(pairs, key, 0, len(tokens) - 1)
    for key in ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"):
        _number(pairs, key, 0, len(tokens) - 1)
    expected = (pairs[f"{arch}.embedding_length"], len(tokens))
    embedding = tensors.get("token_embd.weight")
    if embedding is None or embedding.dims != expected:
        raise _FaultError(f"token_embd.weight is {_short(embedding and list(embedding.dims))}, {list(expected)} is needed")
