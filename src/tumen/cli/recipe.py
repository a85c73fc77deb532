"""`tumen recipe show | check | schema`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from tumen.core import units
from tumen.recipe import Recipe, load_recipe

app = typer.Typer(help="Show, check or describe recipes.", no_args_is_help=True)
PATH = typer.Argument(..., help="A recipe, a TOML file.")
CHANGES = typer.Option(
    [], "--set", help="Change a field: family.cloud.train.steps=10. May be given often."
)


@app.command()
def show(path: Path = PATH, changes: list[str] = CHANGES) -> None:
    """Print the whole recipe with every default, as JSON."""
    print(load_recipe(path, changes).model_dump_json(indent=2))


@app.command()
def check(path: Path = PATH, changes: list[str] = CHANGES) -> None:
    """Check a recipe and say how large its tiers are; all faults are told at once."""
    recipe = load_recipe(path, changes)
    print(f"{path}: a good recipe, {recipe.name}")
    for name, tier in recipe.family.items():
        shape = tier.shape.model_copy(
            update={"vocab_size": tier.shape.vocab_size or recipe.tokenizer.vocab_size}
        )
        tokens = tier.train.steps * tier.train.batch_size * tier.train.seq_len
        print(
            f"  {name}: {units.show_count(shape.parameters())} parameters, {units.show_count(shape.active_parameters())} active, "
            f"{shape.cache_bytes():.0f} bytes of cache a token, trains on {units.show_count(tokens)} tokens"
        )


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    print(json.dumps(Recipe.model_json_schema(), indent=2))
