"""`tumen promote` and `tumen rollback`: what is live on a device or in a fleet."""

from __future__ import annotations

from pathlib import Path

import typer

from tumen.cli.options import TRUST
from tumen.pipeline.folder import device_bundle


def promote(
    bundle: Path = typer.Argument(
        ..., help="A bundle, or the folder of a run (its device bundle)."
    ),
    to: Path = typer.Option(
        ..., help="The place: a folder that `tumen talk` and `tumen serve` are given."
    ),
    trust: Path = TRUST,
    keep: int = typer.Option(3, min=1, help="How many of those before stay for a rollback."),
    new_exam: bool = typer.Option(
        False,
        help="The exam has changed: do not compare with what is live, the floors alone judge.",
    ),
) -> None:
    """Make a bundle live in a place, if its gate passes and it is not worse than what is live by more than its recipe allows."""
    from tumen.eval import promote as promote_

    print(f"{to}: live is {promote_(device_bundle(bundle), to, trust, keep, new_exam).name}")


def rollback(
    place: Path = typer.Argument(..., help="The place that `tumen promote --to` was given."),
    trust: Path = TRUST,
) -> None:
    """Make live again what was live before, and say what is live now."""
    from tumen.eval import rollback as rollback_

    print(f"{place}: live is {rollback_(place, trust).name}")
