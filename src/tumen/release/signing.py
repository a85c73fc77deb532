"""Whose bundles are let in: Ed25519 signatures (RFC 8032, by `cryptography`) and the keys that a device believes.

    bundle/signature.json   {key, version, signed_at, digest, manifest, scorecard, signature}
    release.pub             TOML: name, key, and later perhaps `revoked = "why"` or `least_version = 7`

What is signed is every field before `signature`: the SHA-256 of `manifest.json`, which holds the size and the SHA-256 of every file
and the facts of the export check, and that of the scorecard's manifest. The signature lies beside them, so a bundle's digest stays
what it is. A trust store is one such `.pub` file or a folder of them, named by `--trust` or by TUMEN_TRUST: never by the bundle.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tumen.core import untrusted
from tumen.core.artifact import MANIFEST, check_sizes, manifest_of, verify, write_text
from tumen.core.errors import ArtifactError, DiskError, InputError, disk
from tumen.core.events import Events, read
from tumen.core.shape import Frozen
from tumen.core.units import show_bytes

SIGNATURE, SCORECARD = "signature.json", "scorecard"
TRUST_ENV = "TUMEN_TRUST"
TrustStore = (
    Path | Literal["own"] | None
)  # own: made by this run a moment ago, so nobody can have signed it yet
PURPOSE = (
    b"tumen bundle signature 1\n"  # what was signed for something else is no signature of a bundle
)
MOST_KEY_BYTES = 1 << 14
SAID_BYTES = 1 << 18  # of the events, from their end, that are searched for what was said before


class PublicKey(Frozen):
    """A key that a device believes, as a `.pub` file says it."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[^\n]*$")
    key: str = Field(description="the 32 bytes of an Ed25519 public key in base64")
    revoked: str | None = Field(None, description="why nothing that it signed is taken any more")
    least_version: int = Field(
        0, ge=0, description="what it signed below this version is not taken any more"
    )

    @property
    def id(self) -> str:
        """The key's first 16 hex digits of SHA-256, as a signature names it."""
        return key_id(_bytes(self.key))


class Signature(Frozen):
    """What `signature.json` says."""

    key: str = Field(description="id of the key")
    version: int = Field(
        ge=0,
        description="grows from release to release; by default the second of its signing since 1970",
    )
    signed_at: str
    digest: str = Field(description="the bundle's own")
    manifest: str = Field(description="SHA-256 of manifest.json")
    scorecard: str | None = Field(description="SHA-256 of scorecard/manifest.json, if there is one")
    signature: str = Field(description="64 bytes in base64")

    def message(self) -> bytes:
        """What is signed."""
        return PURPOSE + _plain(self.model_dump(exclude={"signature"}))


def _plain(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def key_id(public: bytes) -> str:
    """Short name of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def generate_keys(path: Path, name: str) -> tuple[Path, str]:
    """Make a key pair: the private key in `path` (PEM, readable by its owner alone), the public one in `path`.pub.

    Returns:
        the public file and the key's id.

    Raises:
        InputError: one of the files is there already.
        DiskError: the disk refuses; nothing is left behind.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_path = path.with_name(path.name + ".pub")
    for there in (path, public_path):
        if there.exists() or there.is_symlink():
            raise InputError(
                f"{there}: is there already, and a key that is lost cannot be made again; name another file"
            )
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    about = PublicKey(name=name, key=base64.b64encode(public).decode())
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(pem)
            write_text(
                public_path,
                f"# Give this to those who load your bundles: --trust FILE, or {TRUST_ENV}.\n{_toml(about)}",
            )
        except BaseException:
            path.unlink()
            raise
    return public_path, about.id


def _toml(key: PublicKey) -> str:
    return "".join(
        f"{field} = {json.dumps(value)}\n"
        for field, value in key.model_dump(exclude_defaults=True).items()
    )


def sign(bundle: Path, key: Path, version: int | None = None) -> Signature:
    """Sign a bundle as it stands, its scorecard included, into its `signature.json`.

    Args:
        key: the private file of `generate_keys`.
        version: default: the seconds since 1970.

    Raises:
        ArtifactError: the bundle is damaged.
        InputError: the file is no private key, or others can read it.
    """
    private = _private(key)
    digest = verify(bundle, "bundle").digest
    if (bundle / SCORECARD).is_dir():
        verify(bundle / SCORECARD, "scorecard")
    public, now = private.public_key().public_bytes_raw(), time.time()
    unsigned = Signature(
        key=key_id(public),
        version=int(now) if version is None else version,
        signed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        digest=digest,
        signature="",
        **_sums(bundle),
    )
    signature = base64.b64encode(private.sign(unsigned.message())).decode()
    signed = unsigned.model_copy(update={"signature": signature})
    write_text(bundle / SIGNATURE, signed.model_dump_json(indent=1))
    return signed


def _sums(bundle: Path) -> dict[str, Any]:
    """SHA-256 of the manifests of a bundle and its scorecard, as they stand."""
    card = bundle / SCORECARD / MANIFEST
    return {"manifest": _sum(bundle / MANIFEST), "scorecard": _sum(card) if card.exists() else None}


def _sum(path: Path) -> str:
    if untrusted.check_file(path) > untrusted.MOST_JSON_BYTES:
        raise ArtifactError(
            f"{path}: is no manifest: larger than {untrusted.MOST_JSON_BYTES} bytes"
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _private(path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if untrusted.check_file(path, InputError) > MOST_KEY_BYTES:
        raise InputError(f"{path}: is no private key; `tumen keys FILE` makes one")
    if path.stat().st_mode & 0o077:
        raise InputError(
            f"{path}: others can read this private key; `chmod 600 {path}`, or make a new one if they did"
        )
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path}: is no private key without a passphrase; `tumen keys FILE` makes one"
        )
    return key


def read_trust_store(store: Path) -> dict[str, PublicKey]:
    """The keys of a trust store by id.

    Raises:
        InputError: no such store, none in it, or a file of it is no public key.
    """
    files = sorted(store.glob("*.pub")) if store.is_dir() else [store]
    if not files:
        raise InputError(
            f"{store}: holds no .pub file, so nothing would be trusted; copy one of `tumen keys` into it"
        )
    keys = [_public(path) for path in files]
    found = {key.id: key for key in keys}
    if len(found) < len(keys):
        raise InputError(
            f"{store}: holds one key twice; keep the file that is right (revoked, least_version)"
        )
    return found


def _public(path: Path) -> PublicKey:
    if untrusted.check_file(path, InputError) > MOST_KEY_BYTES:
        raise InputError(f"{path}: is no public key of `tumen keys`")
    try:
        key = PublicKey.model_validate(tomllib.loads(path.read_bytes().decode("utf-8")))
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(
            f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; `tumen keys` writes such files"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is no public key of `tumen keys`") from None
    if len(_bytes(key.key)) != 32:
        raise InputError(
            f"{path}: key: is no Ed25519 public key in base64; `tumen keys` writes such files"
        )
    return key


def read_signature(bundle: Path) -> Signature | None:
    """What a bundle's signature says, believed or not; None without one.

    Raises:
        ArtifactError: it is damaged.
    """
    path = bundle / SIGNATURE
    if not path.exists():
        return None
    try:
        return Signature.model_validate(untrusted.read_json(path, most_bytes=MOST_KEY_BYTES))
    except ValidationError:
        raise ArtifactError(f"{path}: is no signature of `tumen sign`; refused") from None


def check_trust(bundle: Path, trust: TrustStore, events: Events) -> Signature | None:
    """Let a bundle in or refuse it, by its folder and its signature; its payload is for `artifact.verify`.

    Args:
        trust: the trust store; None asks TUMEN_TRUST, and without that an unsigned bundle is let in and events say so.
            "own" asks nobody: the bundle is this run's own work.

    Returns:
        the signature, if it was checked.

    Raises:
        ArtifactError: with a trust store: unsigned, altered, or signed by a key that is unknown, revoked or does not fit.
        InputError: the trust store is none.
    """
    manifest = manifest_of(bundle, "bundle")
    _refuse_giant(bundle, untrusted.check_folder(bundle))
    check_sizes(bundle, manifest)
    signature = read_signature(bundle)
    if trust == "own":
        return None
    store = trust or (Path(os.environ[TRUST_ENV]) if os.environ.get(TRUST_ENV) else None)
    if store is None:
        said = "bundle_unsigned" if signature is None else "bundle_signature_unchecked"
        _say_once(
            events,
            said,
            digest=manifest.digest,
            bundle=str(bundle),
            action=f"let in: no trust store, see {TRUST_ENV}",
        )
        return None
    if signature is None:
        raise ArtifactError(
            f"{bundle}: is not signed, and {store} says whose bundles are let in; `tumen sign` signs it"
        )
    _judge(bundle, signature, read_trust_store(store), store)
    _refuse_unlisted(bundle, set(manifest.files))
    return signature


def _refuse_giant(bundle: Path, held: int) -> None:
    """A bundle that this machine cannot hold is refused before its bytes are read."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if held > memory:
        has = f"has {show_bytes(held)}, this machine {show_bytes(memory)} of memory"
        raise ArtifactError(f"{bundle}: {has}; take a smaller tier, or quantise more")


def _say_once(events: Events, event: str, digest: str, **facts: str) -> None:
    """One event for a bundle, however often it is loaded."""
    said = (
        read(events.path, event, SAID_BYTES)
        if events.path
        else (row for row in events.seen if row["event"] == event)
    )
    if not any(row.get("digest") == digest for row in said):
        with suppress(DiskError):  # a full disk is no reason for a device to stop answering
            events.emit(event, digest=digest, **facts)


def _judge(bundle: Path, signature: Signature, keys: Mapping[str, PublicKey], store: Path) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = keys.get(signature.key)
    if key is None:
        raise ArtifactError(
            f"{bundle}: signed by the key {untrusted.shown(signature.key)[:20]}, which is not in {store}; refused"
        )
    try:
        Ed25519PublicKey.from_public_bytes(_bytes(key.key)).verify(
            _bytes(signature.signature), signature.message()
        )
    except (InvalidSignature, ValueError):
        raise ArtifactError(
            f"{bundle}: its signature was not made by {key.name!r} ({key.id}), as it says; refused"
        ) from None
    if key.revoked is not None:
        raise ArtifactError(
            f"{bundle}: signed by {key.name!r} ({key.id}), which is revoked: {untrusted.shown(key.revoked)}; refused"
        )
    if signature.version < key.least_version:
        raise ArtifactError(
            f"{bundle}: is version {signature.version}; {store} takes {key.least_version} and later of {key.name!r}; refused"
        )
    for part, now in _sums(bundle).items():
        if now != getattr(signature, part):
            raise ArtifactError(
                f"{bundle}: its {part} was changed after the signing; refused (its maker signs it anew)"
            )


def _refuse_unlisted(bundle: Path, files: set[str]) -> None:
    """A file that no manifest lists was not signed, and somebody might read it all the same."""
    card = bundle / SCORECARD
    listed = files | {MANIFEST, SIGNATURE}
    if card.is_dir():
        listed |= {
            f"{SCORECARD}/{name}" for name in (MANIFEST, *manifest_of(card, "scorecard").files)
        }
    for path in sorted(bundle.rglob("*")):
        name = str(path.relative_to(bundle))
        if not path.is_dir() and name not in listed:
            raise ArtifactError(
                f"{bundle}: {untrusted.shown(name)!r} is in it and was not signed; remove it"
            )
