"""Several sources as one stream, by weight: the next row comes from the source that is furthest behind its share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tumen.core.errors import InputError

T = TypeVar("T")


def mixed(
    sources: Sequence[Callable[[int], Iterable[T]]],
    weights: Sequence[float],
    passes: Sequence[int],
    size: Callable[[T], int],
) -> Iterator[T]:
    """Rows of all sources so that at any moment each has given its share, but for the size of one row.

    Nothing is drawn by chance, so the same sources give the same stream and skipping n rows goes on after the n-th. It ends
    when the source whose turn it is has been used up: shares hold to the end, and what is left of the others is not used.

    Args:
        sources: open a stream of rows for a pass (0, 1, ...), as often as `passes` says.
        weights: shares of the sizes, against each other.
        passes: how often a source may be read.
        size: of a row, such as its characters.

    Raises:
        InputError: a weight that is not above zero, or a source without rows.
    """
    if not all(0 < weight < float("inf") for weight in weights):
        raise InputError(
            f"weights of a mix must be above zero, not {', '.join(map(str, weights))}; leave a source out instead"
        )
    streams = [_read(open_, times) for open_, times in zip(sources, passes, strict=True)]
    given = [0.0] * len(streams)
    while True:
        turn = min(range(len(streams)), key=lambda i: (given[i] / weights[i], i))
        row = next(streams[turn], None)
        if row is None:
            if not given[turn]:
                raise InputError(
                    f"source {turn + 1} of the mix has no rows to train on; leave it out"
                )
            return
        given[turn] += size(row)
        yield row


def _read(source: Callable[[int], Iterable[T]], times: int) -> Iterator[T]:
    for number in range(times):
        yield from source(number)
