"""Artifacts: folders with payload files and a `manifest.json` that says what they were made from.

    manifest = {kind, schema, digest, inputs, made_by, made_from: [digests], facts,
                files: {name: {bytes, sha256}}}

`digest` covers the kind and the payload bytes only, so the same inputs give the same digest on
every run. `inputs` is a hash of everything the result depends on (section of the recipe, parents,
version of the maker); an artifact whose `inputs` equal today's is up to date. `facts` (times,
sizes, losses) are for people and never part of a digest. A new artifact is written into a sibling
folder and renamed into place, so a kill leaves the old artifact or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tumen import __version__
from tumen.core import untrusted
from tumen.core.errors import ArtifactError, disk
from tumen.core.fencing import reject_stale

MANIFEST = "manifest.json"
SCHEMA = 1  # of the manifest; a newer one is refused
# Kinds of artifacts, in the order in which a run makes them.
Kind = Literal[
    "corpus",
    "tokenizer",
    "dataset",
    "checkpoint",
    "logits",
    "quant",
    "bundle",
    "scorecard",
    "ablation",
    "plan",
    "calibration",
]


class Payload(BaseModel):
    """One file of an artifact: size in bytes and SHA-256 in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """Content of a manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    schema_version: int = SCHEMA
    digest: str
    inputs: str
    made_by: str
    made_from: list[str]  # digests of the parents
    facts: dict[str, Any] = {}
    files: dict[str, Payload]

    @property
    def payload_bytes(self) -> int:
        """Size of all payload files."""
        return sum(file.bytes for file in self.files.values())


def hash_of(value: Any) -> str:
    """Short hash (16 hex digits) of a JSON value, independent of the order of keys."""
    # One spelling for one value: sorted keys, no spaces, letters as they are.
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no plain form")


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def payload_of(path: Path) -> Payload:
    """Size and digest of one file."""
    return Payload(bytes=path.stat().st_size, sha256=file_hash(path))


def _payloads(folder: Path, known: Mapping[str, Payload]) -> dict[str, Payload]:
    """Size and digest of every file below a folder, by relative name; `known` ones are not read."""
    payloads = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == MANIFEST:
            continue
        name = str(path.relative_to(folder))
        payloads[name] = known.get(name) or payload_of(path)
    return payloads


def _digest(kind: Kind, files: Mapping[str, Payload]) -> str:
    """Digest of an artifact: its kind and the bytes of its files."""
    return hash_of([kind, {name: payload.sha256 for name, payload in files.items()}])


@contextmanager
def writing(
    folder: Path,
    kind: Kind,
    inputs: str,
    made_from: Sequence[str],
    facts: dict[str, Any] | None = None,
    known: Mapping[str, Payload] | None = None,
) -> Iterator[Path]:
    """Write an artifact: yield an empty sibling folder, add a manifest, rename it to `folder`.

    Args:
        folder: path of the artifact; an older one there is replaced at the end.
        kind, inputs, made_from: see the module's docstring.
        facts: the caller may add to them until the block ends.
        known: digests of files whose writers hashed them already, as when many processes write;
            the caller may add to them as well.

    Raises:
        DiskError: the disk refuses; `folder` is unchanged.
        TrainError: a newer epoch of this job owns the run; `folder` is unchanged.
    """
    # Hosts may share the folder, so the name of this one is part of it.
    stage = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}.new")
    reject_stale()
    with disk(folder):
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        try:
            yield stage
            files = _payloads(stage, known or {})
            # The manifest must not outlive the files that it names.
            for path in stage.rglob("*"):
                sync(path)
            manifest = Manifest(
                kind=kind,
                digest=_digest(kind, files),
                inputs=inputs,
                made_by=f"tumen {__version__}",
                made_from=list(made_from),
                facts=facts or {},
                files=files,
            )
            write_text(stage / MANIFEST, manifest.model_dump_json(indent=1))
            sync(stage)
            # Writing took a while: the job may have been started again since.
            reject_stale()
            replace_folder(stage, folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def add_facts(folder: Path, facts: dict[str, Any]) -> Manifest:
    """Add facts to a finished artifact. Its digest stays the same: facts are not part of it."""
    # The payload may be large and is not read again.
    manifest = manifest_of(folder)
    richer = manifest.model_copy(update={"facts": {**manifest.facts, **facts}})
    write_text(folder / MANIFEST, richer.model_dump_json(indent=1))
    return richer


def replace_folder(stage: Path, folder: Path) -> None:
    """Replace `folder` by `stage`.

    Readers see the old folder, briefly nothing, or the new one (not atomic).
    """
    # A folder cannot be renamed onto one that is not empty.
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(stage, folder)
    except OSError:
        # The new one cannot be put there, so the old one comes back.
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a kill leaves the old content or the new.

    Raises:
        DiskError: the disk refuses; the old content is unchanged.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk(path):
        try:
            with open(part, "w", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
                # Without this a power cut may keep the new name with no content.
                os.fsync(handle.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def manifest_of(folder: Path, kind: Kind | None = None) -> Manifest:
    """Read and check the manifest of an artifact folder, not its payload.

    Raises:
        ArtifactError: no such folder, no manifest, a damaged one, another kind, or a newer schema.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such artifact; `tumen run RECIPE` makes it")
    if not path.exists():
        raise ArtifactError(
            f"{folder}: has no {MANIFEST}, so it is no artifact; `tumen run RECIPE` makes one"
        )
    # Bundles come from elsewhere, so even a manifest is untrusted.
    try:
        manifest = Manifest.model_validate(untrusted.read_json(path))
    except (ValidationError, ArtifactError):
        raise ArtifactError(
            f"{path}: damaged manifest; delete {folder} and run the recipe again"
        ) from None
    if manifest.schema_version > SCHEMA:
        raise ArtifactError(
            f"{path}: schema {manifest.schema_version} is newer than this tumen ({SCHEMA}); "
            "upgrade tumen"
        )
    if kind and manifest.kind != kind:
        raise ArtifactError(f"{folder}: is a {manifest.kind}, a {kind} is needed here")
    return manifest


def verify(folder: Path, kind: Kind | None = None) -> Manifest:
    """Check every payload file of an artifact against its manifest.

    Raises:
        ArtifactError: names the file that is missing, cut short or changed.
    """
    manifest = manifest_of(folder, kind)
    # Sizes first: they need no reading and find most damage.
    check_sizes(folder, manifest)
    for name, payload in manifest.files.items():
        if file_hash(folder / name) != payload.sha256:
            raise ArtifactError(
                f"{folder / name}: content is not what was written (SHA-256 differs); "
                f"delete {folder} and run again"
            )
    # The manifest itself may have been edited: hashes of files and digest must agree.
    if _digest(manifest.kind, manifest.files) != manifest.digest:
        shown = ascii(manifest.digest)[:20]
        raise ArtifactError(f"{folder / MANIFEST}: digest {shown} does not fit its files; refused")
    return manifest


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check the names and sizes of an artifact's files: the part of `verify` that reads no payload.

    Raises:
        ArtifactError: names the file that is missing, shorter, longer or outside the folder.
    """
    root = os.path.realpath(folder)
    for name, payload in manifest.files.items():
        path = folder / name
        # `..` and symbolic links could lead outside.
        inside = Path(os.path.realpath(path)).is_relative_to(root)
        if not name.isprintable() or not inside:
            raise ArtifactError(
                f"{folder}: manifest names {name!a}, which lies outside of it; refused"
            )
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; delete {folder} and run the recipe again")
        size = path.stat().st_size
        if size != payload.bytes:
            raise ArtifactError(
                f"{path}: {size} bytes, the manifest says {payload.bytes}; "
                f"delete {folder} and run again"
            )


def done(folder: Path, kind: Kind, inputs: str) -> Manifest | None:
    """Return the manifest if `folder` holds a complete artifact of these `inputs`, else None."""
    # A damaged artifact is made again like one that is missing.
    try:
        manifest = verify(folder, kind)
    except ArtifactError:
        return None
    return manifest if manifest.inputs == inputs else None
