"""The same filters and encoding on a Ray cluster (`data.engine = "ray"`), beyond one machine.

Each file is read, checked and encoded by a Ray Data task where there is room for one. Only the
search for copies needs all rows together: their keys, never their texts, are sorted into buckets,
and in each bucket the rows whose key occurred before are found. The result equals that of
filters/ and dataset.py, in the same order. Checked texts wait in Ray's object store, which spills
to disk; this process holds 9 bytes for each copy and writes the artifact.

Files must be visible to every node under the same path. `RAY_ADDRESS` names the cluster; without
it, Ray starts on this machine.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tumen.core.errors import RecipeError, TumenError
from tumen.core.extras import need, optional
from tumen.data.filters import RowFilter
from tumen.data.shards import Array, PackedExamples
from tumen.data.sources.read import read_text_file, text_files
from tumen.data.workers import CHUNK_ROWS, core_count

if TYPE_CHECKING:
    from pyarrow import Table

PURPOSE = "data.engine = 'ray'"
pyarrow = optional("pyarrow", PURPOSE, "ray")
FILE_BITS = 40  # a row's id is its file's number above, its place in the file below these bits
KEYS_A_ROW = 15  # 1 for exact and 14 for near copies
KEYS_A_BUCKET = 1_000_000
SPAN_BYTES = 16_000_000  # of a JSONL file that one task encodes
Columns = dict[str, Array]
Encode = Callable[[Sequence[str]], PackedExamples]


@contextmanager
def ray_data() -> Iterator[Any]:
    """Yield Ray Data on the cluster of `RAY_ADDRESS`, or on this machine until the block ends.

    Raises:
        MissingExtra: Ray is not installed.
        TumenError: an error of a task, as raised there; or Ray's own in one line.
    """
    ray = need("ray", PURPOSE)
    need("ray.data", PURPOSE)
    started_here = not ray.is_initialized()
    if started_here:
        local: dict[str, Any] = {}
        if not os.environ.get("RAY_ADDRESS"):
            local = {"num_cpus": core_count(), "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    try:
        yield ray.data
    except ray.exceptions.RayError as error:
        raise _unwrapped(error) from None
    finally:
        if started_here:
            ray.shutdown()


def _unwrapped(error: BaseException) -> TumenError:
    """Return our own error that Ray wrapped, or Ray's message in one line."""
    fault: BaseException | None = error
    while fault is not None:
        cause = getattr(fault, "cause", None) or fault.__cause__
        if isinstance(cause, TumenError):
            return _first_line_of(cause)
        fault = cause
    return TumenError(f"Ray could not finish: {str(error).strip().splitlines()[-1]}")


def _first_line_of(error: TumenError) -> TumenError:
    """Return the same error with its own text alone: Ray appends lines of its own.

    Its `__init__` is not called, as some errors take more than a text.
    """
    if isinstance(error, RecipeError):
        # Its text has a line for each fault, and the faults are kept beside it.
        return RecipeError(error.where, error.faults)
    # Ray may have made a subclass, which has a text of its own.
    kinds = [one for one in type(error).__mro__ if issubclass(one, TumenError)]
    kind = next(one for one in kinds if one.__module__.startswith("tumen."))
    same = kind.__new__(kind)
    same.__dict__.update(vars(error))
    same.args = (str(error).splitlines()[0],)
    return same


def filter_texts(
    paths: Sequence[str], row_filter: RowFilter, removed: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield (number of its path, text) of every document that passes.

    The order is that of `filter_rows` over one path after the other.

    Args:
        paths: each a file, folder or glob, see `read_text`.
        row_filter: what each document must pass.
        removed: counts the dropped documents by reason.

    Raises:
        InputError: a file cannot be read, with the message of `read_text`.
    """
    files = [
        (part, str(file.absolute())) for part, path in enumerate(paths) for file in text_files(path)
    ]
    items = [{"file": number, "path": path} for number, (_, path) in enumerate(files)]
    with ray_data() as data:
        documents = data.from_items(items, override_num_blocks=len(items)).flat_map(_documents)
        checked = documents.map_batches(
            _Check(row_filter), batch_size=CHUNK_ROWS, batch_format="pyarrow"
        ).materialize()
        for batch in _batches(checked.select_columns(["why"])):
            removed.update(why for why in batch["why"].tolist() if why)
        copies = _copies(checked, row_filter)
        _count_copies(copies, removed)
        kept = checked.map_batches(
            _Drop(copies["at"]), batch_size=CHUNK_ROWS, batch_format="pyarrow"
        )
        for batch in _batches(kept):
            for at, text in zip(batch["at"].tolist(), batch["text"].tolist(), strict=True):
                yield files[at >> FILE_BITS][0], text


def _count_copies(copies: Columns, removed: Counter[str]) -> None:
    exact = int(copies["exact"].sum())
    near = len(copies["exact"]) - exact
    for reason, count in (("exact", exact), ("near", near)):
        if count:  # a Counter with a zero is not equal to one without
            removed[reason] += count


def _batches(dataset: Any) -> Iterator[Columns]:
    batches: Iterator[Columns] = dataset.iter_batches(batch_size=None, batch_format="numpy")
    return (batch for batch in batches if batch)


def _documents(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(read_text_file(Path(item["path"]))):
        yield {"at": (item["file"] << FILE_BITS) + number, "text": text}


class _Check:
    """Adds the columns `why` (reason to drop a row) and `keys`."""

    def __init__(self, row_filter: RowFilter) -> None:
        self.row_filter = row_filter

    def __call__(self, table: Table) -> Table:
        verdicts = self.row_filter(table["text"].to_pylist())
        why = pyarrow.array([reason for reason, _ in verdicts], pyarrow.string())
        keys = pyarrow.array(
            [row_keys for _, row_keys in verdicts], pyarrow.list_(pyarrow.uint64())
        )
        return table.append_column("why", why).append_column("keys", keys)


def _copies(checked: Any, row_filter: RowFilter) -> Columns:
    """Return `at` (sorted) of the rows that repeat an earlier one, and whether exactly."""
    none = {"at": np.empty(0, np.int64), "exact": np.empty(0, bool)}
    if not {"exact", "near"} & set(row_filter.filters):
        return none
    buckets = 1 + checked.count() * KEYS_A_ROW // KEYS_A_BUCKET
    pairs = checked.select_columns(["at", "keys"]).map_batches(
        _Pairs("exact" in row_filter.filters, buckets), batch_size=None, batch_format="pyarrow"
    )
    groups = pairs.groupby("bucket", num_partitions=buckets)
    later = list(_batches(groups.map_groups(_all_but_first, batch_format="numpy")))
    if not later:
        return none
    at = np.concatenate([batch["at"] for batch in later])
    exact = np.concatenate([batch["exact"] for batch in later])
    rows, which = np.unique(at, return_inverse=True)
    return {"at": rows, "exact": np.bincount(which, exact).astype(bool)}


class _Pairs:
    """(key, row) pairs of the rows that passed so far, with the bucket of each key."""

    def __init__(self, exact: bool, buckets: int) -> None:
        self.exact = exact
        self.buckets = buckets

    def __call__(self, table: Table) -> Table:
        lists = table["keys"].combine_chunks()
        sizes = np.asarray(lists.value_lengths())
        keys = np.asarray(lists.flatten())
        starts = np.cumsum(sizes) - sizes
        is_exact = np.zeros(len(keys), bool)
        is_exact[starts[sizes > 0]] = self.exact  # a row's first key, see RowFilter.check
        return pyarrow.table(
            {
                "key": keys,
                "at": np.repeat(np.asarray(table["at"]), sizes),
                "exact": is_exact,
                "bucket": (keys % np.uint64(self.buckets)).astype(np.int64),
            }
        )


def _all_but_first(group: Columns) -> Columns:
    """Return every row of each key but the first."""
    order = np.lexsort((group["at"], group["key"]))
    key = group["key"][order]
    again = np.flatnonzero(key[1:] == key[:-1]) + 1
    return {"at": group["at"][order][again], "exact": group["exact"][order][again]}


class _Drop:
    """Keeps the rows without a reason to drop them."""

    def __init__(self, copies: Array) -> None:
        self.copies = copies

    def __call__(self, table: Table) -> Table:
        at = np.asarray(table["at"])
        why = np.asarray(table["why"].to_pylist(), object)
        kept = ~np.isin(at, self.copies) & (why == "")
        return table.select(["at", "text"]).filter(pyarrow.array(kept))


def encode_lines(path: Path, encode: Encode) -> Iterator[PackedExamples]:
    """Yield the lines of a JSONL file as packed tokens, in order.

    Spans of the file are read and encoded by tasks of their own.
    """
    size = path.stat().st_size
    items = [
        {"path": str(path.absolute()), "start": at, "stop": at + SPAN_BYTES}
        for at in range(0, size, SPAN_BYTES)
    ]
    if not items:
        return
    with ray_data() as data:
        lines = data.from_items(items, override_num_blocks=len(items)).flat_map(_lines_of)
        parts = lines.map_batches(_Encode(encode), batch_size=CHUNK_ROWS, batch_format="numpy")
        for row in parts.iter_rows():
            yield PackedExamples(row["tokens"], row["lengths"], row["prompts"])


def _lines_of(item: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the lines that begin in a span of a file."""
    with open(item["path"], "rb") as file:
        if item["start"]:
            # The rest of a line that began in the span before, or only its line end.
            file.seek(item["start"] - 1)
            file.readline()
        while file.tell() < item["stop"]:
            line = file.readline()
            if not line:
                return
            yield {"line": line.decode("utf-8")}


class _Encode:
    def __init__(self, encode: Encode) -> None:
        self.encode = encode

    def __call__(self, batch: Columns) -> dict[str, list[Array]]:
        part = self.encode(batch["line"].tolist())
        return {"tokens": [part.tokens], "lengths": [part.lengths], "prompts": [part.prompts]}
