"""What every recipe that ships keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import recipes

from tumen.pipeline.ablation import plan_ablation
from tumen.pipeline.stages import stages
from tumen.recipe import load_recipe

RECIPES = recipes.shipped()


def test_there_is_one() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_is_good_and_called_like_its_file(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    names = [stage.name for stage in stages(recipe)]
    assert len(names) == len(set(names))
    seen: set[str] = set()
    for stage in stages(recipe):
        assert set(stage.parents) <= seen, f"{stage.name} comes before what it is made from"
        seen.add(stage.name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_student_is_smaller_than_its_teacher(path: Path) -> None:
    recipe = load_recipe(path)
    for tier in recipe.family.values():
        if tier.distil:
            assert tier.shape.parameters() < recipe.family[tier.distil.teacher].shape.parameters()


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if load_recipe(path).ablation], ids=lambda path: path.stem
)
def test_arms_spend_alike(path: Path, tmp_path: Path) -> None:
    rows = plan_ablation(load_recipe(path), tmp_path)["variants"]
    assert len(rows) > 1
    spent = [row["flops"] for row in rows]
    assert max(spent) - min(spent) < max(row["step_flops"] for row in rows)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_data_lie_below_the_folder_of_the_command_and_it_says_how_to_get_them(
    path: Path,
) -> None:
    text = path.read_text("utf-8")
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    recipe = load_recipe(path)
    for part in recipe.data.parts():
        for file in (part.path, part.class_priors, *recipe.data.held_out):
            if file and file.startswith("data/"):
                assert "/".join(Path(file).parts[:2]) in comments
            elif file:
                assert not file.startswith(("..", "/"))
