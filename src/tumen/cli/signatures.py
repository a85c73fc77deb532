"""`tumen keys` and `tumen sign`: a key pair, and a bundle that says who made it."""

from __future__ import annotations

from pathlib import Path

import typer

from tumen.pipeline.folder import device_bundle
from tumen.release import signing


def keys(
    file: Path = typer.Argument(
        ..., help="A new file for the private key; the public one is written beside it as FILE.pub."
    ),
    name: str = typer.Option("release", help="What people call the key."),
) -> None:
    """Make a key pair to sign bundles with. Keep FILE where nobody reads it, give FILE.pub to the devices (TUMEN_TRUST)."""
    public, key = signing.generate_keys(file, name)
    print(
        f"{file}: private, for `tumen sign` alone\n{public}: public, key {key}; devices name it by --trust or {signing.TRUST_ENV}"
    )


def sign(
    bundle: Path = typer.Argument(
        ..., help="A bundle, or the folder of a run (its device bundle)."
    ),
    key: Path = typer.Option(..., help="The private key that `tumen keys` made."),
    version: int = typer.Option(
        None, min=0, help="Grows from release to release; default: the seconds since 1970."
    ),
) -> None:
    """Sign a bundle with its scorecard; its digest stays. Signed again, the newer signature replaces the older one."""
    folder = device_bundle(bundle)
    signed = signing.sign(folder, key, version)
    print(
        f"{folder}: {signed.digest}, version {signed.version}, signed by {signed.key} at {signed.signed_at}"
    )
