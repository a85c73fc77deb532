"""Apply one function to many chunks in worker processes, with results in order.

Only a few chunks are in flight, so memory stays bounded, and a worker never outlives its parent.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from tumen.core import lifetime
from tumen.core.errors import TumenError

T = TypeVar("T")
R = TypeVar("R")
CHUNK_ROWS = 256  # rows of one call of a worker
IN_FLIGHT = 2  # chunks submitted ahead for each worker


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def chunks(rows: Iterable[T], size: int = CHUNK_ROWS) -> Iterator[list[T]]:
    """Yield rows in lists of `size`; the last may be shorter."""
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk


def map_in_order(
    function: Callable[[Any], R], pairs: Iterable[tuple[T, Any]], workers: int
) -> Iterator[tuple[T, R]]:
    """Yield (key, function(argument)) for each (key, argument) pair, in order.

    A single pair, or a single worker, is computed in this process: starting another takes longer.

    Args:
        function: must be picklable; it is sent to each worker once.
        pairs: (key, argument); the key stays in this process.
        workers: number of processes; at most `IN_FLIGHT` pairs for each are held.

    Raises:
        TumenError: a worker process died.
    """
    pairs = iter(pairs)
    first = list(islice(pairs, 2))
    if workers < 2 or len(first) < 2:
        for key, argument in chain(first, pairs):
            yield key, function(argument)
        return
    yield from _map_in_pool(function, chain(first, pairs), workers)


def _map_in_pool(
    function: Callable[[Any], R], pairs: Iterable[tuple[T, Any]], workers: int
) -> Iterator[tuple[T, R]]:
    spawn = multiprocessing.get_context("spawn")
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ProcessPoolExecutor(workers, spawn, _start, (os.getpid(), function)) as pool:
        try:
            for key, argument in pairs:
                waiting.append((key, pool.submit(_call, argument)))
                if len(waiting) > IN_FLIGHT * workers:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            # Without this, closing the generator early would wait for chunks nobody reads.
            pool.shutdown(cancel_futures=True)


def _result(key: T, future: Future[R]) -> tuple[T, R]:
    try:
        return key, future.result()
    except BrokenProcessPool:
        raise TumenError(
            "a worker process of the data room died, perhaps out of memory; "
            "run the same command again"
        ) from None


_function: Callable[[Any], Any]


def _start(parent: int, function: Callable[[Any], Any]) -> None:
    """Prepare a worker process: tie its life to the parent's, and keep the function."""
    global _function
    lifetime.die_with_parent(parent)
    _function = function


def _call(argument: Any) -> Any:
    return _function(argument)
