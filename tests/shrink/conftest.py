"""A small tier that has learned something, so that rounding it does some harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Once

from tumen.core.shape import Shape
from tumen.recipe import Recipe


@pytest.fixture(scope="session")
def sure(recipe: Recipe, dataset: Path, shape_of: Callable[[str], Shape], once: Once) -> Path:
    """The device tier of the tiny recipe after enough steps to be sure of its answers."""
    from tumen.train import Making, fit

    section = recipe.family["device"].train.model_copy(
        update={
            "steps": 160,
            "learning_rate": 1e-2,
            "sentence_weight": 0.0,
            "checkpoint_every": 1000,
            "precision": "fp32",
        }
    )
    shape = shape_of("device")
    return once(
        "sure",
        lambda folder: fit(section, shape, dataset, folder, making=Making(seed=5, inputs="tiny")),
    )
