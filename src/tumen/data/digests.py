"""Digests of the files that a recipe's data section names, so that changed rows are noticed."""

from __future__ import annotations

import glob
from functools import lru_cache
from pathlib import Path

from tumen.core.artifact import file_hash, hash_of
from tumen.core.errors import InputError
from tumen.recipe import Data


def data_digests(data: Data) -> dict[str, str]:
    """Return the digest of what each local path of a data section holds, by path.

    Names of a hub and paths that do not exist are left out: reading them is what fails, with a line
    of its own.

    Raises:
        InputError: a file cannot be read.
    """
    named = [part.path for part in data.parts()]
    named += [part.class_priors for part in data.parts()]
    found = {}
    for path in (*named, *data.held_out):
        files = _files(path) if path else []
        if path and files:
            found[path] = hash_of([(str(file.name), _file_digest(file)) for file in files])
    return found


def _files(path: str) -> list[Path]:
    """Return the files of a path, folder or glob, in order of their names."""
    found = Path(path)
    if found.is_file():
        return [found]
    if found.is_dir():
        return sorted(file for file in found.rglob("*") if file.is_file())
    # Path.glob takes no absolute patterns.
    names = glob.glob(path, recursive=True)  # noqa: PTH207
    return sorted(Path(name) for name in names if Path(name).is_file())


def _file_digest(file: Path) -> str:
    try:
        stat = file.stat()
        return _digest_at(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); see data.path") from None


@lru_cache(4096)
def _digest_at(file: Path, size: int, mtime: int) -> str:
    """Return a file's digest; a file of the same size and time is not read again."""
    return file_hash(file)
