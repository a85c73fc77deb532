"""Signatures of bundles: which bundles a device accepts.

    bundle/signature.json   {key, version, signed_at, digest, manifest, scorecard, signature}

Signed is every field before `signature`: the SHA-256 of `manifest.json`, which holds the size and
the SHA-256 of every file and the facts of the export check, and that of the scorecard's manifest.
The signature is a file beside them, so the bundle keeps its digest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tumen.core import untrusted
from tumen.core.artifact import MANIFEST, check_sizes, manifest_of, verify, write_text
from tumen.core.errors import ArtifactError, DiskError
from tumen.core.events import Events, read
from tumen.core.shape import Frozen
from tumen.core.units import show_bytes
from tumen.release.keys import (
    MAX_KEY_BYTES,
    TRUST_ENV,
    PublicKey,
    decode_base64,
    key_id,
    load_private_key,
    read_trust_store,
)

SIGNATURE = "signature.json"
SCORECARD = "scorecard"
# A trust store; "own" for a bundle that this run has just made, so that it cannot be signed yet.
TrustStore = Path | Literal["own"] | None
# Put before what is signed, so that a signature of anything else is never one of a bundle.
PURPOSE = b"tumen bundle signature 1\n"
SEARCHED_BYTES = 1 << 18  # of the events, from their end, for an event that was recorded before


class Signature(Frozen):
    """The content of `signature.json`."""

    key: str = Field(description="id of the key")
    version: int = Field(
        ge=0,
        description="grows from release to release; by default the time of signing, "
        "in seconds since 1970",
    )
    signed_at: str
    digest: str = Field(description="of the bundle")
    manifest: str = Field(description="SHA-256 of manifest.json")
    scorecard: str | None = Field(description="SHA-256 of scorecard/manifest.json, if there is one")
    signature: str = Field(description="64 bytes in base64")

    def message(self) -> bytes:
        """Return the bytes that are signed."""
        fields = self.model_dump(exclude={"signature"})
        return PURPOSE + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def sign(bundle: Path, key: Path, version: int | None = None) -> Signature:
    """Sign a bundle as it is now, its scorecard included, and write its `signature.json`.

    Args:
        bundle: a bundle artifact.
        key: the private file of `generate_keys`.
        version: default: seconds since 1970.

    Raises:
        ArtifactError: the bundle is damaged.
        InputError: the file is not a private key, or others can read it.
    """
    private = load_private_key(key)
    # Only what is complete and unchanged is signed.
    digest = verify(bundle, "bundle").digest
    if (bundle / SCORECARD).is_dir():
        verify(bundle / SCORECARD, "scorecard")
    now = time.time()
    # The signature is part of the file, but not of what is signed.
    unsigned = Signature(
        key=key_id(private.public_key().public_bytes_raw()),
        version=int(now) if version is None else version,
        signed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        digest=digest,
        signature="",
        **_manifest_hashes(bundle),
    )
    signature = base64.b64encode(private.sign(unsigned.message())).decode()
    signed = unsigned.model_copy(update={"signature": signature})
    write_text(bundle / SIGNATURE, signed.model_dump_json(indent=1))
    return signed


def _manifest_hashes(bundle: Path) -> dict[str, Any]:
    """Return the SHA-256 of the manifests of a bundle and of its scorecard, as they are now."""
    scorecard = bundle / SCORECARD / MANIFEST
    return {
        "manifest": _sha256(bundle / MANIFEST),
        "scorecard": _sha256(scorecard) if scorecard.exists() else None,
    }


def _sha256(path: Path) -> str:
    if untrusted.check_file(path) > untrusted.MOST_JSON_BYTES:
        raise ArtifactError(
            f"{path}: not a manifest: larger than {untrusted.MOST_JSON_BYTES} bytes"
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_signature(bundle: Path) -> Signature | None:
    """Return a bundle's signature without checking it; `None` if it has none.

    Raises:
        ArtifactError: the signature is damaged.
    """
    path = bundle / SIGNATURE
    if not path.exists():
        return None
    try:
        return Signature.model_validate(untrusted.read_json(path, most_bytes=MAX_KEY_BYTES))
    except ValidationError:
        raise ArtifactError(f"{path}: not a signature of `tumen sign`; rejected") from None


def check_trust(bundle: Path, trust: TrustStore, events: Events) -> Signature | None:
    """Accept a bundle or reject it, by its folder and its signature.

    The payload is checked by `artifact.verify`.

    Args:
        bundle: a folder that anybody may have made.
        trust: the trust store; `None` reads TUMEN_TRUST, and without that every bundle is accepted
            and an event records that its signature was not checked. "own" accepts the run's own
            bundle.
        events: where that is recorded.

    Returns:
        the signature, if it was checked.

    Raises:
        ArtifactError: with a trust store: the bundle is not signed, was altered, or is signed by a
            key that is unknown, revoked or too old for it.
        InputError: the trust store cannot be read.
    """
    manifest = manifest_of(bundle, "bundle")
    # Cheap checks come first: a hostile bundle must cost neither memory nor time.
    _reject_larger_than_memory(bundle, untrusted.check_folder(bundle))
    check_sizes(bundle, manifest)
    signature = read_signature(bundle)
    # A run checks its own bundle before it can be signed.
    if trust == "own":
        return None
    from_environment = os.environ.get(TRUST_ENV)
    store = trust or (Path(from_environment) if from_environment else None)
    if store is None:
        _record_unchecked(events, bundle, manifest.digest, signature)
        return None
    if signature is None:
        raise ArtifactError(
            f"{bundle}: is not signed, and {store} lists the trusted keys; `tumen sign` signs it"
        )
    _verify_signature(bundle, signature, read_trust_store(store), store)
    _reject_unlisted_files(bundle, manifest.files)
    return signature


def _reject_larger_than_memory(bundle: Path, size: int) -> None:
    """Reject a bundle that does not fit this machine before its bytes are read."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ArtifactError(
            f"{bundle}: has {show_bytes(size)}, this machine {show_bytes(memory)} of memory; "
            "take a smaller tier, or quantize more"
        )


def _record_unchecked(
    events: Events, bundle: Path, digest: str, signature: Signature | None
) -> None:
    """Record once for each bundle that it was accepted without a trust store."""
    # A bundle that is signed although nobody checks it hints at a forgotten trust store.
    event = "bundle_unsigned" if signature is None else "bundle_signature_unchecked"
    if any(row.get("digest") == digest for row in _recorded(events, event)):
        return
    action = f"accepted: no trust store, see {TRUST_ENV}"
    with suppress(DiskError):  # a device must answer on a full disk as well
        events.emit(event, digest=digest, bundle=str(bundle), action=action)


def _recorded(events: Events, event: str) -> Iterable[Mapping[str, Any]]:
    # A device that runs for years has a long file, so only its end is searched.
    if events.path:
        return read(events.path, event, SEARCHED_BYTES)
    return [row for row in events.seen if row["event"] == event]


def _verify_signature(
    bundle: Path, signature: Signature, keys: Mapping[str, PublicKey], store: Path
) -> None:
    """Check that a trusted key signed the bundle as it is now.

    Raises:
        ArtifactError: it did not, or no longer counts.
    """
    key = keys.get(signature.key)
    if key is None:
        shown = untrusted.shown(signature.key)[:20]
        raise ArtifactError(f"{bundle}: signed by the key {shown}, which is not in {store}")
    if not _is_made_by(signature, key):
        raise ArtifactError(
            f"{bundle}: its signature names the key {key.name!r} ({key.id}), "
            "but was not made by it; rejected"
        )
    _reject_outdated(bundle, signature, key, store)
    # The signature is authentic; the manifests must still be those that it covers.
    for part, now in _manifest_hashes(bundle).items():
        if now != getattr(signature, part):
            raise ArtifactError(
                f"{bundle}: its {part} was changed after the signing; "
                "rejected until its maker signs it again"
            )


def _reject_outdated(bundle: Path, signature: Signature, key: PublicKey, store: Path) -> None:
    """Reject a signature that its key does not vouch for any more.

    Raises:
        ArtifactError: the key is revoked, or accepts later versions only.
    """
    if key.revoked is not None:
        raise ArtifactError(
            f"{bundle}: signed by {key.name!r} ({key.id}), which is revoked: "
            f"{untrusted.shown(key.revoked)}; rejected"
        )
    if signature.version < key.least_version:
        raise ArtifactError(
            f"{bundle}: is version {signature.version}; {store} accepts {key.least_version} "
            f"and later of {key.name!r}; rejected"
        )


def _is_made_by(signature: Signature, key: PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        # Raises ValueError for bytes that are not a key, InvalidSignature for another signer.
        public = Ed25519PublicKey.from_public_bytes(decode_base64(key.key))
        public.verify(decode_base64(signature.signature), signature.message())
    except (InvalidSignature, ValueError):
        return False
    return True


def _reject_unlisted_files(bundle: Path, files: Iterable[str]) -> None:
    """Reject files that no manifest lists: they were not signed, and a program might read them."""
    listed = {*files, MANIFEST, SIGNATURE, *scorecard_files(bundle)}
    for path in sorted(bundle.rglob("*")):
        name = str(path.relative_to(bundle))
        # Empty folders do no harm.
        if not path.is_dir() and name not in listed:
            raise ArtifactError(
                f"{bundle}: {untrusted.shown(name)!r} is in it and was not signed; remove it"
            )


def scorecard_files(bundle: Path) -> list[str]:
    """Return the files that the manifest of a bundle's scorecard lists, relative to the bundle."""
    scorecard = bundle / SCORECARD
    if not scorecard.is_dir():
        return []
    names = [MANIFEST, *manifest_of(scorecard, "scorecard").files]
    return [f"{SCORECARD}/{name}" for name in names]
