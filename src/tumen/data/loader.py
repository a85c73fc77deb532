"""The loader: packed rows in an order that is a function of (seed, epoch), so its whole state is three integers.

Every example of an epoch is seen once. Rows are filled first-fit over a few open rows, in the order of the epoch's permutation.
A step takes the same rows however many ranks share them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tumen.core.errors import InputError
from tumen.data.shards import Array, Shards

OPEN_ROWS = 16


@dataclass(frozen=True)
class Whole:
    """A whole step, over all ranks: its rows, and how many targets lie in actions and in sentences."""

    rows: int
    answers: int
    sentences: int


@dataclass(frozen=True)
class Batch:
    """One rank's rows of packed examples, all (rows, row_tokens) int64.

    `documents` numbers the examples of a row from 1 (0 is padding), `positions` restart in each, `targets` is the next token
    of the same example (-1 where there is none), `answers` marks targets that belong to an action, `sources` is where in the
    shard's tokens the target lies (-1 where there is none). `samples` are the examples of the whole step, in order.
    """

    ids: Array
    documents: Array
    positions: Array
    targets: Array
    answers: Array
    sources: Array
    samples: Array
    whole: Whole

    def split(self, rows: int) -> list[Batch]:
        """Micro-batches of `rows` rows; each still says what the whole step holds."""
        names = ("ids", "documents", "positions", "targets", "answers", "sources")
        cuts = range(0, len(self.ids), rows)
        return [
            replace(self, **{name: getattr(self, name)[cut : cut + rows] for name in names})
            for cut in cuts
        ]


class Loader:
    """Endless batches of one rank.

    Args:
        shards: one split.
        rows, row_tokens: shape of a step, over all ranks.
        seed: of the order.
        rank, world: this process takes every `world`-th row of a step; `world` divides `rows`.

    Raises:
        InputError: an example is longer than a row.
    """

    def __init__(
        self, shards: Shards, rows: int, row_tokens: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        longest = int(shards.lengths.max())
        if longest > row_tokens:
            raise InputError(
                f"an example has {longest} tokens, a row {row_tokens}: set train.row_tokens to {longest} or more"
            )
        self.shards, self.rows, self.row_tokens, self.seed = shards, rows, row_tokens, seed
        self.rank, self.world = rank, world
        self.epoch, self.row, self.seen = 0, 0, 0
        self._packed = self._pack(0)

    def state(self) -> dict[str, int]:
        """Everything needed to go on from here; `seen` is a checksum of all examples so far, in order."""
        return {"epoch": self.epoch, "row": self.row, "seen": self.seen}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a state, whatever was read before."""
        if state["epoch"] != self.epoch:
            self._packed = self._pack(state["epoch"])
        self.epoch, self.row, self.seen = state["epoch"], state["row"], state["seen"]

    def rows_per_epoch(self) -> int:
        """Rows that one pass over the examples fills, in the current epoch."""
        return len(self._packed)

    def __next__(self) -> Batch:
        step: list[list[int]] = []
        while len(step) < self.rows:
            if self.row >= len(self._packed):
                self.epoch, self.row = self.epoch + 1, 0
                self._packed = self._pack(self.epoch)
            step.append(self._packed[self.row])
            self.row += 1
        samples = np.asarray([example for examples in step for example in examples], np.int64)
        self.seen = zlib.crc32(samples.tobytes(), self.seen)
        return self._batch(step[self.rank :: self.world], samples)

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

    def _whole(self, samples: Array) -> Whole:
        starts, answers, stops = (
            self.shards.starts[samples],
            self.shards.answers[samples],
            self.shards.starts[samples + 1],
        )
        return Whole(self.rows, int((stops - answers).sum()), int((answers - starts - 1).sum()))

    def _batch(self, rows: list[list[int]], samples: Array) -> Batch:
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
        return Batch(
            ids, documents, positions, targets, answers, sources, samples, self._whole(samples)
        )
