"""Arguments and options that several commands share."""

from __future__ import annotations

import typer

# One object each, so that an option has the same name and help in every command.
RECIPE = typer.Argument(..., help="A recipe, a TOML file.")
RUN = typer.Argument(..., help="Folder of a run, or a recipe (its run is runs/<name>).")
RUN_FOLDER = typer.Argument(..., help="Folder of a run.")
NEW_RUN_FOLDER = typer.Option(
    None, "--run", help="Folder of the run; default: runs/<name of the recipe>."
)
BUNDLE = typer.Argument(..., help="A bundle, or the folder of a run (its device bundle).")
CHANGES = typer.Option(
    [], "--set", help="Change a field: family.cloud.train.steps=10. Repeat for more fields."
)
ENGINE = typer.Option(
    None,
    "--on",
    help="local, slurm, kubernetes or package.module:Class; default: the recipe's fleet.engine.",
)
PLAN = typer.Option(
    None, "--plan", help="A plan.json of `tumen plan --out`; its tier trains on its mesh."
)
TIER = typer.Option(None, "--tier", help="Tier of the family; default: the newest job's.")
TRUST = typer.Option(
    None,
    "--trust",
    envvar="TUMEN_TRUST",
    help="A .pub file or a folder of them: only bundles signed by one of these keys are used.",
)
UNGATED = typer.Option(False, "--ungated", help="Also use a bundle that misses its thresholds.")
JSON = typer.Option(False, "--json", help="Print JSON.")
