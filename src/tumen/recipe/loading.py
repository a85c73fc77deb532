"""Load a recipe: TOML file, `--set` changes, shapes of pretrained models, all faults at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tumen.core.errors import InputError, RecipeError
from tumen.formats import has_vocabulary, located, shape_of_start
from tumen.recipe.faults import faults_of
from tumen.recipe.recipe import Recipe, put


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `--set` changes such as `family.cloud.train.steps=10`.

    Raises:
        RecipeError: the file is missing, not UTF-8, not TOML, or has faults; all are listed.
    """
    # Each way to fail gets a line; the recipe itself is checked outside of the `try`.
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        fault = _file_fault(path, error)
    except UnicodeDecodeError as error:
        fault = f"not UTF-8 at byte {error.start}; save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        fault = f"not TOML: {error}"
    except RecursionError:
        fault = "nested too deep to be a recipe"
    else:
        return recipe_of(tree, str(path), changes)
    raise RecipeError(str(path), [fault])


def _file_fault(path: Path, error: OSError) -> str:
    """Say why a file cannot be read, with the recipes beside one that is missing."""
    if isinstance(error, FileNotFoundError):
        near = sorted(str(other) for other in path.parent.glob("*.toml"))
        return f"no such file; beside it: {', '.join(near)}" if near else "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder; name the .toml file in it"
    return f"cannot be read: {error.strerror}"


def recipe_of(tree: dict[str, Any], where: str, changes: Sequence[str] = ()) -> Recipe:
    """Check a parsed recipe after `--set` changes.

    Args:
        tree: the parsed file; the changes are made in it.
        where: name of the file, for errors.
        changes: such as `family.cloud.train.steps=10`.

    Raises:
        RecipeError: with every fault.
    """
    # Changes come first, so that they are checked like the rest of the file.
    for change in changes:
        _apply(tree, change, where)
    try:
        return Recipe.model_validate(_with_shapes(tree, where))
    except ValidationError as error:
        raise RecipeError(where, faults_of(Recipe, error)) from None


def _with_shapes(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the tree, completed by what the pretrained models in it say.

    A tier that starts from a model and sets no shape gets the model's shape. The tokenizer gets the
    vocabulary of the first such model, unless the recipe sets another one.

    Raises:
        RecipeError: a model cannot be read.
    """
    # Nothing is checked yet, so every part may be of any type.
    family = tree.get("family")
    tokenizer = tree.get("tokenizer", {})
    if not isinstance(family, dict) or not isinstance(tokenizer, dict):
        return tree  # the checks of the fields report that
    tiers = dict(family)
    faults = []
    for name, tier in family.items():
        start = _start_of(tier)
        if start is None:
            continue
        try:
            # The path of the file itself, so that a saved recipe needs no package.
            start["path"] = located(start["path"])
            tiers[name] = _with_shape({**tier, "init_from": start})
            tokenizer = _with_vocabulary(tokenizer, start["path"])
        except InputError as error:
            faults.append(f"family.{name}.init_from.path: {error}")
    if faults:
        raise RecipeError(where, faults)
    completed = {**tree, "family": tiers}
    if tokenizer:
        completed["tokenizer"] = tokenizer
    return completed


def _start_of(tier: Any) -> dict[str, Any] | None:
    """Return a copy of a tier's init_from as a table, if it names a path."""
    start = tier.get("init_from") if isinstance(tier, dict) else None
    if isinstance(start, str):
        return {"path": start}
    if isinstance(start, dict) and isinstance(start.get("path"), str):
        return dict(start)
    return None


def _with_shape(tier: dict[str, Any]) -> dict[str, Any]:
    """Return a tier with the shape of its pretrained model, unless it sets one.

    Of an encoder it may set some fields, such as dropout.
    """
    own = tier.get("shape", {})
    if own and not (isinstance(own, dict) and own.get("kind") == "encoder"):
        return tier
    return {**tier, "shape": _shape_of(tier["init_from"]) | own}


def _with_vocabulary(tokenizer: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the tokenizer section with a model's vocabulary, unless it has one already."""
    if "init_from" in tokenizer or not has_vocabulary(Path(path)):
        return tokenizer
    size = shape_of_start(Path(path)).vocab_size
    # What the recipe sets comes last, and so wins.
    return {"init_from": path, "vocab_size": size, **tokenizer}


def _shape_of(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shape of a pretrained model as a recipe writes it, cut to the layers asked for.

    Raises:
        InputError: the model cannot be read, or does not have these layers.
    """
    # The vocabulary is the tokenizer's, which may trim it.
    shape = shape_of_start(Path(start["path"])).model_dump(exclude={"vocab_size"})
    there = shape["num_hidden_layers"]
    layers = start.get("layers") or there
    if isinstance(layers, int):
        layers = list(range(layers))
    if not isinstance(layers, list | tuple):
        return shape  # the check of the field reports that
    if not all(isinstance(layer, int) for layer in layers):
        return shape
    _check_layers(list(layers), there, start["path"])
    return shape | {"num_hidden_layers": len(layers)}


def _check_layers(layers: list[int], there: int, path: str) -> None:
    """Check that a model of `there` layers has these layers, in this order."""
    # Lists rise, so the last layer is the highest.
    if layers and layers[-1] >= there:
        raise InputError(f"{path} has {there} layers, number {layers[-1]} (from 0 on) is asked for")
    if layers != sorted(set(layers)):
        raise InputError(f"layers {layers} are not in rising order")


def _apply(tree: dict[str, Any], change: str, where: str) -> None:
    """Make one `--set` change in the tree.

    Raises:
        RecipeError: not written as path=value, or the path goes through a value.
    """
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise RecipeError(where, [f"--set {change!r}: write it as dotted.path=value"])
    # The value is TOML, so that numbers, lists and tables keep their types.
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a plain word needs no quotes
    try:
        put(tree, path, value)
    except ValueError as error:
        raise RecipeError(where, [f"--set {change!r}: {error}"]) from None
