"""Artifacts: a folder with payload files and a `manifest.json` that says what it is and what it came from.

    manifest = {kind, schema, digest, inputs, made_by, made_from: [digests], facts, files: {name: {bytes, sha256}}}

`digest` covers the kind and the payload bytes, nothing else, so that the same inputs give the same digest on every run.
`inputs` is the hash of what the maker was asked (section of the recipe, parents, maker's version): when it is what one would
ask today, the artifact is done already. `facts` (times, sizes, losses) are for people and never part of a digest.
A new artifact is written into a sibling folder and renamed into place, so a kill leaves the old one or the new one.
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
SCHEMA = 1
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
    """What an artifact folder says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    schema_version: int = SCHEMA
    digest: str
    inputs: str
    made_by: str
    made_from: list[str]
    facts: dict[str, Any] = {}
    files: dict[str, Payload]

    @property
    def payload_bytes(self) -> int:
        """Size of all payload files."""
        return sum(file.bytes for file in self.files.values())


def hash_of(value: Any) -> str:
    """Short hash (16 hex digits) of anything JSON can say, independent of key order."""
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
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    names = {str(path.relative_to(folder)): path for path in files}
    return {name: known.get(name) or payload_of(path) for name, path in names.items()}


@contextmanager
def writing(
    folder: Path,
    kind: Kind,
    inputs: str,
    made_from: Sequence[str],
    facts: dict[str, Any] | None = None,
    known: Mapping[str, Payload] | None = None,
) -> Iterator[Path]:
    """Write an artifact: yields an empty folder beside `folder`, then seals it with a manifest and puts it in place.

    Args:
        folder: where the artifact will stand; an older one there is replaced at the end.
        kind, inputs, made_from: see the module's docstring.
        facts: filled by the caller until the block ends.
        known: likewise; digests of files that their writers hashed themselves, each its own, when many processes write.

    Raises:
        DiskError: the disk refuses; `folder` is as it was.
        TrainError: this process is of a start of its job that is over; `folder` is as it was.
    """
    stage = folder.with_name(
        f".{folder.name}.{os.uname().nodename}.{os.getpid()}.new"
    )  # hosts may share the folder
    reject_stale()
    with disk(folder):
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        try:
            yield stage
            files = _payloads(stage, known or {})
            digest = hash_of([kind, {name: payload.sha256 for name, payload in files.items()}])
            manifest = Manifest(
                kind=kind,
                digest=digest,
                inputs=inputs,
                made_by=f"tumen {__version__}",
                made_from=list(made_from),
                facts=facts or {},
                files=files,
            )
            write_text(stage / MANIFEST, manifest.model_dump_json(indent=1))
            reject_stale()
            replace_folder(stage, folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def add_facts(folder: Path, facts: dict[str, Any]) -> Manifest:
    """Add facts to a sealed artifact; its digest stays, for facts are no part of it."""
    manifest = manifest_of(folder)
    richer = manifest.model_copy(update={"facts": {**manifest.facts, **facts}})
    write_text(folder / MANIFEST, richer.model_dump_json(indent=1))
    return richer


def replace_folder(stage: Path, folder: Path) -> None:
    """Put `stage` where `folder` is; at any instant a reader finds the old, none for a blink, or the new."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(stage, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old or the new content, never half of it.

    Raises:
        DiskError: the disk refuses; the old content stands.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk(path):
        try:
            with open(part, "w", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
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
    try:
        manifest = Manifest.model_validate(untrusted.read_json(path))
    except (ValidationError, ArtifactError):
        raise ArtifactError(
            f"{path}: damaged manifest; delete {folder} and run the recipe again"
        ) from None
    if manifest.schema_version > SCHEMA:
        raise ArtifactError(
            f"{path}: schema {manifest.schema_version} is newer than this tumen ({SCHEMA}); upgrade tumen"
        )
    if kind and manifest.kind != kind:
        raise ArtifactError(f"{folder}: is a {manifest.kind}, a {kind} is needed here")
    return manifest


def verify(folder: Path, kind: Kind | None = None) -> Manifest:
    """Check an artifact's payload against its manifest: every file there, whole and unchanged.

    Raises:
        ArtifactError: says which file is missing, cut short or changed.
    """
    manifest = manifest_of(folder, kind)
    check_sizes(folder, manifest)
    for name, payload in manifest.files.items():
        if file_hash(folder / name) != payload.sha256:
            raise ArtifactError(
                f"{folder / name}: content is not what was written (SHA-256 differs); delete {folder} and run again"
            )
    digest = hash_of(
        [manifest.kind, {name: payload.sha256 for name, payload in manifest.files.items()}]
    )
    if digest != manifest.digest:
        raise ArtifactError(
            f"{folder / MANIFEST}: digest {ascii(manifest.digest)[:20]} does not fit its files; refused"
        )
    return manifest


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check that every file of an artifact is there and as long as it was: the part of `verify` that costs nothing.

    Raises:
        ArtifactError: says which file is missing, cut short, longer or somewhere else.
    """
    for name, payload in manifest.files.items():
        path = folder / name
        if not name.isprintable() or not Path(os.path.realpath(path)).is_relative_to(
            os.path.realpath(folder)
        ):
            raise ArtifactError(
                f"{folder}: manifest names {name!a}, which lies outside of it; refused"
            )
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; delete {folder} and run the recipe again")
        size = path.stat().st_size
        if size != payload.bytes:
            raise ArtifactError(
                f"{path}: {size} bytes, the manifest says {payload.bytes}; delete {folder} and run again"
            )


def done(folder: Path, kind: Kind, inputs: str) -> Manifest | None:
    """The manifest if `folder` already holds, whole, what `inputs` asks for; else None."""
    try:
        manifest = verify(folder, kind)
    except ArtifactError:
        return None
    return manifest if manifest.inputs == inputs else None
