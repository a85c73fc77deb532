"""The loader: packed rows in an order that is a function of (seed, epoch), so its whole state is two integers.

Every example of an epoch is seen once. Rows are filled first-fit over a few open rows, in the order of the epoch's permutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tumen.core.errors import InputError
from tumen.data.shards import Array, Shards

OPEN_ROWS = 16


@dataclass(frozen=True)
class Batch:
    """Rows of packed examples, all (rows, row_tokens) int64.

    `documents` numbers the examples of a row from 1 (0 is padding), `positions` restart in each, `targets` is the next token
    of the same example (-1 where there is none), `answers` marks targets that belong to an action, `sources` is where in the
    shard's tokens the target lies (-1 where there is none), `samples` are the examples in the batch, in order.
    """

    ids: Array
    documents: Array
    positions: Array
    targets: Array
    answers: Array
    sources: Array
    samples: Array


class Loader:
    """Endless batches of one rank.

    Args:
        shards: one split.
        rows, row_tokens: shape of a batch.
        seed: of the order.
        rank, world: this process takes every `world`-th row.

    Raises:
        InputError: an example is longer than a row.
    """

    def __init__(self, shards: Shards, rows: int, row_tokens: int, seed: int, rank: int = 0, world: int = 1) -> None:
        longest = int(shards.lengths.max())
        if longest > row_tokens:
            raise InputError(f"an example has {longest} tokens, a row {row_tokens}: set train.row_tokens to {longest} or more")
        self.shards, self.rows, self.row_tokens, self.seed = shards, rows, row_tokens, seed
        self.rank, self.world = rank, world
        self.epoch, self.row = 0, 0
        self._packed = self._pack(0)

    def state(self) -> dict[str, int]:
        """Everything needed to go on from here."""
        return {"epoch": self.epoch, "row": self.row}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a state, whatever was read before."""
        if state["epoch"] != self.epoch:
            self._packed = self._pack(state["epoch"])
        self.epoch, self.row = state["epoch"], state["row"]

    def rows_per_epoch(self) -> int:
        """Rows that one pass over the examples fills, in the current epoch."""
        return len(self._packed)

    def __next__(self) -> Batch:
        mine: list[list[int]] = []
        for number in range(self.rows * self.world):
            if self.row >= len(self._packed):
                self.epoch, self.row = self.epoch + 1, 0
                self._packed = self._pack(self.epoch)
            if number % self.world == self.rank:
                mine.append(self._packed[self.row])
            self.row += 1
        return self._batch(mine)

    def _pack(self, epoch: int) -> list[list[int]]:
        """Examples of every row of an epoch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards))
        lengths = self.shards.lengths[order]
        rows: list[list[int]] = []
        waiting: list[tuple[int, list[int]]] = []  # (room, examples), oldest first
        for example, length in zip(order.tolist(), lengths.tolist(), strict=True):
            place = next((i for i, (room, _) in enumerate(waiting) if room >= length), None)
            if place is None:
                if len(waiting) == OPEN_ROWS:
                    rows.append(waiting.pop(0)[1])
                waiting.append((self.row_tokens - length, [example]))
            else:
                room, examples = waiting[place]
                examples.append(example)
                waiting[place] = (room - length, examples)
        return rows + [examples for _, examples in waiting]

    def _batch(self, rows: list[list[int]]) -> Batch:
        shape = (len(rows), self.row_tokens)
        ids, documents, positions = (np.zeros(shape, np.int64) for _ in range(3))
        targets, sources = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
        answers = np.zeros(shape, np.int64)
        for r, examples in enumerate(rows):
            at = 0
            for number, example in enumerate(examples, start=1):
                start, stop = int(self.shards.starts[example]), int(self.shards.starts[example + 1])
                length, room = stop - start, slice(at, at + stop - start)
                ids[r, room] = self.shards.tokens[start:stop]
                documents[r, room], positions[r, room] = number, np.arange(length)
                inner = slice(at, at + length - 1)
                targets[r, inner] = ids[r, at + 1 : at + length]
                sources[r, inner] = np.arange(start + 1, stop)
                answers[r, inner] = sources[r, inner] >= int(self.shards.answers[example])
                at += length
        samples = np.asarray([example for examples in rows for example in examples], np.int64)
        return Batch(ids, documents, positions, targets, answers, sources, samples)
