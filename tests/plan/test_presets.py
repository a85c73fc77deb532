"""Counts of the presets against what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import recipes

from tumen.core.shape import Experts, Mla, Shape
from tumen.plan import anchored, solve, workload_of
from tumen.plan.facts import cards, fleet_of, one_kind
from tumen.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
COUNTS = [
    ("v2.toml", None, 236e9, 0.01),
    ("v2-lite.toml", None, 15.7e9, 0.01),
    ("v1-67b.toml", None, 67e9, 0.01),
    ("milm-1.3b.toml", None, 1.3e9, 0.01),
    ("milm-6b.toml", None, 6.4e9, 0.01),
    ("family-7-70-180.toml", "tiny", 7e9, 0.01),
    ("family-7-70-180.toml", "turbo", 70e9, 0.01),
    ("family-7-70-180.toml", "titan", 180e9, 0.01),
]


@pytest.mark.parametrize(("recipe", "tier", "published", "tolerance"), COUNTS)
def test_parameters(recipe: str, tier: str | None, published: float, tolerance: float) -> None:
    job = workload_of(load_recipe(RECIPES / recipe), tier)
    assert job.shape.parameters() == pytest.approx(published, rel=tolerance)


def test_published_counts(gpt3: Shape) -> None:
    """GPT-3 with biases and learned positions, 174.6B (arXiv 2104.04473); DeepSeek-V3, 671B (arXiv 2412.19437)."""
    assert gpt3.parameters() == pytest.approx(174.6e9, rel=1e-3)
    v3 = Shape(
        hidden_size=7168,
        num_hidden_layers=61,
        intermediate_size=18432,
        attention=Mla(num_attention_heads=128, kv_lora_rank=512, q_lora_rank=1536),
        experts=Experts(
            n_routed_experts=256,
            num_experts_per_tok=8,
            moe_intermediate_size=2048,
            n_shared_experts=1,
            first_k_dense_replace=3,
        ),
        vocab_size=129280,
        tie_word_embeddings=False,
    )
    assert v3.parameters() == pytest.approx(671e9, rel=1e-3)
    predicting = v3.model_copy(update={"num_nextn_predict_layers": 1})
    assert predicting.parameters() - v3.parameters() == pytest.approx(11.6e9, rel=0.01)
    assert predicting.flops_per_token(4096) > v3.flops_per_token(4096)


def test_active_parameters() -> None:
    """What one token is multiplied with: the embedding table is looked up, not multiplied."""
    v2, lite = (
        workload_of(load_recipe(RECIPES / name)).shape for name in ("v2.toml", "v2-lite.toml")
    )
    assert v2.active_parameters() - v2.vocab_size * v2.hidden_size == pytest.approx(21e9, rel=0.01)
    assert lite.active_parameters() - lite.vocab_size * lite.hidden_size == pytest.approx(
        2.4e9, rel=0.025
    )  # printed with two digits


def test_cache_of_v2_told_apart() -> None:
    """-82.2% is latent attention against the 67B's grouped keys; -93.3% is that and 6-bit elements."""
    v2, v1 = (workload_of(load_recipe(RECIPES / name)).shape for name in ("v2.toml", "v1-67b.toml"))
    assert v2.cache_elements() == 34_560
    assert v1.cache_elements() == 194_560
    assert 1 - v2.cache_elements() / v1.cache_elements() == pytest.approx(0.822, abs=5e-4)
    assert 1 - v2.cache_bytes(6) / v1.cache_bytes(16) == pytest.approx(0.933, abs=5e-4)


@pytest.mark.parametrize("count", [1024, 2048])
def test_v2_from_67b_alone(count: int) -> None:
    """172.8K H800-hours a trillion tokens, from the 67B's 300.6K, inside an interval no wider than 25%; a constant
    MFU says 94K.
    """
    v2, v1 = load_recipe(RECIPES / "v2.toml"), load_recipe(RECIPES / "v1-67b.toml")
    group = one_kind(fleet_of(f"h800:{count}"))
    job, anchor = anchored(workload_of(v2), workload_of(v1), group, 300_600.0, v1.plan)
    hours = solve(job, group, v2.plan, top=1).best.hours_per_trillion
    assert 0.8 < anchor.factor < 1.25
    assert hours.low <= 172_800 <= hours.high
    assert hours.high / hours.value <= 1.2501
    assert hours.low / hours.value >= 0.7499
    assert hours.value == pytest.approx(172_800, rel=0.10)
    constant_mfu = 300_600 * 6 * 21e9 / (6 * 67e9)
    assert not hours.low <= constant_mfu <= hours.high


@pytest.mark.parametrize("recipe", recipes.shipped(), ids=lambda path: path.stem)
def test_every_recipe_plans(recipe: Path) -> None:
    found = load_recipe(recipe)
    plan = solve(workload_of(found), one_kind(fleet_of(found.fleet.accelerators)), found.plan)
    assert plan.best.bound_seconds <= plan.best.step_seconds.low
    assert plan.card in cards()
