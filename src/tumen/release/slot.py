"""The place where a device or a fleet looks for its bundle: one is live, those before it wait for a rollback.

    place/live.json        {live, before}: names of folders below, newest first; replaced whole, so a kill leaves old or new
    place/bundles/NAME/    a copy of a bundle with its scorecard and signature; NAME is <number of the promotion>-<digest>
    place/events.jsonl     what was promoted, refused and rolled back; only ever appended to
    place/.lock            held by the one process that changes any of this

A file and no symbolic link says what is live: it also works where a file system has no links, and it remembers the way back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from tumen.core import untrusted
from tumen.core.artifact import MANIFEST, manifest_of, verify, write_text
from tumen.core.errors import ArtifactError, InputError, disk
from tumen.core.events import Events
from tumen.core.shape import Frozen
from tumen.release.signing import SCORECARD, SIGNATURE

LIVE, BUNDLES, EVENTS = "live.json", "bundles", "events.jsonl"
MOST_LIVE_BYTES = 1 << 16
Name = Annotated[str, Field(pattern=r"^[0-9]{6}-[0-9a-f]{16}$")]


class Live(Frozen):
    """What is live, and what was before it, newest first."""

    live: Name
    before: tuple[Name, ...] = ()


def is_slot(folder: Path) -> bool:
    """Whether something was ever promoted to a folder."""
    return (folder / LIVE).exists()


def read_live(folder: Path) -> Live:
    """What is live in a place.

    Raises:
        InputError: nothing was promoted to it.
        ArtifactError: its live.json is damaged.
    """
    path = folder / LIVE
    if not path.exists():
        raise InputError(
            f"{folder}: nothing is live here; `tumen promote BUNDLE --to {folder}` puts a bundle here"
        )
    try:
        return Live.model_validate(untrusted.read_json(path, most_bytes=MOST_LIVE_BYTES))
    except (ValidationError, ArtifactError):
        raise ArtifactError(
            f"{path}: damaged; delete it and promote a bundle anew, such as one of {folder / BUNDLES}"
        ) from None


def live_bundle(folder: Path) -> Path:
    """The bundle that is live in a place."""
    return folder / BUNDLES / read_live(folder).live


def history(folder: Path) -> Events:
    """The history of a place."""
    return Events(folder / EVENTS)


def activate(folder: Path, bundle: Path, keep: int) -> Path:
    """Copy a bundle into a place and make it live; at every instant the old one or the new one is. The lock is the caller's.

    Args:
        keep: how many of those before it stay.

    Raises:
        DiskError: no room; what was live still is.
        ArtifactError: the copy is not what the bundle was.
    """
    now = read_live(folder) if is_slot(folder) else None
    name = f"{_next(folder):06d}-{manifest_of(bundle, 'bundle').digest}"
    remove_unused(folder, [now.live, *now.before] if now else _names(folder))
    target = folder / BUNDLES / name
    stage = target.with_name(f".{name}.new")
    with disk(folder):
        try:
            stage.mkdir(parents=True)
            for part in _parts(bundle):
                _copy(bundle / part, stage / part)
            if verify(stage, "bundle").digest != name[7:]:
                raise ArtifactError(f"{bundle}: was changed while it was copied; promote it again")
            os.replace(stage, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    before = (now.live, *now.before)[:keep] if now else ()
    _switch(folder, Live(live=name, before=before))
    remove_unused(folder, [name, *before])
    return target


def roll_back(folder: Path) -> Path:
    """Make live what was live before. The lock is the caller's. What is left stays until the next promotion.

    Raises:
        InputError: there is nothing before it.
    """
    target = previous_bundle(folder)
    now = read_live(folder)
    _switch(folder, Live(live=now.before[0], before=now.before[1:]))
    return target


def previous_bundle(folder: Path) -> Path:
    """The bundle that a rollback would make live.

    Raises:
        InputError: there is none.
    """
    now = read_live(folder)
    if not now.before:
        raise InputError(
            f"{folder}: {now.live} is the only one that is kept here; there is nothing to go back to"
        )
    return folder / BUNDLES / now.before[0]


def remove_unused(folder: Path, names: Iterable[str]) -> None:
    """Remove all bundles but these, and what a kill left half written."""
    kept = set(names)
    for rest in folder.glob(f".{LIVE}.*.part"):
        rest.unlink(missing_ok=True)
    for path in (folder / BUNDLES).glob("*") if (folder / BUNDLES).is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _next(folder: Path) -> int:
    """One more than every number that stands in a place."""
    return 1 + max((int(name[:6]) for name in _names(folder)), default=0)


def _names(folder: Path) -> list[str]:
    """The whole bundles in a place, live or not."""
    return [path.name for path in (folder / BUNDLES).glob("[0-9]*-*") if path.name[:6].isdigit()]


def _switch(folder: Path, live: Live) -> None:
    write_text(folder / LIVE, live.model_dump_json(indent=1))
    _sync(folder)


def _parts(bundle: Path) -> list[str]:
    """The files of a bundle, its manifest first; what no manifest lists stays behind."""
    card = bundle / SCORECARD
    parts = [MANIFEST, *manifest_of(bundle, "bundle").files]
    if (bundle / SIGNATURE).exists():
        parts.append(SIGNATURE)
    if card.is_dir():
        parts += [
            f"{SCORECARD}/{name}" for name in (MANIFEST, *manifest_of(card, "scorecard").files)
        ]
    return parts


def _copy(source: Path, target: Path) -> None:
    """Copy a file down to the disk itself: a switch must not outlive what it switches to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def _sync(folder: Path) -> None:
    """Make names in a folder last over a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
