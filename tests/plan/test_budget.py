"""What a budget buys: as many steps as fit, so networks of one budget differ by less than a step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.errors import PlanError
from tumen.core.shape import Experts, Gqa, Shape
from tumen.plan import step_flops, steps_within, training_compute
from tumen.recipe import Train

DENSE = Shape(
    hidden_size=16,
    num_hidden_layers=2,
    intermediate_size=32,
    attention=Gqa(num_attention_heads=2, num_key_value_heads=1, head_dim=8),
    vocab_size=64,
)
MIXED = DENSE.model_copy(
    update={"experts": Experts(n_routed_experts=8, num_experts_per_tok=1, moe_intermediate_size=16)}
)


def test_a_step_by_hand() -> None:
    # weights that multiply: layers and head; norms are counted with their layer
    attention, feed, norms = 16 * 8 * (2 * 2 + 2 * 1), 3 * 16 * 32, 2 * 16
    scores = 2 * 2 * (8 + 8) * 10  # layers x heads x (query + value) x context
    forward = 2 * (2 * (attention + feed + norms) + 64 * 16 + scores)
    assert step_flops(DENSE, Train(steps=1, batch_size=3, seq_len=10)) == 3 * forward * 30


@given(st.floats(1e6, 1e12), st.integers(1, 8), st.sampled_from([DENSE, MIXED]))
def test_the_budget_is_used_up_to_less_than_a_step(budget: float, rows: int, shape: Shape) -> None:
    train = Train(steps=1, batch_size=rows, seq_len=16)
    if budget < step_flops(shape, train):
        with pytest.raises(PlanError, match=r"ablation\.x: one step takes"):
            steps_within(budget, shape, train, "ablation.x")
        return
    steps = steps_within(budget, shape, train, "ablation.x")
    used = training_compute(shape, train.model_copy(update={"steps": steps}))
    assert 0 <= budget - used.flops < used.step_flops
    assert used.flops == steps * used.step_flops
    assert used.tokens == steps * rows * 16


def test_experts_that_are_not_chosen_cost_nothing() -> None:
    few = MIXED.model_copy(
        update={
            "experts": Experts(n_routed_experts=4, num_experts_per_tok=1, moe_intermediate_size=16)
        }
    )
    train = Train(steps=1, batch_size=1, seq_len=16)
    router = (
        3 * 2 * 16 * 4 * 16
    )  # four more rows of the router: forward and backward, two operations, width, tokens
    assert step_flops(MIXED, train) - step_flops(few, train) == router
    assert (
        training_compute(MIXED, train).parameters > training_compute(MIXED, train).active_parameters
    )
