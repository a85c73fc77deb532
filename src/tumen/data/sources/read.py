"""Readers of a team's files: rows of JSONL, TSV or Parquet, and plain texts; all of them stream."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError
from tumen.core.extras import need

# A longer .txt is cut at line ends into documents of about this size, which bounds memory.
TEXT_CHARACTERS = 200_000
SENTENCE_COLUMNS = ("sentence", "text", "utt")  # the first that a row has holds what was said
TEXT_SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")


def missing_file(path: Path | str, field: str, origin: str = "") -> InputError:
    """Return the error of a missing file or folder that a recipe names.

    Args:
        path: as the recipe has it.
        field: of the recipe, such as `data.path`.
        origin: where the data is published, if that is known.
    """
    source = f"get it from {origin}" if origin else "name one that you have"
    return InputError(
        f"{path}: no such file or folder; {field} is read from where the command runs; {source}"
    )


def read_rows(path: Path, broken: list[str] | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a JSONL (.gz too), TSV or Parquet file.

    Args:
        path: of the file.
        broken: takes one line for each line that is not a JSON object; None: the first one raises.

    Raises:
        InputError: missing, truncated, not UTF-8, or a line is not a JSON object; names file and
            line.
    """
    if not path.is_file():
        raise missing_file(path, "data.path")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    with _lines(path) as lines:
        if path.suffix == ".tsv":
            yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = _json_row(line, path, number)
            except InputError as error:
                if broken is None:
                    raise
                broken.append(str(error))
                continue
            yield row


def read_text(path: Path | str) -> Iterator[str]:
    """Yield the documents of a file, of a folder and its folders in order of names, or of a glob.

    A `.txt` is one document, cut at line ends after `TEXT_CHARACTERS`. Each row of `.jsonl` or
    `.parquet` is one, in its column `text`. `.txt` and `.jsonl` may be gzipped.

    Raises:
        InputError: missing, empty, truncated, of another kind, or a row has no text; names file and
            row.
    """
    for file in text_files(path):
        yield from read_text_file(file)


def text_files(path: Path | str) -> list[Path]:
    """Return the text files of a path, folder or glob, in order of their names.

    Raises:
        InputError: there is none.
    """
    found = Path(path)
    suffixes = ", ".join(TEXT_SUFFIXES)
    if found.is_file():
        if not found.name.endswith(TEXT_SUFFIXES):
            raise InputError(f"{path}: not read as text; it may end in {suffixes}")
        return [found]
    if found.is_dir():
        paths = list(found.rglob("*"))
    else:
        # Path.glob takes no absolute patterns.
        paths = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    files = [file for file in paths if file.name.endswith(TEXT_SUFFIXES) and file.is_file()]
    if not files:
        raise InputError(
            f"{path}: no such file, or a folder without {suffixes}; "
            "data.path is read from where the command runs"
        )
    return sorted(files)


def read_text_file(path: Path) -> Iterator[str]:
    """Yield the documents of one file; see `read_text`."""
    empty = True
    is_txt = path.name.endswith((".txt", ".txt.gz"))
    for text in _txt(path) if is_txt else _column(path):
        empty = False
        yield text
    if empty:
        raise InputError(f"{path}: no text in it; delete it, or leave it out of data.path")


def read_sentences(path: Path) -> Iterator[str]:
    """Yield the sentences of an eval file: lines of a .txt, else a column of `SENTENCE_COLUMNS`.

    Raises:
        InputError: the file cannot be read, or a row has no such column.
    """
    if not path.is_file():
        raise missing_file(path, "data.held_out")
    if path.suffix == ".txt":
        with _lines(path) as lines:
            yield from (line for line in lines if line.strip())
        return
    for number, row in enumerate(read_rows(path), start=1):
        text = next((row[name] for name in SENTENCE_COLUMNS if name in row), None)
        if not isinstance(text, str):
            raise InputError(
                f"{path}, row {number}: no {', '.join(SENTENCE_COLUMNS[:-1])} or "
                f"{SENTENCE_COLUMNS[-1]} in it; "
                "an eval file has one of these columns"
            )
        yield text


@contextmanager
def _lines(path: Path) -> Iterator[Iterable[str]]:
    """Open the lines of a text file, gzipped or not; errors of reading name the file."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path}: no gzip, or cut short; fetch it again") from None
    except csv.Error as error:
        raise InputError(f"{path}: no TSV ({error})") from None


def _txt(path: Path) -> Iterator[str]:
    parts: list[str] = []
    size = 0
    with _lines(path) as lines:
        for line in lines:
            parts.append(line)
            size += len(line)
            if size >= TEXT_CHARACTERS:
                yield "".join(parts)
                parts = []
                size = 0
    if "".join(parts).strip():
        yield "".join(parts)


def _column(path: Path) -> Iterator[str]:
    """Yield the column `text`, checked."""
    for number, row in enumerate(read_rows(path), start=1):
        text = row.get("text")
        if not isinstance(text, str):
            raise InputError(
                f"{path}, row {number}: its text is {text!r:.40}, not a string; "
                "a row has a column 'text'"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path}, row {number}: half a character (a lone surrogate) at {error.start}; "
                "correct the row"
            ) from None
        yield text


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    pyarrow = need("pyarrow", f"{path}: reading Parquet")
    parquet = need("pyarrow.parquet", f"{path}: reading Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError):
        raise InputError(f"{path}: no Parquet, or cut short") from None


def _json_row(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{path}, line {number}: no JSON; the file may be cut short") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: a JSON object is needed")
    return row
