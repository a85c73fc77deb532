"""Packed shards: all tokens of a split in one memory-mapped array, and where each example and its action begin.

tokens.npy   uint16 or uint32 (N,)   every example's tokens, one after the other
starts.npy   int64 (examples + 1,)   example i is tokens[starts[i] : starts[i + 1]]
answers.npy  int64 (examples,)       first token of its action, so loss and sentence can be told apart
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


@dataclass(frozen=True)
class Shards:
    """The arrays of one split, mapped from disk."""

    tokens: Array
    starts: Array
    answers: Array

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> Array:
        """Tokens of every example."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Packed:
    """Some examples in a row: all their tokens (N,), the length of each (examples,), and how much of it is prompt (examples,)."""

    tokens: Array
    lengths: Array
    prompts: Array


def packed(pairs: Iterable[tuple[Sequence[int], Sequence[int]]], vocab: int) -> Packed:
    """(prompt, answer) pairs of token ids, one after the other, in the smallest type that holds the vocabulary."""
    tokens: list[int] = []
    sizes: list[tuple[int, int]] = []
    for prompt, answer in pairs:
        tokens += [*prompt, *answer]
        sizes.append((len(prompt) + len(answer), len(prompt)))
    lengths, prompts = np.asarray(sizes, np.int64).reshape(-1, 2).T
    return Packed(np.asarray(tokens, np.uint16 if vocab <= 65_536 else np.uint32), lengths, prompts)


def write_packed(folder: Path, parts: Iterable[Packed]) -> int:
    """Write examples as they come, holding one part at a time; returns the number of tokens.

    Raises:
        InputError: there is no example.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with ExitStack() as files:
        tokens, starts, answers = (
            files.enter_context(_Growing(folder / f"{name}.npy"))
            for name in ("tokens", "starts", "answers")
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
    """Write (prompt, answer) pairs of token ids; returns the number of tokens.

    Raises:
        InputError: there is no example.
    """
    return write_packed(folder, (packed(some, vocab) for some in chunks(examples)))


class _Growing:
    """A one-dimensional .npy that is written front to back: numpy leaves room in the header for the final length."""

    def __init__(self, path: Path) -> None:
        self.path, self.count, self.dtype = path, 0, np.dtype(np.int64)

    def __enter__(self) -> _Growing:
        self.file = open(self.path, "wb")
        return self

    def append(self, values: Array) -> None:
        """Add values; all calls bring the same type."""
        if not self.count:
            self.dtype = values.dtype
            self._header()
        self.file.write(values.tobytes())
        self.count += len(values)

    def __exit__(self, *_: object) -> None:
        with self.file:
            self._header()

    def _header(self) -> None:
        self.file.seek(0)
        about = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.count,),
        }
        np.lib.format.write_array_header_1_0(self.file, about)


def _fit(shards: Shards) -> bool:
    """Whether every example begins where the one before it ends, with its answer inside."""
    starts, answers = shards.starts, shards.answers
    if (
        len(answers) == 0
        or len(starts) != len(answers) + 1
        or int(starts[0]) != 0
        or int(starts[-1]) != len(shards.tokens)
    ):
        return False
    return bool((starts[:-1] < answers).all() and (answers < starts[1:]).all())


def read_shards(folder: Path) -> Shards:
    """Map the arrays of a split and check that they belong together.

    Raises:
        ArtifactError: a file is missing, cut short, or the arrays contradict each other.
    """
    arrays = []
    for name in ("tokens", "starts", "answers"):
        path = folder / f"{name}.npy"
        try:
            arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError:
            raise ArtifactError(f"{path}: missing; run the recipe again") from None
        except (ValueError, EOFError, OSError):
            raise ArtifactError(
                f"{path}: cut short or damaged; delete its folder and run the recipe again"
            ) from None
    shards = Shards(*arrays)
    if not _fit(shards):
        raise ArtifactError(
            f"{folder}: its arrays do not belong together; delete it and run the recipe again"
        )
    return shards
