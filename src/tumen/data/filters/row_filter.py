"""One pass over training rows that drops poor, held-out and repeated ones, in order.

A row is a copy when one of its keys occurred before, also in a row that was itself dropped. So the
result depends on the order of the rows alone, and a cluster (on_ray.py) finds the same rows by
sorting keys. Memory: a row leaves 1 key for exact copies and 14 for near ones, never its text; a
million rows take 0.24 to 0.48 GB with near copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tumen.data.filters.key_set import KeySet
from tumen.data.filters.quality import quality_fault
from tumen.data.filters.text_keys import (
    NO_KEYS,
    Keys,
    band_keys,
    folded,
    overlaps_eval,
    text_key,
    word_keys,
    words_of,
)
from tumen.data.workers import chunks, map_in_order
from tumen.recipe.field_types import Filter

T = TypeVar("T")


@dataclass(frozen=True)
class RowFilter:
    """What can be decided about one row without the others: pure, so it runs in any process.

    Attributes:
        filters: which filters apply.
        evaluation: keys of evaluation texts, from `eval_keys`.
    """

    filters: tuple[Filter, ...]
    evaluation: Keys = field(default_factory=lambda: NO_KEYS)

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, Keys]]:
        """Return `check` of each text."""
        return [self.check(text) for text in texts]

    def check(self, text: str) -> tuple[str, Keys]:
        """Return why a text is dropped ("" when it is not), and the keys that find its copies.

        Returns:
            (reason, keys); the key of exact copies comes first, then those of near copies.
        """
        if not text.strip():
            return "empty", NO_KEYS
        if "quality" in self.filters:
            fault = quality_fault(text)
            if fault:
                return f"quality: {fault}", NO_KEYS
        if not {"held_out", "exact", "near"} & set(self.filters):
            return "", NO_KEYS
        plain = folded(text)
        words = NO_KEYS
        if "held_out" in self.filters or "near" in self.filters:
            words = word_keys(words_of(plain))
        if "held_out" in self.filters and overlaps_eval(words, self.evaluation):
            return "held_out", NO_KEYS
        keys = NO_KEYS
        if "exact" in self.filters:
            keys = np.asarray([text_key(plain)], np.uint64)
        if "near" in self.filters:
            keys = np.concatenate((keys, band_keys(words)))
        return "", keys

    def copy_reason(self, before: NDArray[np.bool_]) -> str:
        """Return why a row is dropped given which of its keys occurred before, or ""."""
        if not before.any():
            return ""
        return "exact" if "exact" in self.filters and before[0] else "near"


def filter_rows(
    rows: Iterable[T],
    text: Callable[[T], str],
    row_filter: RowFilter,
    removed: Counter[str],
    workers: int = 1,
    seen: KeySet | None = None,
) -> Iterator[T]:
    """Yield the rows that pass, in order.

    Args:
        rows: read once; only a few chunks are held.
        text: returns the text of a row.
        row_filter: what each row must pass.
        removed: counts the dropped rows by reason.
        workers: processes that check rows; the result is the same for any number.
        seen: keys of the rows before these.
    """
    seen = seen or KeySet()
    pairs = ((chunk, [text(row) for row in chunk]) for chunk in chunks(rows))
    if not row_filter.filters:
        workers = 1
    for chunk, verdicts in map_in_order(row_filter, pairs, workers):
        for row, (reason, keys) in zip(chunk, verdicts, strict=True):
            reason = reason or row_filter.copy_reason(seen.add(keys))
            if reason:
                removed[reason] += 1
            else:
                yield row
