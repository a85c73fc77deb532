"""Packed shards: all tokens of a split in one memory-mapped array, and where each example and its action begin.

tokens.npy   uint16 or uint32 (N,)   every example's tokens, one after the other
starts.npy   int64 (examples + 1,)   example i is tokens[starts[i] : starts[i + 1]]
answers.npy  int64 (examples,)       first token of its action, so loss and sentence can be told apart
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import ArtifactError, InputError

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


def write_shards(folder: Path, examples: Iterable[tuple[Sequence[int], Sequence[int]]], vocab: int) -> int:
    """Write (prompt, answer) pairs of token ids; returns the number of tokens.

    Raises:
        InputError: there is no example.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens: list[int] = []
    starts, answers = [0], []
    for prompt, answer in examples:
        answers.append(len(tokens) + len(prompt))
        tokens += [*prompt, *answer]
        starts.append(len(tokens))
    if not answers:
        raise InputError(f"{folder}: no examples to write; the source gave none")
    np.save(folder / "tokens.npy", np.asarray(tokens, np.uint16 if vocab <= 65_536 else np.uint32))
    np.save(folder / "starts.npy", np.asarray(starts, np.int64))
    np.save(folder / "answers.npy", np.asarray(answers, np.int64))
    return len(tokens)


def _fit(shards: Shards) -> bool:
    """Whether every example begins where the one before it ends, with its answer inside."""
    starts, answers = shards.starts, shards.answers
    if len(answers) == 0 or len(starts) != len(answers) + 1 or int(starts[0]) != 0 or int(starts[-1]) != len(shards.tokens):
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
            raise ArtifactError(f"{path}: cut short or damaged; delete its folder and run the recipe again") from None
    shards = Shards(*arrays)
    if not _fit(shards):
        raise ArtifactError(f"{folder}: its arrays do not belong together; delete it and run the recipe again")
    return shards
