"""Packed shards: all tokens of a split in one memory-mapped array, and where each example begins.

tokens.npy   uint16 or uint32 (N,)   tokens of every example, one after the other
starts.npy   int64 (examples + 1,)   example i is tokens[starts[i] : starts[i + 1]]
answers.npy  int64 (examples,)       first token of its action, so that the loss can weigh
                                     sentence and action differently
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import ArtifactError, InputError
from tumen.data.workers import chunks

Array = NDArray[Any]
ARRAYS = ("tokens", "starts", "answers")
UINT16_VOCAB = 65_536


@dataclass(frozen=True)
class Shards:
    """The arrays of one split, mapped from disk; shapes as in the files above."""

    tokens: Array
    starts: Array
    answers: Array

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.answers)

    @property
    def lengths(self) -> Array:
        """Tokens of every example, (examples,)."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class PackedExamples:
    """Some examples, one after the other.

    Attributes:
        tokens: of all examples, (N,).
        lengths: tokens of each example, (examples,).
        prompts: how many of them are its prompt, (examples,).
    """

    tokens: Array
    lengths: Array
    prompts: Array


def pack_examples(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]], vocab: int
) -> PackedExamples:
    """Concatenate (prompt, answer) pairs of token ids.

    Args:
        pairs: token ids.
        vocab: number of tokens; decides the smallest integer type.
    """
    tokens: list[int] = []
    sizes: list[tuple[int, int]] = []
    for prompt, answer in pairs:
        tokens += [*prompt, *answer]
        sizes.append((len(prompt) + len(answer), len(prompt)))
    lengths, prompts = np.asarray(sizes, np.int64).reshape(-1, 2).T
    dtype = np.uint16 if vocab <= UINT16_VOCAB else np.uint32
    return PackedExamples(np.asarray(tokens, dtype), lengths, prompts)


def write_packed(folder: Path, parts: Iterable[PackedExamples]) -> int:
    """Write examples as they arrive, with one part in memory at a time.

    Returns:
        The number of tokens.

    Raises:
        InputError: there is no example.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with ExitStack() as files:
        tokens, starts, answers = (
            files.enter_context(_NpyWriter(folder / f"{name}.npy")) for name in ARRAYS
        )
        starts.append(np.zeros(1, np.int64))
        for part in parts:
            ends = count + np.cumsum(part.lengths)
            tokens.append(part.tokens)
            starts.append(ends)
            answers.append(ends - part.lengths + part.prompts)
            count += len(part.tokens)
    if not answers.count:
        raise InputError(f"{folder}: no examples to write; the source gave none")
    return count


def write_shards(
    folder: Path, examples: Iterable[tuple[Sequence[int], Sequence[int]]], vocab: int
) -> int:
    """Write (prompt, answer) pairs of token ids.

    Returns:
        The number of tokens.

    Raises:
        InputError: there is no example.
    """
    return write_packed(folder, (pack_examples(some, vocab) for some in chunks(examples)))


class _NpyWriter:
    """A one-dimensional .npy file written front to back.

    The header is written twice: numpy pads it, so the final length fits into the first one's place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.dtype = np.dtype(np.int64)

    def __enter__(self) -> _NpyWriter:
        self.file = open(self.path, "wb")
        return self

    def append(self, values: Array) -> None:
        """Write values; all calls must bring the same type."""
        if not self.count:
            self.dtype = values.dtype
            self._write_header()
        self.file.write(values.tobytes())
        self.count += len(values)

    def __exit__(self, *_: object) -> None:
        with self.file:
            self._write_header()

    def _write_header(self) -> None:
        self.file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.count,),
        }
        np.lib.format.write_array_header_1_0(self.file, header)


def read_shards(folder: Path) -> Shards:
    """Map the arrays of a split and check that they belong together.

    Raises:
        ArtifactError: a file is missing, truncated, or the arrays contradict each other.
    """
    shards = Shards(*(_map_array(folder / f"{name}.npy") for name in ARRAYS))
    if not _is_consistent(shards):
        raise ArtifactError(
            f"{folder}: its arrays do not belong together; delete it and run the recipe again"
        )
    return shards


def _map_array(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the recipe again") from None
    except (ValueError, EOFError, OSError):
        raise ArtifactError(
            f"{path}: truncated or damaged; delete its folder and run the recipe again"
        ) from None
    return array


def _is_consistent(shards: Shards) -> bool:
    """Return whether each example begins where the one before ends, with its answer inside."""
    starts = shards.starts
    answers = shards.answers
    if len(answers) == 0 or len(starts) != len(answers) + 1:
        return False
    if int(starts[0]) != 0 or int(starts[-1]) != len(shards.tokens):
        return False
    return bool((starts[:-1] < answers).all() and (answers < starts[1:]).all())
