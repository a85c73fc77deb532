"""One function over many chunks in many processes: results in order, few chunks in flight, nobody outlives the starter."""

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
CHUNK = 256  # rows a worker takes at once
AHEAD = 2  # chunks in flight for each worker


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def chunks(rows: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Rows in lists of `size`; the last may be shorter."""
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk


def ordered(
    function: Callable[[Any], R], items: Iterable[tuple[T, Any]], workers: int
) -> Iterator[tuple[T, R]]:
    """`function` of the second of every pair, with the first beside it, in order.

    A single pair, or a single worker, is done here: a process takes longer to start. At most `AHEAD` pairs a worker are held.

    Args:
        function: can be pickled; is sent to each worker once.

    Raises:
        TumenError: a worker died.
    """
    items = iter(items)
    first = list(islice(items, 2))
    if workers < 2 or len(first) < 2:
        for beside, item in chain(first, items):
            yield beside, function(item)
        return
    spawn = multiprocessing.get_context("spawn")
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ProcessPoolExecutor(workers, spawn, _start, (os.getpid(), function)) as pool:
        try:
            for beside, item in chain(first, items):
                waiting.append((beside, pool.submit(_call, item)))
                if len(waiting) > AHEAD * workers:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _result(beside: T, future: Future[R]) -> tuple[T, R]:
    try:
        return beside, future.result()
    except BrokenProcessPool:
        raise TumenError(
            "a worker process of the data room died, maybe for want of memory; run the same command again"
        ) from None


_function: Callable[[Any], Any]


def _start(parent: int, function: Callable[[Any], Any]) -> None:
    global _function
    lifetime.die_with_parent(parent)
    _function = function


def _call(item: Any) -> Any:
    return _function(item)
