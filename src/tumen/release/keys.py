"""Ed25519 keys: the private one that signs bundles, the public ones that a device trusts.

RFC 8032, by the package `cryptography`.

    release         PEM, PKCS#8, mode 0600: the private key
    release.pub     TOML: name, key, and perhaps `revoked = "why"` or `least_version = 7`

A trust store is one `.pub` file or a folder of them, named by `--trust` or TUMEN_TRUST and never by
the bundle that is being checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tumen.core import untrusted
from tumen.core.artifact import write_text
from tumen.core.errors import InputError, disk
from tumen.core.shape import Frozen

TRUST_ENV = "TUMEN_TRUST"
MAX_KEY_BYTES = 1 << 14  # of a key file; larger ones are not read
PUBLIC_KEY_BYTES = 32  # RFC 8032, section 5.1.5
ID_DIGITS = 16  # of a SHA-256: enough for the few keys of a trust store


class PublicKey(Frozen):
    """A trusted key, as a `.pub` file holds it."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[^\n]*$")
    key: str = Field(description="the 32 bytes of an Ed25519 public key in base64")
    revoked: str | None = Field(None, description="why nothing that it signed is accepted any more")
    least_version: int = Field(
        0, ge=0, description="bundles that it signed with a lower version are rejected"
    )

    @property
    def id(self) -> str:
        """The name of the key in a signature; see `key_id`."""
        return key_id(decode_base64(self.key))


def key_id(public: bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of a public key."""
    return hashlib.sha256(public).hexdigest()[:ID_DIGITS]


def decode_base64(text: str) -> bytes:
    """Return the bytes of a base64 text; empty if it is not base64."""
    try:
        # `validate`, as Python otherwise skips letters that base64 does not have.
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def generate_keys(path: Path, name: str) -> tuple[Path, str]:
    """Write a new key pair.

    Args:
        path: of the private key (PEM, readable by its owner alone); the public one goes to
            `path`.pub.
        name: of the key, for people.

    Returns:
        the public file and the key's id.

    Raises:
        InputError: one of the files exists.
        DiskError: they cannot be written; nothing is left behind.
    """
    public_path = path.with_name(path.name + ".pub")
    _refuse_overwriting(path, public_path)
    pem, public = _new_key_pair()
    about = PublicKey(name=name, key=public)
    comment = f"# Give this to those who load your bundles: --trust FILE, or {TRUST_ENV}.\n"
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with its mode, so that nobody can read it in between; never over another file.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(pem)
            write_text(public_path, comment + _toml(about))
        except BaseException:
            # A private key without its public one is of no use.
            path.unlink()
            raise
    return public_path, about.id


def _new_key_pair() -> tuple[bytes, str]:
    """Return a private key as PEM, and its public key in base64."""
    # Here, as most processes never make a key and the package is slow to import.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes_raw()
    return pem, base64.b64encode(public).decode()


def _refuse_overwriting(*paths: Path) -> None:
    for path in paths:
        # A link to nowhere does not "exist", but writing would follow it.
        if path.exists() or path.is_symlink():
            raise InputError(
                f"{path}: already exists, and a lost key cannot be made again; name another file"
            )


def _toml(key: PublicKey) -> str:
    fields = key.model_dump(exclude_defaults=True)
    # JSON writes texts and numbers as TOML does.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())


def load_private_key(path: Path) -> Any:
    """Return the `Ed25519PrivateKey` of a file of `generate_keys`.

    Raises:
        InputError: it is not a private key, or others can read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if untrusted.check_file(path, InputError) > MAX_KEY_BYTES:
        raise InputError(f"{path}: not a private key; `tumen keys FILE` makes one")
    # Bits of the group and of all others.
    readable_by_others = path.stat().st_mode & 0o077
    if readable_by_others:
        raise InputError(
            f"{path}: others can read this private key; `chmod 600 {path}`, "
            "or make a new one if they did"
        )
    try:
        # Without a passphrase: a bundle is signed by a job that nobody watches.
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path}: not a private key without a passphrase; `tumen keys FILE` makes one"
        )
    return key


def read_trust_store(store: Path) -> dict[str, PublicKey]:
    """Return the keys of a trust store by id.

    Args:
        store: a `.pub` file or a folder of them.

    Raises:
        InputError: there is no such store, it is empty, or one of its files is not a public key.
    """
    files = sorted(store.glob("*.pub")) if store.is_dir() else [store]
    if not files:
        raise InputError(
            f"{store}: holds no .pub file, so no bundle would be trusted; "
            "copy one of `tumen keys` into it"
        )
    keys = [_read_public_key(path) for path in files]
    found = {key.id: key for key in keys}
    # Two files of one key may disagree on whether it is revoked.
    if len(found) < len(keys):
        raise InputError(
            f"{store}: holds a key twice; keep the file that is right (revoked, least_version)"
        )
    return found


def _read_public_key(path: Path) -> PublicKey:
    if untrusted.check_file(path, InputError) > MAX_KEY_BYTES:
        raise InputError(f"{path}: not a public key of `tumen keys`")
    try:
        key = PublicKey.model_validate(tomllib.loads(path.read_bytes().decode("utf-8")))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        raise InputError(
            f"{path}: {field}: {fault['msg']}; `tumen keys` writes such files"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not a public key of `tumen keys`") from None
    if len(decode_base64(key.key)) != PUBLIC_KEY_BYTES:
        raise InputError(
            f"{path}: key: not an Ed25519 public key in base64; `tumen keys` writes such files"
        )
    return key
