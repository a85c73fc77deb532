"""A slot: the folder where a device or a fleet looks for its bundle.

One bundle is live, earlier ones are kept for a rollback.

    slot/live.json        {live, before}: names of folders below, newest first; replaced as a whole
    slot/bundles/NAME/    a copy of a bundle with its scorecard and signature;
                          NAME is <number of the promotion>-<digest>
    slot/events.jsonl     promotions, rejections and rollbacks; only ever appended to
    slot/.lock            held by the one process that changes any of this

A file and not a symbolic link names the live bundle: it also works on a file system without links,
and it remembers the way back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from tumen.core import untrusted
from tumen.core.artifact import MANIFEST, manifest_of, sync, verify, write_text
from tumen.core.errors import ArtifactError, InputError, disk
from tumen.core.events import Events
from tumen.core.shape import Frozen
from tumen.release.signing import SIGNATURE, scorecard_files

LIVE = "live.json"
BUNDLES = "bundles"
EVENTS = "events.jsonl"
MAX_LIVE_BYTES = 1 << 16  # of live.json
COPY_BYTES = 1 << 20  # of one block
NUMBER_DIGITS = 6  # of the number of a promotion, so that names sort by age
BundleName = Annotated[str, Field(pattern=r"^[0-9]{6}-[0-9a-f]{16}$")]


class Live(Frozen):
    """The live bundle and those before it, newest first."""

    live: BundleName
    before: tuple[BundleName, ...] = ()


def is_slot(folder: Path) -> bool:
    """Return whether a bundle was ever promoted to a folder."""
    return (folder / LIVE).exists()


def read_live(folder: Path) -> Live:
    """Return which bundles of a slot are live and kept.

    Raises:
        InputError: no bundle was promoted to it.
        ArtifactError: its live.json is damaged.
    """
    path = folder / LIVE
    if not path.exists():
        raise InputError(
            f"{folder}: no bundle is live here; `tumen promote BUNDLE --to {folder}` promotes one"
        )
    try:
        return Live.model_validate(untrusted.read_json(path, most_bytes=MAX_LIVE_BYTES))
    except (ValidationError, ArtifactError):
        raise ArtifactError(
            f"{path}: damaged; delete it and promote a bundle again, "
            f"such as one of {folder / BUNDLES}"
        ) from None


def live_bundle(folder: Path) -> Path:
    """Return the live bundle of a slot; see `read_live` for the errors."""
    return folder / BUNDLES / read_live(folder).live


def history(folder: Path) -> Events:
    """Return the events of a slot."""
    return Events(folder / EVENTS)


def activate(folder: Path, bundle: Path, keep: int) -> Path:
    """Copy a bundle into a slot and make it live.

    At every instant either the old or the new bundle is live. The caller holds the slot's lock.

    Args:
        folder: the slot.
        bundle: the bundle to copy.
        keep: how many earlier bundles to keep.

    Returns:
        the copy.

    Raises:
        DiskError: there is no room; the live bundle is unchanged.
        ArtifactError: the bundle changed while it was copied.
    """
    now = read_live(folder) if is_slot(folder) else None
    # The digest is compared with the copy's, as the bundle may change meanwhile.
    digest = manifest_of(bundle, "bundle").digest
    name = f"{_next_number(folder):0{NUMBER_DIGITS}d}-{digest}"
    # Room first: what an earlier promotion left behind is removed before the copy.
    used = [now.live, *now.before] if now else _bundle_names(folder)
    remove_unused(folder, used)
    target = folder / BUNDLES / name
    _copy_bundle(bundle, target, digest)
    before = (now.live, *now.before)[:keep] if now else ()
    _switch(folder, Live(live=name, before=before))
    # Only now: until the switch the old ones were in use.
    remove_unused(folder, [name, *before])
    return target


def roll_back(folder: Path) -> Path:
    """Make the previous bundle live again. The caller holds the slot's lock.

    The bundle that was live stays on disk until the next promotion.

    Raises:
        InputError: there is no previous bundle.
    """
    target = previous_bundle(folder)
    now = read_live(folder)
    first, *rest = now.before
    _switch(folder, Live(live=first, before=tuple(rest)))
    return target


def previous_bundle(folder: Path) -> Path:
    """Return the bundle that a rollback would make live.

    Raises:
        InputError: there is none.
    """
    now = read_live(folder)
    if not now.before:
        raise InputError(
            f"{folder}: {now.live} is the only bundle kept here; there is nothing to go back to"
        )
    return folder / BUNDLES / now.before[0]


def remove_unused(folder: Path, names: Iterable[str]) -> None:
    """Remove all bundles but those named, and files that a killed process left incomplete."""
    kept = set(names)
    # A kill during `write_text` leaves its part.
    for part in folder.glob(f".{LIVE}.*.part"):
        part.unlink(missing_ok=True)
    bundles = folder / BUNDLES
    if not bundles.is_dir():
        return
    for path in bundles.glob("*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _next_number(folder: Path) -> int:
    """Return a number above that of every bundle in a slot."""
    numbers = [int(name[:NUMBER_DIGITS]) for name in _bundle_names(folder)]
    return 1 + max(numbers, default=0)


def _bundle_names(folder: Path) -> list[str]:
    """Return the complete bundles in a slot, live or not."""
    paths = (folder / BUNDLES).glob("[0-9]*-*")
    return [path.name for path in paths if path.name[:NUMBER_DIGITS].isdigit()]


def _copy_bundle(bundle: Path, target: Path, digest: str) -> None:
    """Copy a bundle under a temporary name and move it to its place when it is complete."""
    # On the same disk, so that the rename is one step.
    stage = target.with_name(f".{target.name}.new")
    with disk(target.parents[1]):
        try:
            stage.mkdir(parents=True)
            for part in _parts(bundle):
                _copy_file(bundle / part, stage / part)
            if verify(stage, "bundle").digest != digest:
                raise ArtifactError(f"{bundle}: changed while it was copied; promote it again")
            os.replace(stage, target)
            sync(target.parent)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _switch(folder: Path, live: Live) -> None:
    write_text(folder / LIVE, live.model_dump_json(indent=1))
    sync(folder)


def _parts(bundle: Path) -> list[str]:
    """Return the files to copy, the manifest first; files that no manifest lists are left out."""
    parts = [MANIFEST, *manifest_of(bundle, "bundle").files]
    # The signature is beside the payload: it signs the manifest.
    if (bundle / SIGNATURE).exists():
        parts.append(SIGNATURE)
    return parts + scorecard_files(bundle)


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file and flush it to the disk: live.json must not outlive the files that it names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new, COPY_BYTES)
        new.flush()
        os.fsync(new.fileno())
