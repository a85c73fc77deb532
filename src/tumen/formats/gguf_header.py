"""A GGUF file's header, read and judged before anything else sees it: nothing is believed that the file cannot carry.

Layout (ggml/docs/gguf.md, version 3, little-endian):

    "GGUF" | version u32 | tensors u64 | pairs u64 | pairs: key, type u32, value
    | tensors: name, dims u32, dim u64 ..., type u32, offset u64 | padding to the alignment | data

llama.cpp aborts its whole process on some headers (a block_count of 2^31-1) and accepts others that cannot be meant
(an end token that does not exist). Here each count is compared with the bytes that are left before anything is read,
so a hostile file costs neither memory nor time, and every refusal is one line. Stands in core because two rooms that may not
see each other open such files: the device runner, and the reader of outside models.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tumen.core.errors import ArtifactError
from tumen.core.untrusted import Refusal, check_file
from tumen.formats.ggml_types import BY_NUMBER

ARCHITECTURES = ("llama", "deepseek2")
MOST_PAIRS, MOST_TENSORS, MOST_DIMS, MOST_LAYERS = 4096, 65_536, 4, 512
MOST_ITEMS = 1 << 20  # of an array: the largest vocabulary in use has 262,144 tokens
MOST_ITEMS_IN_ALL = 1 << 22
MOST_HEADER_BYTES = 64 << 20
MOST_TEXT_BYTES = 1 << 20
MOST_NAME_BYTES = 63  # GGML_MAX_NAME is 64 with its closing zero
MOST_CONTEXT = 1 << 24
BYTE_TOKENS = 256
TOKEN_TYPES = range(1, 7)  # normal, unknown, control, user's, unused, byte
COMMON = (
    *range(0x20, 0x7F),
    *range(0x80, 0xC0),
    *range(0xC2, 0xF0),
)  # bytes of printable text; SmolLM2 lacks some of the others
TOKENISERS = ("llama", "gpt2")  # SentencePiece's kind, and byte-level BPE with merges
MOST_RANK = 4096  # of an adapter

# Value types: number -> struct format; 8 is a string, 9 an array.
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
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the header. `dims` as in the file: the fastest first; `kind` is ggml's type; `offset` is within the data."""

    name: str
    dims: tuple[int, ...]
    kind: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """What a checked GGUF says about itself."""

    architecture: str
    pairs: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    data_start: int

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return len(self.pairs["tokenizer.ggml.tokens"])


class _FaultError(Exception):
    """What is wrong, without the file's name."""


class _Cursor:
    """Reads forward in a file's bytes and never past their end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.at, self.size, self.items = file, 0, size, 0

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise _FaultError(f"{what} needs {count} bytes, {self.size - self.at} are left")
        if self.at + count > MOST_HEADER_BYTES:
            raise _FaultError(
                f"{what} ends past the first {MOST_HEADER_BYTES} bytes, the most of a header"
            )

    def read(self, count: int, what: str) -> bytes:
        self.need(count, what)
        raw = self.file.read(
            count
        )  # never mapped: a file that shrinks under a map ends the process that looks
        if len(raw) < count:
            raise _FaultError(f"{what} ends early: the file is being changed")
        self.at += count
        return raw

    def take(self, form: str, what: str) -> Any:
        (value,) = struct.unpack("<" + form, self.read(struct.calcsize("<" + form), what))
        return value

    def name(self, what: str, most: int) -> str:
        text = self.text(what, most)
        if not text.isprintable():
            raise _FaultError(f"{what} has characters that cannot be printed")
        return text

    def text(self, what: str, most: int = MOST_TEXT_BYTES) -> str:
        length = self.take("Q", what)
        if length > most:
            raise _FaultError(f"{what} claims {length} bytes, {most} is the most")
        raw = self.read(length, what)
        if 0 in raw:  # where C would take it to end: two tokens become one, and llama.cpp aborts
            raise _FaultError(f"{what} has a zero byte in a text")
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
        self.items += count
        if self.items > MOST_ITEMS_IN_ALL:
            raise _FaultError(f"its lists have more than {MOST_ITEMS_IN_ALL} items together")
        if kind == STRING:
            self.need(8 * count, what)  # each string has at least its length
            return [self.text(what) for _ in range(count)]
        raw = self.read(struct.calcsize("<" + SCALARS[kind]) * count, what)
        return [_finite(value, what) for value in struct.unpack(f"<{count}{SCALARS[kind]}", raw)]


def _finite(value: Any, what: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise _FaultError(f"{what} is not a finite number")
    return value


def check(path: Path, error: Refusal = ArtifactError) -> Header:
    """Read a GGUF header and check it against the file and against itself.

    Raises:
        `error`: no GGUF, cut short, or a number in it that cannot be true.
    """
    return _checked(path, _judge, error)


def check_adapter(path: Path, base: Header, error: Refusal = ArtifactError) -> Header:
    """Read an adapter's header and check it against the file and against the model it is for.

    Raises:
        `error`: no LoRA adapter, or one of another model.
    """

    def judge(cursor: _Cursor) -> Header:
        header = _read(cursor)
        _check_adapter(header, base)
        return header

    return _checked(path, judge, error)


def _checked(path: Path, judge: Callable[[_Cursor], Header], error: Refusal) -> Header:
    size = check_file(path, error)
    try:
        if size < 24:
            raise _FaultError("too short for a GGUF header")
        with open(path, "rb") as file:
            return judge(_Cursor(file, size))
    except _FaultError as fault:
        raise error(f"{path}: not a usable GGUF: {fault}; make or fetch it again") from None


def _judge(cursor: _Cursor) -> Header:
    header = _read(cursor)
    architecture = _check_shape(header.pairs, header.tensors)
    _check_tokens(header.pairs, architecture, header.tensors)
    return header


def _read(cursor: _Cursor) -> Header:
    """Pairs and tensors, of which nothing is judged but that the file can carry them."""
    n_tensors, n_pairs = _opening(cursor)
    pairs: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.name("a key", MOST_NAME_BYTES * 4)
        if key in pairs:
            raise _FaultError(f"key {key!r} stands twice")
        pairs[key] = cursor.value(cursor.take("I", key), key)
    tensors: dict[str, GgufTensor] = {}
    for _ in range(n_tensors):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise _FaultError(f"tensor {tensor.name!r} stands twice")
        tensors[tensor.name] = tensor
    data_start = _check_places(cursor, pairs, tensors)
    return Header(str(pairs.get("general.architecture")), pairs, tensors, data_start)


def _opening(cursor: _Cursor) -> tuple[int, int]:
    if cursor.read(4, "the magic word") != b"GGUF":
        raise _FaultError("it does not begin with GGUF")
    version = cursor.take("I", "the version")
    if version not in (2, 3):
        raise _FaultError(f"version {version} (2 and 3 are known, little-endian)")
    n_tensors, n_pairs = cursor.take("Q", "the tensor count"), cursor.take("Q", "the pair count")
    if not 0 < n_tensors <= MOST_TENSORS:
        raise _FaultError(f"{n_tensors} tensors (1 to {MOST_TENSORS})")
    if not 0 < n_pairs <= MOST_PAIRS:
        raise _FaultError(f"{n_pairs} pairs (1 to {MOST_PAIRS})")
    return n_tensors, n_pairs


def _tensor(cursor: _Cursor) -> GgufTensor:
    name = cursor.name("a tensor's name", MOST_NAME_BYTES)
    count = cursor.take("I", name)
    if not 0 < count <= MOST_DIMS:
        raise _FaultError(f"tensor {name!r} has {count} dimensions (1 to {MOST_DIMS})")
    dims = tuple(cursor.take("Q", name) for _ in range(count))
    kind, offset = cursor.take("I", name), cursor.take("Q", name)
    if kind not in BY_NUMBER:
        raise _FaultError(f"tensor {name!r} has type {kind}, which is not known here")
    _, values, block_bytes = BY_NUMBER[kind]
    size = math.prod(dims) // values * block_bytes  # Python's integers do not overflow
    if size == 0 or dims[0] % values:
        raise _FaultError(f"tensor {name!r} has shape {list(dims)}, which its type cannot hold")
    if size > cursor.size:
        raise _FaultError(f"tensor {name!r} claims {size} bytes, the file has {cursor.size}")
    return GgufTensor(name, dims, kind, offset, size)


def _check_places(
    cursor: _Cursor, pairs: Mapping[str, Any], tensors: Mapping[str, GgufTensor]
) -> int:
    """Tensors lie one after another, without holes, to the end of the file. Returns where the data starts."""
    align = pairs.get("general.alignment", 32)
    if not isinstance(align, int) or not 8 <= align <= 65_536 or align & (align - 1):
        raise _FaultError(f"general.alignment is {_short(align)} (a power of two from 8 to 65536)")
    start = -(-cursor.at // align) * align
    end = 0
    for tensor in sorted(tensors.values(), key=lambda one: one.offset):
        if tensor.offset % align:
            raise _FaultError(
                f"tensor {tensor.name!r} starts at {tensor.offset}, which is not aligned to {align}"
            )
        if tensor.offset < end:
            raise _FaultError(f"tensor {tensor.name!r} overlaps the one before it")
        if start + tensor.offset + tensor.bytes > cursor.size:
            raise _FaultError(
                f"tensor {tensor.name!r} ends at byte {start + tensor.offset + tensor.bytes}, the file at {cursor.size}"
            )
        if tensor.offset - end >= align:
            raise _FaultError(
                f"{tensor.offset - end} bytes before tensor {tensor.name!r} belong to none"
            )
        end = tensor.offset + tensor.bytes
    if cursor.size - start - end >= align:
        raise _FaultError(f"{cursor.size - start - end} bytes after its last tensor belong to none")
    return start


def _number(
    pairs: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None
) -> int:
    value = pairs.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _FaultError(f"{key} is {_short(value)} ({low} to {high})")
    return value


def _short(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]


def _check_shape(pairs: Mapping[str, Any], tensors: Mapping[str, GgufTensor]) -> str:
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
        raise _FaultError(
            f"{arch}.attention.head_count_kv is {kv_heads}, which does not divide {heads} heads"
        )
    if f"{arch}.attention.key_length" not in pairs and width % heads:
        raise _FaultError(f"{arch}.embedding_length is {width}, which {heads} heads do not divide")
    for part in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        _number(pairs, f"{arch}.{part}", 1, 1 << 16, default=1)
    for part in ("attention.q_lora_rank", "attention.kv_lora_rank", "leading_dense_block_count"):
        _number(pairs, f"{arch}.{part}", 0, 1 << 16, default=0)
    experts = _number(pairs, f"{arch}.expert_count", 0, 512, default=0)
    _number(pairs, f"{arch}.expert_used_count", min(1, experts), experts, default=0)
    return str(arch)


def _check_tokens(pairs: Mapping[str, Any], arch: str, tensors: Mapping[str, GgufTensor]) -> None:
    """The vocabulary is whole: no token twice, all 256 bytes, special tokens that exist, one embedding each."""
    model = pairs.get("tokenizer.ggml.model")
    if model not in TOKENISERS:
        raise _FaultError(
            f"tokenizer.ggml.model is {_short(model)}; known: {', '.join(TOKENISERS)}"
        )
    tokens = pairs.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise _FaultError("tokenizer.ggml.tokens is no list of tokens")
    if len(set(tokens)) != len(tokens):
        raise _FaultError("tokenizer.ggml.tokens has a token twice")
    letters = (
        {f"<0x{byte:02X}>" for byte in range(BYTE_TOKENS)}
        if model == "llama"
        else {byte_letters()[byte] for byte in COMMON}
    )
    if not letters <= set(tokens):
        raise _FaultError(f"tokenizer.ggml.tokens has not all {len(letters)} byte tokens")
    if model == "gpt2":
        _check_merges(pairs.get("tokenizer.ggml.merges"), set(tokens))
    for part in ("scores", "token_type") if model == "llama" else ("token_type",):
        values = pairs.get(f"tokenizer.ggml.{part}")
        if not isinstance(values, list) or len(values) != len(tokens):
            raise _FaultError(
                f"tokenizer.ggml.{part} has not one value for each of {len(tokens)} tokens"
            )
    if not all(
        type(kind) is int and kind in TOKEN_TYPES for kind in pairs["tokenizer.ggml.token_type"]
    ):
        raise _FaultError(
            f"tokenizer.ggml.token_type has a value that is none ({TOKEN_TYPES[0]} to {TOKEN_TYPES[-1]})"
        )
    for key in pairs:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            _number(pairs, key, 0, len(tokens) - 1)
    for key in ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"):
        _number(pairs, key, 0, len(tokens) - 1)
    expected = (pairs[f"{arch}.embedding_length"], len(tokens))
    embedding = tensors.get("token_embd.weight")
    if embedding is None or embedding.dims != expected:
        raise _FaultError(
            f"token_embd.weight is {_short(embedding and list(embedding.dims))}, {list(expected)} is needed"
        )


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2, github.com/openai/gpt-2, encoder.py)."""
    printed = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in printed else chr(next(moved)) for byte in range(BYTE_TOKENS)]


def _check_merges(merges: Any, tokens: set[str]) -> None:
    """Every merge joins two tokens to a third, no merge stands twice."""
    if not isinstance(merges, list) or not merges or not isinstance(merges[0], str):
        raise _FaultError("tokenizer.ggml.merges is no list of merges")
    if len(set(merges)) != len(merges):
        raise _FaultError("tokenizer.ggml.merges has a merge twice")
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not space or not {left, right, left + right} <= tokens:
            raise _FaultError(
                f"tokenizer.ggml.merges has {_short(merge)}, which does not join two tokens to a third"
            )


def _check_adapter(adapter: Header, base: Header) -> None:
    """A LoRA adapter for `base`: pairs of matrices for tensors that are there, of fitting sizes and one rank each."""
    pairs = adapter.pairs
    for key, wanted in (
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("general.architecture", base.architecture),
    ):
        if pairs.get(key) != wanted:
            raise _FaultError(f"{key} is {_short(pairs.get(key))}, {wanted!r} is needed")
    alpha = pairs.get("adapter.lora.alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise _FaultError(f"adapter.lora.alpha is {_short(alpha)}; a number above 0 is needed")
    if any("alora" in key for key in pairs):
        raise _FaultError(
            "the adapter wakes up at words of its own (aLoRA), which is not known here"
        )
    for name, half in adapter.tensors.items():
        target, _, part = name.rpartition(".lora_")
        other = adapter.tensors.get(f"{target}.lora_{'b' if part == 'a' else 'a'}")
        if part not in ("a", "b") or other is None or target not in base.tensors:
            raise _FaultError(f"tensor {name!r} is no half of an adapter's matrix for this model")
        a, b = (half, other) if part == "a" else (other, half)
        inner, outer = base.tensors[target].dims[:2]
        if (
            len(a.dims) != 2
            or a.dims[0] != inner
            or not a.dims[1] <= MOST_RANK
            or b.dims != (a.dims[1], outer)
        ):
            raise _FaultError(
                f"tensor {name!r} does not fit {target!r}, which is {list(base.tensors[target].dims)}"
            )
