"""Validate untrusted files before parsing: links, special files, size, nesting, archives, pickle.

`check_folder` checks names and sizes only, `check_file` one file. `read_json` bounds size, nesting
and number of parts, so that a hostile file costs neither memory nor time. Every refusal is one
line.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tumen.core.errors import ArtifactError, InputError

Refusal = type[InputError] | type[ArtifactError]
# Limits. The largest honest files known are well below them.
MOST_FILES = 1024  # DeepSeek-V3 has some 180
MOST_LEVELS = 8  # of folders
MOST_JSON_BYTES = 48 << 20  # the largest tokenizer.json in use has some 33 MB
MOST_NESTING = 32  # levels of objects and lists in each other
MOST_PARTS = 1 << 21  # objects and lists of one JSON text
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLE_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # protocols 2 to 5
# First bytes of archives.
ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ": "an xz archive",
    b"BZh": "a bzip2 archive",
}
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_folder(folder: Path, error: Refusal = ArtifactError) -> int:
    """Check the names and sizes in a folder from elsewhere. Returns the bytes of all its files.

    Raises:
        `error`: not a folder (an archive is named as such), a link that leaves the folder, a
            special file, or too many files.
    """
    if folder.is_file():
        what = _packed(folder) or "a file"
        raise error(f"{folder}: is {what}, a folder is needed; nothing is unpacked here")
    if not folder.is_dir():
        raise error(f"{folder}: no such folder")
    root = folder.resolve()
    total = 0
    try:
        for count, entry in enumerate(_entries(root, MOST_LEVELS, error), start=1):
            if count > MOST_FILES:
                raise error(f"{folder}: holds more than {MOST_FILES} files and folders; refused")
            total += _size(Path(entry.path), root, error)
    except OSError as fault:
        raise error(f"{folder}: cannot be looked through: {fault.strerror}") from None
    return total


def _entries(folder: Path, levels: int, error: Refusal) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder, at most `levels` folders deep; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if not entry.is_dir(follow_symlinks=False):
                continue
            if levels == 0:
                raise error(f"{shown(entry.path)}: is {MOST_LEVELS} folders deep; refused")
            yield from _entries(Path(entry.path), levels - 1, error)


def _size(path: Path, root: Path, error: Refusal) -> int:
    """Bytes of a file; 0 for a folder."""
    # A link may lead to any file of this machine; one within the folder is fine.
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(root):
            raise error(
                f"{shown(path)}: is a link to {shown(target)}, outside of its folder; refused "
                "(`cp -rL` makes a copy without)"
            )
    if path.is_dir():
        return 0
    return check_file(path, error)


def check_file(path: Path, error: Refusal = ArtifactError) -> int:
    """Check that a path is a regular file, so that opening it cannot hang. Returns its bytes.

    Raises:
        `error`: missing, or a folder, pipe, socket or device.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        raise error(
            f"{shown(path)}: missing, or a link to nowhere; make or fetch it again"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise error(f"{shown(path)}: is {kind}, a file is needed")
    return found.st_size


def shown(path: Path | str) -> str:
    """Return a path as one line without control characters: its name may be hostile too."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _packed(path: Path) -> str | None:
    """Name an archive or a pickle, by its first bytes or its suffix; None for other files."""
    with open(path, "rb") as handle:
        head = handle.read(512)
    if path.suffix in PICKLED or head.startswith(PICKLE_MAGIC):
        return "pickle, which runs code when it is read"
    if head[257:262] == b"ustar":  # tar has its mark behind the first file's name and sizes
        return "a tar archive"
    for magic, name in ARCHIVES.items():
        if head.startswith(magic):
            return name
    return None


def refuse_packed(path: Path, error: Refusal = InputError) -> None:
    """Refuse a pickle or an archive that is given as weights.

    Raises:
        `error`: it is one; the error says which.
    """
    check_file(path, error)
    what = _packed(path)
    if what:
        raise error(f"{path}: is {what}: never opened; save the weights as safetensors or GGUF")


def read_json(path: Path, error: Refusal = ArtifactError, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        `error`: missing, larger than `most_bytes`, nested too deep, with a key twice, or not JSON.
    """
    size = check_file(path, error)
    # Before it is read: a larger file could fill the memory.
    if size > most_bytes:
        raise error(f"{path}: has {size} bytes, {most_bytes} is the most; refused")
    try:
        return parse_json(path.read_bytes())
    except ValueError as fault:
        raise error(f"{path}: is no JSON that can be read: {fault}") from None


def parse_json(raw: bytes) -> Any:
    """Parse a JSON text within the limits above.

    Raises:
        ValueError: says what is wrong in a few words.
    """
    # Counted before parsing: this many parts would take gigabytes as Python objects.
    if raw.count(b"[") + raw.count(b"{") > MOST_PARTS:
        raise ValueError(f"more than {MOST_PARTS} objects and lists")
    try:
        tree = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        # The parser itself recurses; far deeper texts end here.
        raise ValueError(f"nested deeper than {MOST_NESTING}") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"{fault.msg} at byte {fault.pos}") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"not UTF-8 at byte {fault.start}") from None
    if _is_deeper(tree, MOST_NESTING):
        raise ValueError(f"nested deeper than {MOST_NESTING}")
    return tree


def _is_deeper(tree: Any, levels: int) -> bool:
    """Whether objects and lists lie more than `levels` deep in each other; `[]` is one level."""
    level = _containers([tree])
    for _ in range(levels):
        level = [part for whole in level for part in _containers(_parts(whole))]
        if not level:
            return False
    return True


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _parts(whole: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return whole.values() if isinstance(whole, dict) else whole


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, in which no key may stand twice: readers would disagree on its value."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{twice[:60]!r} stands twice")
    return tree


def _no_constant(word: str) -> Any:
    """Refuse NaN and Infinity, which Python reads although JSON has no such numbers."""
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    """Return a number; 1e999 would become infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
