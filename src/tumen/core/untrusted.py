"""What came from elsewhere, looked at before anything reads it: no link out, no pipe, no giant, no bomb, no archive, no pickle.

`check_folder` looks at names and sizes alone, `check_file` at one file, `read_json` reads a text whose size, nesting and number
of parts are bounded first, so that a hostile folder costs neither memory nor time. Every refusal is one line.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumen.core.errors import ArtifactError, InputError

Refusal = type[InputError] | type[ArtifactError]
MOST_FILES = 1024  # DeepSeek-V3 has some 180
MOST_LEVELS = 8  # of folders
MOST_JSON_BYTES = 48 << 20  # the largest tokenizer.json in use has some 33 MB
MOST_NESTING = 32
MOST_PARTS = 1 << 21  # objects and lists of one JSON text
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
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
    """Look at the names and sizes in a folder that somebody handed over. Returns the bytes of all its files.

    Raises:
        `error`: no folder (an archive is named as such), a link that leaves it, something that is no file, too many files.
    """
    if folder.is_file():
        what = _packed(folder) or "a file"
        raise error(f"{folder}: is {what}, a folder is needed; nothing is unpacked here")
    if not folder.is_dir():
        raise error(f"{folder}: no such folder")
    root, count, held = folder.resolve(), 0, 0
    try:
        for entry in _entries(root, MOST_LEVELS, error):
            count += 1
            if count > MOST_FILES:
                raise error(f"{folder}: holds more than {MOST_FILES} files and folders; refused")
            held += _size(Path(entry.path), root, error)
    except OSError as fault:
        raise error(f"{folder}: cannot be looked through: {fault.strerror}") from None
    return held


def _entries(folder: Path, levels: int, error: Refusal) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                if levels == 0:
                    raise error(f"{shown(entry.path)}: is {MOST_LEVELS} folders deep; refused")
                yield from _entries(Path(entry.path), levels - 1, error)


def _size(path: Path, root: Path, error: Refusal) -> int:
    """Bytes of a file, none of a folder."""
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(root):
            raise error(
                f"{shown(path)}: is a link to {shown(target)}, outside of its folder; refused (`cp -rL` makes a copy without)"
            )
    if path.is_dir():
        return 0
    return check_file(path, error)


def check_file(path: Path, error: Refusal = ArtifactError) -> int:
    """Make sure that opening a path cannot hang. Returns the file's bytes.

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
        raise error(
            f"{shown(path)}: is {KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}, a file is needed"
        )
    return found.st_size


def shown(path: Path | str) -> str:
    """A path as one line without control characters: its name may be hostile too."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _packed(path: Path) -> str | None:
    """What a file is that somebody took for a folder or for weights: an archive, pickle, or nothing known."""
    with open(path, "rb") as handle:
        head = handle.read(512)
    if path.suffix in PICKLED or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "pickle, which runs code when it is read"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((name for magic, name in ARCHIVES.items() if head.startswith(magic)), None)


def refuse_packed(path: Path, error: Refusal = InputError) -> None:
    """Name a pickle or an archive that is handed over as weights.

    Raises:
        `error`: it is one.
    """
    check_file(path, error)
    if what := _packed(path):
        raise error(f"{path}: is {what}: never opened; save the weights as safetensors or GGUF")


def read_json(path: Path, error: Refusal = ArtifactError, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        `error`: missing, larger than `most_bytes`, nested too deep, with a key twice, or no JSON.
    """
    size = check_file(path, error)
    if size > most_bytes:
        raise error(f"{path}: has {size} bytes, {most_bytes} is the most; refused")
    try:
        return parse_json(path.read_bytes())
    except ValueError as fault:
        raise error(f"{path}: is no JSON that can be read: {fault}") from None


def parse_json(raw: bytes) -> Any:
    """What a JSON text holds, within bounds.

    Raises:
        ValueError: says what is wrong in a few words.
    """
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
        raise ValueError(f"nested deeper than {MOST_NESTING}") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"{fault.msg} at byte {fault.pos}") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"not UTF-8 at byte {fault.start}") from None
    level: list[Any] = [tree]
    for _ in range(MOST_NESTING + 1):
        level = [
            part for whole in level for part in _within(whole) if isinstance(part, dict | list)
        ]
        if not level:
            return tree
    raise ValueError(f"nested deeper than {MOST_NESTING}")


def _within(whole: Any) -> Any:
    return whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} stands twice")
    return tree


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
