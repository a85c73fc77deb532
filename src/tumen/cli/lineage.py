"""`tumen lineage`: what came from what, with digests, and what is stale."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from tumen.core import units
from tumen.pipeline import stages as chain
from tumen.pipeline.folder import newest_run, read_run_recipe
from tumen.recipe import load_recipe


def lineage(
    run: Path = typer.Argument(None, help="Folder of a run; default: the newest under runs/."),
    recipe: Path = typer.Option(
        None, help="Compare with this recipe instead of the one the run was started with."
    ),
    changes: list[str] = typer.Option(
        [], "--set", help="Compare as if a field were changed: family.cloud.train.steps=10."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print the chain corpus -> tokenizer -> dataset -> tiers -> bundles -> scorecard with digests, and name what is stale."""
    run = run or newest_run()
    asked = load_recipe(recipe, changes) if recipe else read_run_recipe(run, changes)
    found = list(chain.links(asked, run))
    if as_json:
        rows = [
            {
                "name": link.stage.name,
                "kind": link.stage.kind,
                "state": link.state,
                "why": link.why,
                "digest": link.manifest.digest if link.manifest else None,
                "made_from": link.manifest.made_from if link.manifest else [],
            }
            for link in found
        ]
        print(json.dumps(rows, indent=1))
        return
    print(f"{run}, recipe {asked.name}")
    for link in found:
        digest = link.manifest.digest if link.manifest else "-" * 16
        size = sum(file.bytes for file in link.manifest.files.values()) if link.manifest else 0
        origin = " + ".join(link.stage.parents) or asked.data.source
        note = link.state if not link.why else f"{link.state}: {link.why}"
        print(
            f"  {digest}  {link.stage.name:<24} <- {origin:<40} {units.show_bytes(size):>8}  {note}"
        )
    stale = [link.stage.name for link in found if link.state != "done"]
    print(
        f"stale: {', '.join(stale)}; `tumen run` makes them anew" if stale else "nothing is stale"
    )
