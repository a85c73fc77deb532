"""Options that several commands share."""

from __future__ import annotations

import typer

RUN = typer.Argument(..., help="Folder of a run, or a recipe (its run is runs/<name>).")

ON = typer.Option(
    None,
    "--on",
    help="local, slurm, kubernetes or package.module:Class; default: the recipe's fleet.engine.",
)

CHANGES = typer.Option(
    [], "--set", help='Change a field: fleet.slurm.partition="h800". May be given often.'
)

TIER = typer.Option(None, "--tier", help="Tier of the family; default: the newest job's.")

JSON = typer.Option(False, "--json", help="Print JSON.")
TRUST = typer.Option(
    None,
    "--trust",
    envvar="TUMEN_TRUST",
    help="A .pub file or a folder of them: whose bundles are let in.",
)
