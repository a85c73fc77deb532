"""Release: signed bundles, and which of them is live."""

from __future__ import annotations

from pathlib import Path

import typer

from tumen.cli.options import BUNDLE, TRUST
from tumen.eval import promote as promote_bundle
from tumen.eval import rollback as rollback_slot
from tumen.pipeline import device_bundle
from tumen.release import keys as release_keys
from tumen.release import signing


def keys(
    file: Path = typer.Argument(
        ..., help="A new file for the private key; the public key is written beside it as FILE.pub."
    ),
    name: str = typer.Option("release", help="Name of the key, for people."),
) -> None:
    """Make a key pair to sign bundles with.

    Keep FILE private; give FILE.pub to the devices (TUMEN_TRUST).
    """
    public, key = release_keys.generate_keys(file, name)
    print(f"{file}: private, for `tumen sign` only")
    print(f"{public}: public, key {key}; devices name it with --trust or {release_keys.TRUST_ENV}")


def sign(
    bundle: Path = BUNDLE,
    key: Path = typer.Option(..., help="The private key that `tumen keys` made."),
    version: int = typer.Option(
        None, min=0, help="Grows from release to release; default: the seconds since 1970."
    ),
) -> None:
    """Sign a bundle and its scorecard; a newer signature replaces the older one."""
    # A run stands for its device bundle.
    folder = device_bundle(bundle)
    signed = signing.sign(folder, key, version)
    print(
        f"{folder}: {signed.digest}, version {signed.version}, "
        f"signed by {signed.key} at {signed.signed_at}"
    )


def promote(
    bundle: Path = BUNDLE,
    to: Path = typer.Option(
        ..., help="The slot: a folder that `tumen talk` and `tumen serve` are given."
    ),
    trust: Path = TRUST,
    keep: int = typer.Option(3, min=1, help="How many earlier bundles stay for a rollback."),
    new_suite: bool = typer.Option(
        False,
        "--new-suite",
        help="The eval suite has changed: check the thresholds only, "
        "without a comparison with the live bundle.",
    ),
) -> None:
    """Make a bundle live in a slot, if it passes its gate and is not worse than the live one.

    How much worse it may be is in its recipe.
    """
    live = promote_bundle(device_bundle(bundle), to, trust, keep, new_suite)
    print(f"{to}: live is {live.name}")


def rollback(
    slot: Path = typer.Argument(..., help="The slot that `tumen promote --to` was given."),
    trust: Path = TRUST,
) -> None:
    """Make the bundle live again that was live before."""
    print(f"{slot}: live is {rollback_slot(slot, trust).name}")
