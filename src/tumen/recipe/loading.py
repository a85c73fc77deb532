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
        RecipeError: the file is missing, no UTF-8, no TOML, or has faults; all of them are listed.
    """
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = f"; beside it: {', '.join(near)}" if near else ""
        raise RecipeError(str(path), [f"no such file{hint}"]) from None
    except IsADirectoryError:
        raise RecipeError(str(path), ["is a folder; name the .toml file in it"]) from None
    except OSError as error:
        raise RecipeError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            str(path), [f"not UTF-8 at byte {error.start}; save the file as UTF-8"]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), [f"not TOML: {error}"]) from None
    except RecursionError:
        raise RecipeError(str(path), ["nested too deep to be a recipe"]) from None
    return recipe_of(tree, str(path), changes)


def recipe_of(tree: dict[str, Any], where: str, changes: Sequence[str] = ()) -> Recipe:
    """Check a parsed recipe after `--set` changes.

    Args:
        tree: the parsed file; the changes are made in it.
        where: name of the file, for errors.
        changes: such as `family.cloud.train.steps=10`.

    Raises:
        RecipeError: with every fault.
    """
    for change in changes:
        _apply(tree, change, where)
    try:
        return Recipe.model_validate(_with_shapes(tree, where))
    except ValidationError as error:
        raise RecipeError(where, faults_of(Recipe, error)) from None


def _with_shapes(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The tree with what outside models say of themselves: the shape of each tier that starts from one and says none, and whose
    vocabulary it is.

    Raises:
        RecipeError: a model that cannot be read.
    """
    family, learnt = tree.get("family"), tree.get("tokenizer", {})
    if not isinstance(family, dict) or not isinstance(learnt, dict):
        return tree
    tiers, faults = dict(family), []
    for name, tier in family.items():
        start = tier.get("init_from") if isinstance(tier, dict) else None
        start = {"path": start} if isinstance(start, str) else start
        if not isinstance(start, dict) or not isinstance(start.get("path"), str):
            continue
        try:
            start = {**start, "path": located(start["path"])}
            tiers[name] = tier = {**tier, "init_from": start}
            if "shape" not in tier:
                tiers[name] = {**tier, "shape": _shape_of(start)}
            if "init_from" not in learnt and has_vocabulary(Path(start["path"])):
                learnt = {
                    "init_from": start["path"],
                    "vocab_size": shape_of_start(Path(start["path"])).vocab_size,
                    **learnt,
                }
        except InputError as error:
            faults.append(f"family.{name}.init_from.path: {error}")
    if faults:
        raise RecipeError(where, faults)
    return {**tree, "family": tiers} | ({"tokenizer": learnt} if learnt else {})


def _shape_of(start: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of what a tier starts from, as a recipe says it."""
    shape = shape_of_start(Path(start["path"])).model_dump(exclude={"vocab_size"})
    asked = start.get("layers") or shape["num_hidden_layers"]
    which = list(range(asked)) if isinstance(asked, int) else asked
    if not isinstance(which, list | tuple) or not all(isinstance(layer, int) for layer in which):
        return shape  # the field's own fault is told
    if which and which[-1] >= shape["num_hidden_layers"]:
        raise InputError(
            f"{start['path']} has {shape['num_hidden_layers']} layers, number {which[-1]} (from 0 on) is asked for"
        )
    if list(which) != sorted(set(which)):
        raise InputError(f"layers {list(which)} are not in rising order")
    return shape | {"num_hidden_layers": len(which)}


def _apply(tree: dict[str, Any], change: str, where: str) -> None:
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise RecipeError(where, [f"--set {change!r}: write it as dotted.path=value"])
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    try:
        put(tree, path, value)
    except ValueError as error:
        raise RecipeError(where, [f"--set {change!r}: {error}"]) from None
