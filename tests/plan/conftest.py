"""Networks and jobs the planner's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tumen.core.shape import Gqa, Shape
from tumen.plan import Workload, workload_of
from tumen.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def gpt3() -> Shape:
    """GPT-3 175B as Megatron trained it (arXiv 2104.04473)."""
    attention = Gqa(num_attention_heads=96, num_key_value_heads=96, head_dim=128)
    return Shape(
        hidden_size=12288,
        num_hidden_layers=96,
        intermediate_size=49152,
        attention=attention,
        vocab_size=51200,
        gated=False,
        biases=True,
        n_positions=2048,
    )


@pytest.fixture
def gpt3_workload(gpt3: Shape) -> Workload:
    return Workload(gpt3, 2048, 1536, 3e11, name="gpt3")


@pytest.fixture
def v2_workload() -> Workload:
    return workload_of(load_recipe(RECIPES / "v2.toml"))
