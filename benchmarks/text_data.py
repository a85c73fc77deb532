"""How fast texts are filtered and encoded, and in how much memory: one process against all cores.

    python benchmarks/text_data.py TEXTS.jsonl

Prints one line a step: seconds, seconds of all processes' cores (which say more on a busy
machine), megabytes of text a second, and the largest memory of this process.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tumen.data import write_corpus, write_dataset, write_tokenizer
from tumen.data.filters import RowFilter, filter_rows
from tumen.data.sources import read_text
from tumen.recipe import Data, Tokenizer
from tumen.recipe.field_types import Filter

STEPS: tuple[tuple[Filter, ...], ...] = (
    (),
    ("exact",),
    ("quality",),
    ("near",),
    ("quality", "held_out", "exact", "near"),
)


def timed(name: str, size: int, work: Callable[[], object]) -> None:
    """Run and tell."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    work()
    seconds, busy = time.perf_counter() - start, sum(os.times()[:4]) - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:<44} {seconds:7.2f} s, {busy:7.2f} s of cores, "
        f"{size / seconds / 1e6:7.2f} MB/s, peak {peak:6.0f} MB",
        flush=True,
    )


def count(rows: Iterator[str]) -> int:
    """How many."""
    return sum(1 for _ in rows)


def main(path: Path) -> None:
    size = path.stat().st_size
    for filters in STEPS:
        for workers in (1, 2):
            name = f"filters {'+'.join(filters) or 'none'}, {workers} processes"
            timed(
                name,
                size,
                lambda f=filters, w=workers: count(
                    filter_rows(read_text(path), str, RowFilter(f), Counter(), w)
                ),
            )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        section = Data(source="text", path=str(path), filters=("exact",))
        timed("corpus (exact)", size, lambda: write_corpus(section, 0, folder / "corpus", ""))
        timed(
            "tokenizer",
            size,
            lambda: write_tokenizer(
                Tokenizer(vocab_size=4096), folder / "corpus", folder / "tokenizer", ""
            ),
        )
        for workers in (1, 2):
            parts = [folder / name for name in ("corpus", "tokenizer", "dataset")]
            write = partial(write_dataset, *parts, "", workers=workers)
            timed(f"dataset, {workers} processes", size, write)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
