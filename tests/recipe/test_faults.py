"""Old field names: one line each that names the new one, and no second spelling."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from tumen.recipe import Recipe
from tumen.recipe.faults import RENAMED, faults_of

TREE: dict[str, Any] = {
    "name": "t",
    "data": {"mix": [{"weight": 1}]},
    "tokenizer": {},
    "family": {
        "device": {
            "shape": {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "intermediate_size": 32,
                "attention": {
                    "kind": "gqa",
                    "num_attention_heads": 2,
                    "num_key_value_heads": 1,
                    "head_dim": 8,
                },
            },
            "train": {"steps": 1, "mesh": {}},
            "quantize": {"type": "int8"},
            "init_from": {"path": "x"},
        },
        "cloud": {
            "shape": {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "intermediate_size": 32,
                "attention": {
                    "kind": "mla",
                    "num_attention_heads": 2,
                    "kv_lora_rank": 8,
                    "rope_scaling": {"factor": 4, "original_max_position_embeddings": 64},
                },
                "experts": {
                    "n_routed_experts": 4,
                    "num_experts_per_tok": 2,
                    "moe_intermediate_size": 8,
                },
            },
            "train": {"steps": 1},
        },
    },
    "ablation": {"seconds": 1, "a": {"tier": "cloud"}},
    "fleet": {},
    "plan": {},
}
PLACES = {
    "Recipe": "",
    "Data": "data",
    "Part": "data.mix.0",
    "Tokenizer": "tokenizer",
    "Tier": "family.device",
    "Shape": "family.device.shape",
    "Gqa": "family.device.shape.attention",
    "Mla": "family.cloud.shape.attention",
    "Yarn": "family.cloud.shape.attention.rope_scaling",
    "Experts": "family.cloud.shape.experts",
    "Train": "family.device.train",
    "Mesh": "family.device.train.mesh",
    "Quantize": "family.device.quantize",
    "InitFrom": "family.device.init_from",
    "Ablation": "ablation",
    "Fleet": "fleet",
    "Planning": "plan",
}
ENTRIES = [(name, old, new) for name, fields in RENAMED.items() for old, new in fields.items()]


def section(tree: Any, path: str) -> dict[str, Any]:
    """Return the table at a dotted path."""
    for part in path.split(".") if path else ():
        tree = tree[int(part)] if part.isdigit() else tree[part]
    found: dict[str, Any] = tree
    return found


def faults(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(tree)
    return faults_of(Recipe, caught.value)


def test_the_tree_of_these_tests_is_a_good_recipe() -> None:
    Recipe.model_validate(TREE)
    assert PLACES.keys() == RENAMED.keys()


@pytest.mark.parametrize(("name", "old", "new"), ENTRIES)
def test_an_old_name_gets_one_line_that_names_the_new_one(name: str, old: str, new: str) -> None:
    tree = copy.deepcopy(TREE)
    table = section(tree, PLACES[name])
    table[old] = table.pop(new, True)
    path = f"{PLACES[name]}.{old}".removeprefix(".")
    assert faults(tree) == [f"{path}: renamed; write {new}"]


@pytest.mark.parametrize(("name", "old", "new"), ENTRIES)
def test_an_old_name_beside_the_new_one_is_a_fault_too(name: str, old: str, new: str) -> None:
    tree = copy.deepcopy(TREE)
    section(tree, PLACES[name])[old] = 1
    path = f"{PLACES[name]}.{old}".removeprefix(".")
    assert faults(tree) == [f"{path}: renamed; write {new}"]


def test_an_old_name_in_the_changes_of_a_variant() -> None:
    tree = copy.deepcopy(TREE)
    tree["ablation"]["a"]["set"] = {"train.rate": 0.1}
    assert faults(tree) == ["ablation.a.train.rate: renamed; write learning_rate"]


def test_another_missing_field_is_still_reported() -> None:
    tree = copy.deepcopy(TREE)
    shape = tree["family"]["device"]["shape"]
    shape["width"] = shape.pop("hidden_size")
    del shape["intermediate_size"]
    assert sorted(faults(tree)) == [
        "family.device.shape.intermediate_size: missing",
        "family.device.shape.width: renamed; write hidden_size",
    ]


def test_a_variant_may_have_an_old_name() -> None:
    tree = copy.deepcopy(TREE)
    tree["ablation"]["exam"] = {"tier": "cloud"}
    assert list(Recipe.model_validate(tree).ablation.each()) == ["a", "exam"]  # type: ignore[union-attr]
