"""Interleave several sources by weight: the next row comes from the source furthest behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tumen.core.errors import InputError

T = TypeVar("T")


def interleave(
    sources: Sequence[Callable[[int], Iterable[T]]],
    weights: Sequence[float],
    epochs: Sequence[int],
    size: Callable[[T], int],
) -> Iterator[T]:
    """Yield rows so that at any moment each source has its share, give or take one row.

    Nothing is drawn at random: the same sources give the same stream, and skipping n rows continues
    after the n-th. The stream ends when the source whose turn it is has no rows left, so shares
    hold to the end, and what is left of the other sources is not used.

    Args:
        sources: each opens a stream of rows for epoch 0, 1, ...
        weights: share of each source in the sum of sizes, relative to the other weights.
        epochs: how often each source may be read.
        size: returns the size of a row, such as its characters.

    Raises:
        InputError: a weight is not above zero, or a source has no rows.
    """
    if not all(0 < weight < float("inf") for weight in weights):
        raise InputError(
            f"weights of a mix must be above zero, not {', '.join(map(str, weights))}; "
            "leave a source out instead"
        )
    streams = [_repeat(source, times) for source, times in zip(sources, epochs, strict=True)]
    taken = [0.0] * len(streams)
    while True:
        # min returns the first of equals: ties go to the earlier source.
        turn = min(range(len(streams)), key=lambda i: taken[i] / weights[i])
        row = next(streams[turn], None)
        if row is None:
            if not taken[turn]:
                raise InputError(
                    f"source {turn + 1} of the mix has no rows to train on; leave it out"
                )
            return
        taken[turn] += size(row)
        yield row


def _repeat(source: Callable[[int], Iterable[T]], times: int) -> Iterator[T]:
    for epoch in range(times):
        yield from source(epoch)
