"""The loader: every example once an epoch, and two integers are all its state."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.core.errors import InputError
from tumen.data import Batch, Loader, Shards

ROW = 16
ARRAYS = ("ids", "documents", "positions", "targets", "answers", "sources", "samples")


def shards_of(lengths: list[int]) -> Shards:
    """Examples whose tokens are their own places in the shard, each with an answer of at least one token."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    answers = [start + max(1, length // 2) for start, length in zip(starts, lengths, strict=False)]
    return Shards(np.arange(starts[-1]), starts, np.asarray(answers))


def lengths_of(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(2, ROW) for _ in range(count)]


LENGTHS = st.lists(st.integers(2, ROW), min_size=1, max_size=40)


def same(first: Batch, second: Batch) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)


def epoch_of(loader: Loader) -> list[int]:
    """The samples of the pass that begins now, row by row, for a loader of single rows."""
    found = next(loader).samples.tolist()
    while loader.state()["row"] < loader.rows_per_epoch():
        found += next(loader).samples.tolist()
    return found


@given(LENGTHS, st.integers(0, 5))
def test_every_example_once_an_epoch(lengths: list[int], seed: int) -> None:
    loader = Loader(shards_of(lengths), 1, ROW, seed)
    for _ in range(3):
        assert sorted(epoch_of(loader)) == list(range(len(lengths)))


@given(LENGTHS)
def test_a_batch_is_what_the_shards_say(lengths: list[int]) -> None:
    shards = shards_of(lengths)
    batch = next(Loader(shards, 2, ROW, 0))
    order = iter(batch.samples.tolist())
    for row in range(2):
        for number in range(1, batch.documents[row].max() + 1):
            example = next(order)
            (places,) = np.nonzero(batch.documents[row] == number)
            start, stop = shards.starts[example], shards.starts[example + 1]
            assert batch.ids[row, places].tolist() == list(range(start, stop))
            assert batch.positions[row, places].tolist() == list(range(stop - start))
            assert batch.targets[row, places].tolist() == [*range(start + 1, stop), -1]
            assert batch.sources[row, places].tolist() == [*range(start + 1, stop), -1]
            first = int(shards.answers[example])
            assert batch.answers[row, places].tolist() == [
                int(source >= first) for source in range(start + 1, stop)
            ] + [0]
    assert next(order, None) is None
    padding = batch.documents == 0
    assert not batch.ids[padding].any()
    assert (batch.targets[padding] == -1).all()
    assert not batch.answers[padding].any()


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 3), st.integers(0, 12), st.integers(0, 6), st.integers(0, 3))
def test_three_integers_resume_exactly(
    lengths: list[int], rows: int, before: int, after: int, astray: int
) -> None:
    loader = Loader(shards_of(lengths), rows, ROW, 7)
    for _ in range(before):
        next(loader)
    state = dict(loader.state())
    expected = [next(loader) for _ in range(after)]
    assert all(type(value) is int for value in state.values())
    assert len(state) == 3
    other = Loader(shards_of(lengths), rows, ROW, 7)
    for _ in range(astray):
        next(other)
    other.restore(state)
    assert all(same(left, next(other)) for left in expected)


@given(LENGTHS, st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_ranks_share_the_rows_of_one_process(
    lengths: list[int], rows: int, world: int, batches: int
) -> None:
    whole = Loader(shards_of(lengths), rows * world, ROW, 3)
    ranks = [Loader(shards_of(lengths), rows * world, ROW, 3, rank, world) for rank in range(world)]
    for _ in range(batches):
        together, parts = next(whole), [next(rank) for rank in ranks]
        for rank, part in enumerate(parts):
            for name in ARRAYS[:-1]:
                assert np.array_equal(getattr(part, name), getattr(together, name)[rank::world])
            assert np.array_equal(part.samples, together.samples), (
                "all ranks know the samples of the step"
            )
            assert part.totals == together.totals
        assert together.totals.answers == together.answers.sum()
        assert together.totals.sentences == (together.targets >= 0).sum() - together.answers.sum()
    assert len({tuple(rank.state().items()) for rank in ranks}) == 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    shards = shards_of(lengths_of(1, 60))
    loader, other = Loader(shards, 1, ROW, 0), Loader(shards, 1, ROW, 1)
    first, second = epoch_of(loader), epoch_of(loader)
    assert first != second
    assert first != epoch_of(other)


def test_rows_are_nearly_full() -> None:
    """Commands are short against a row: what is padded is lost work, and an expert's room."""
    rng = random.Random(2)
    lengths = [rng.randint(20, 45) for _ in range(3000)]
    loader = Loader(shards_of(lengths), 1, 128, 0)
    assert sum(lengths) / (128 * loader.rows_per_epoch()) > 0.9


def test_an_example_longer_than_a_row() -> None:
    with pytest.raises(
        InputError, match=r"an example has 17 tokens, a row 16: set train\.seq_len to 17"
    ):
        Loader(shards_of([5, 17]), 1, 16, 0)
