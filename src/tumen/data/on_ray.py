"""The same filters and the same encoding on a Ray cluster (`data.engine = "ray"`), when one machine is not enough.

Every file is read, judged and encoded by a task of Ray Data where there is room for one. Only the search for copies needs all rows
together: their keys, never their texts, are sorted into buckets, and in each the rows whose key came before are found. What comes
out is what filters.py and prepare.py give, in the same order. Judged texts wait in Ray's object store, which spills to disk;
this process holds 9 bytes a removed copy, and writes the artifact.

Files must be visible to every node under the same path. `RAY_ADDRESS` names the cluster; without it Ray starts on this machine.
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

from tumen.core.errors import TumenError
from tumen.core.extras import need, optional
from tumen.data.filters import Judge
from tumen.data.shards import Array, Packed
from tumen.data.sources.read import read_text_file, text_files
from tumen.data.workers import CHUNK, cores

if TYPE_CHECKING:
    from pyarrow import Table

PURPOSE = "data.engine = 'ray'"
pa = optional("pyarrow", PURPOSE, "ray")
FILE_BITS = 40  # a row's number is its file's above, its place in the file below
KEYS_A_BUCKET = 1_000_000
SPAN_BYTES = 16_000_000  # of a JSONL that one task encodes
Columns = dict[str, Array]


@contextmanager
def ray_data() -> Iterator[Any]:
    """Ray Data on the cluster that `RAY_ADDRESS` names, or on this machine until the block ends; rows keep their order.

    Raises:
        MissingExtra: Ray is not installed.
        TumenError: of a task, as it was raised there; or Ray's own fault in one line.
    """
    ray = need("ray", PURPOSE)
    need("ray.data", PURPOSE)
    mine = not ray.is_initialized()
    if mine:
        here = (
            {}
            if os.environ.get("RAY_ADDRESS")
            else {"num_cpus": cores(), "include_dashboard": False}
        )
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    try:
        yield ray.data
    except ray.exceptions.RayError as error:
        raise _ours(error) from None
    finally:
        if mine:
            ray.shutdown()


def _ours(error: BaseException) -> TumenError:
    """The fault of ours that Ray wrapped, or what Ray says in one line."""
    fault: BaseException | None = error
    while fault is not None:
        cause = getattr(fault, "cause", None) or fault.__cause__
        if isinstance(cause, TumenError):
            return type(cause)(str(cause).splitlines()[0])  # Ray adds lines of its own
        fault = cause
    return TumenError(f"Ray could not finish: {str(error).strip().splitlines()[-1]}")


def sift_texts(
    paths: Sequence[str], judge: Judge, removed: Counter[str]
) -> Iterator[tuple[int, str]]:
    """(number of its path, text) of every document that passes, in the order of `filters.sift` over one path after the other.

    Args:
        paths: each a file, folder or glob, see `read_text`.
        removed: counts what did not pass, by reason.

    Raises:
        InputError: a file that cannot be read, as `read_text` says it.
    """
    files = [
        (part, str(file.absolute())) for part, path in enumerate(paths) for file in text_files(path)
    ]
    items = [{"file": number, "path": path} for number, (_, path) in enumerate(files)]
    with ray_data() as data:
        documents = data.from_items(items, override_num_blocks=len(items)).flat_map(_documents)
        judged = documents.map_batches(
            _Judged(judge), batch_size=CHUNK, batch_format="pyarrow"
        ).materialize()
        for batch in _batches(judged.select_columns(["why"])):
            removed.update(why for why in batch["why"].tolist() if why)
        copies = _copies(judged, judge)
        exact, near = int(copies["exact"].sum()), int((~copies["exact"]).sum())
        removed.update({why: count for why, count in (("exact", exact), ("near", near)) if count})
        kept = judged.map_batches(_Without(copies["at"]), batch_size=CHUNK, batch_format="pyarrow")
        for batch in _batches(kept):
            for at, text in zip(batch["at"].tolist(), batch["text"].tolist(), strict=True):
                yield files[at >> FILE_BITS][0], text


def _batches(dataset: Any) -> Iterator[Columns]:
    batches: Iterator[Columns] = dataset.iter_batches(batch_size=None, batch_format="numpy")
    return (batch for batch in batches if batch)


def _documents(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(read_text_file(Path(item["path"]))):
        yield {"at": (item["file"] << FILE_BITS) + number, "text": text}


class _Judged:
    """Adds the columns `why` and `keys`."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def __call__(self, table: Table) -> Table:
        verdicts = self.judge(table["text"].to_pylist())
        keys = pa.array([row_keys for _, row_keys in verdicts], pa.list_(pa.uint64()))
        return table.append_column(
            "why", pa.array([why for why, _ in verdicts], pa.string())
        ).append_column("keys", keys)


def _copies(judged: Any, judge: Judge) -> Columns:
    """`at` (sorted) of the rows that repeat an earlier one, and whether they do so exactly."""
    none = {"at": np.empty(0, np.int64), "exact": np.empty(0, bool)}
    if not {"exact", "near"} & set(judge.filters):
        return none
    buckets = 1 + judged.count() * 15 // KEYS_A_BUCKET
    pairs = judged.select_columns(["at", "keys"]).map_batches(
        _Pairs("exact" in judge.filters, buckets), batch_size=None, batch_format="pyarrow"
    )
    groups = pairs.groupby("bucket", num_partitions=buckets)
    later = list(_batches(groups.map_groups(_later, batch_format="numpy")))
    if not later:
        return none
    at, exact = (np.concatenate([batch[name] for batch in later]) for name in ("at", "exact"))
    rows, place = np.unique(at, return_inverse=True)
    return {"at": rows, "exact": np.bincount(place, exact).astype(bool)}


class _Pairs:
    """(key, row) pairs of the rows that passed so far."""

    def __init__(self, exact: bool, buckets: int) -> None:
        self.exact, self.buckets = exact, buckets

    def __call__(self, table: Table) -> Table:
        lists = table["keys"].combine_chunks()
        sizes = np.asarray(lists.value_lengths())
        keys, starts = np.asarray(lists.flatten()), np.cumsum(sizes) - sizes
        first = np.zeros(len(keys), bool)
        first[starts[sizes > 0]] = self.exact
        at = np.repeat(np.asarray(table["at"]), sizes)
        return pa.table(
            {
                "key": keys,
                "at": at,
                "exact": first,
                "bucket": (keys % np.uint64(self.buckets)).astype(np.int64),
            }
        )


def _later(group: Columns) -> Columns:
    """All rows of each key but the first."""
    order = np.lexsort((group["at"], group["key"]))
    key, at, exact = (group[name][order] for name in ("key", "at", "exact"))
    again = np.flatnonzero(key[1:] == key[:-1]) + 1
    return {"at": at[again], "exact": exact[again]}


class _Without:
    """Keeps the rows that nothing speaks against."""

    def __init__(self, copies: Array) -> None:
        self.copies = copies

    def __call__(self, table: Table) -> Table:
        at, why = np.asarray(table["at"]), np.asarray(table["why"].to_pylist(), object)
        kept = ~np.isin(at, self.copies) & (why == "")
        return table.select(["at", "text"]).filter(pa.array(kept))


def encode_lines(path: Path, encoder: Callable[[Sequence[str]], Packed]) -> Iterator[Packed]:
    """The lines of a JSONL as packed tokens, in order; stretches of the file are read and encoded by tasks of their own."""
    size = path.stat().st_size
    items = [
        {"path": str(path.absolute()), "start": at, "stop": at + SPAN_BYTES}
        for at in range(0, size, SPAN_BYTES)
    ]
    if not items:
        return
    with ray_data() as data:
        lines = data.from_items(items, override_num_blocks=len(items)).flat_map(_lines_of)
        parts = lines.map_batches(_Encoded(encoder), batch_size=CHUNK, batch_format="numpy")
        for row in parts.iter_rows():
            yield Packed(row["tokens"], row["lengths"], row["prompts"])


def _lines_of(item: dict[str, Any]) -> Iterator[dict[str, str]]:
    """The lines that begin in a stretch of a file."""
    with open(item["path"], "rb") as file:
        if item["start"]:
            file.seek(item["start"] - 1)
            file.readline()  # the line that the stretch before began, or nothing but its end
        while file.tell() < item["stop"] and (line := file.readline()):
            yield {"line": line.decode("utf-8")}


class _Encoded:
    def __init__(self, encoder: Callable[[Sequence[str]], Packed]) -> None:
        self.encoder = encoder

    def __call__(self, batch: Columns) -> dict[str, list[Array]]:
        part = self.encoder(batch["line"].tolist())
        return {"tokens": [part.tokens], "lengths": [part.lengths], "prompts": [part.prompts]}
