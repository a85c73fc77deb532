"""Packed batches in an order that is a function of (seed, epoch): three integers are its state.

Every example of an epoch is used once. Rows of a batch are filled first-fit over a few open rows,
in the order of the epoch's permutation. A step takes the same rows however many ranks share them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tumen.core.errors import InputError
from tumen.data.shards import Array, Shards

OPEN_ROWS = 16
NO_TARGET = -1


@dataclass(frozen=True)
class StepTotals:
    """A whole step over all ranks: its rows, and its targets in actions and in sentences."""

    rows: int
    answers: int
    sentences: int


@dataclass(frozen=True)
class Batch:
    """One rank's rows of packed examples, all (rows, seq_len) int64.

    Attributes:
        ids: tokens.
        documents: number of the example within its row, from 1; 0 is padding.
        positions: place of a token within its example.
        targets: next token of the same example; -1 where there is none.
        answers: 1 where the target belongs to an action.
        sources: place of the target in the shard's tokens; -1 where there is none.
        samples: examples of the whole step, in order, (examples,).
        totals: of the whole step.
    """

    ids: Array
    documents: Array
    positions: Array
    targets: Array
    answers: Array
    sources: Array
    samples: Array
    totals: StepTotals

    def split(self, rows: int) -> list[Batch]:
        """Return micro-batches of `rows` rows; each keeps the totals of the whole step."""
        names = ("ids", "documents", "positions", "targets", "answers", "sources")
        parts = []
        for start in range(0, len(self.ids), rows):
            cut = {name: getattr(self, name)[start : start + rows] for name in names}
            parts.append(replace(self, **cut))
        return parts


class Loader:
    """Endless batches of one rank.

    Args:
        shards: one split.
        rows: rows of a step, over all ranks.
        row_tokens: tokens of a row.
        seed: of the order.
        rank: this process takes every `world`-th row of a step, from `rank` on.
        world: number of ranks; it divides `rows`.

    Raises:
        InputError: an example is longer than a row.
    """

    def __init__(
        self, shards: Shards, rows: int, row_tokens: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        longest = int(shards.lengths.max())
        if longest > row_tokens:
            raise InputError(
                f"an example has {longest} tokens, a row {row_tokens}: "
                f"set train.seq_len to {longest} or more"
            )
        self.shards = shards
        self.rows = rows
        self.row_tokens = row_tokens
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.row = 0
        self.seen = 0
        self._packed = self._pack(0)

    def state(self) -> dict[str, int]:
        """Return all that `restore` needs; `seen` is a checksum of the examples so far."""
        return {"epoch": self.epoch, "row": self.row, "seen": self.seen}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue from a state, whatever was read before."""
        if state["epoch"] != self.epoch:
            self._packed = self._pack(state["epoch"])
        self.epoch = state["epoch"]
        self.row = state["row"]
        self.seen = state["seen"]

    def rows_per_epoch(self) -> int:
        """Return the number of rows that the current epoch fills."""
        return len(self._packed)

    def __next__(self) -> Batch:
        """Return the next batch; an epoch's last step is filled up from the next epoch."""
        step: list[list[int]] = []
        while len(step) < self.rows:
            if self.row >= len(self._packed):
                self.epoch += 1
                self.row = 0
                self._packed = self._pack(self.epoch)
            step.append(self._packed[self.row])
            self.row += 1
        samples = np.asarray([example for examples in step for example in examples], np.int64)
        self.seen = zlib.crc32(samples.tobytes(), self.seen)
        return self._batch(step[self.rank :: self.world], samples)

    def _pack(self, epoch: int) -> list[list[int]]:
        """Return the examples of every row of an epoch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards))
        lengths = self.shards.lengths[order]
        full: list[list[int]] = []
        open_rows: list[_OpenRow] = []  # oldest first
        for example, length in zip(order.tolist(), lengths.tolist(), strict=True):
            row = next((row for row in open_rows if row.room >= length), None)
            if row is None:
                if len(open_rows) == OPEN_ROWS:
                    full.append(open_rows.pop(0).examples)
                row = _OpenRow(self.row_tokens, [])
                open_rows.append(row)
            row.examples.append(example)
            row.room -= length
        return full + [row.examples for row in open_rows]

    def _totals(self, samples: Array) -> StepTotals:
        starts = self.shards.starts[samples]
        answers = self.shards.answers[samples]
        stops = self.shards.starts[samples + 1]
        # The first token of an example is no target.
        in_sentences = int((answers - starts - 1).sum())
        return StepTotals(self.rows, int((stops - answers).sum()), in_sentences)

    def _batch(self, rows: list[list[int]], samples: Array) -> Batch:
        """Return the batch of this rank's rows, each a list of examples."""
        shape = (len(rows), self.row_tokens)
        batch = Batch(
            ids=np.zeros(shape, np.int64),
            documents=np.zeros(shape, np.int64),
            positions=np.zeros(shape, np.int64),
            targets=np.full(shape, NO_TARGET, np.int64),
            answers=np.zeros(shape, np.int64),
            sources=np.full(shape, NO_TARGET, np.int64),
            samples=samples,
            totals=self._totals(samples),
        )
        for row, examples in enumerate(rows):
            at = 0
            for number, example in enumerate(examples, start=1):
                at += self._place(batch, row, at, number, example)
        return batch

    def _place(self, batch: Batch, row: int, at: int, number: int, example: int) -> int:
        """Write an example into a row at token `at`; return its length."""
        start = int(self.shards.starts[example])
        stop = int(self.shards.starts[example + 1])
        length = stop - start
        room = slice(at, at + length)
        batch.ids[row, room] = self.shards.tokens[start:stop]
        batch.documents[row, room] = number
        batch.positions[row, room] = np.arange(length)
        # The last token predicts nothing, so there is one target less than tokens.
        inner = slice(at, at + length - 1)
        sources = np.arange(start + 1, stop)
        batch.sources[row, inner] = sources
        batch.targets[row, inner] = batch.ids[row, at + 1 : at + length]
        batch.answers[row, inner] = sources >= int(self.shards.answers[example])
        return length


@dataclass
class _OpenRow:
    """A row that still takes examples: tokens that are free, and the examples in it."""

    room: int
    examples: list[int]
