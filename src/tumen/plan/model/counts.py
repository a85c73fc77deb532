"""Weights of one card: after tensor, expert and pipeline parallelism, in elements."""

from __future__ import annotations

import numpy as np

from tumen.plan.model.case import Case, Number


def layer_weights(case: Case) -> tuple[Number, Number]:
    """Weights of one rank in a dense layer and in a mixture layer (after TP and EP)."""
    h, t = case.width, case.tp
    attention = (
        h * case.down_columns
        + (case.up_rows * case.up_columns + case.kv_up_rows * case.kv_up_columns) / t
    )
    attention = attention + case.heads * case.value_dim * h / t
    dense = attention + case.matrices * h * case.feed_forward / t
    routed = case.matrices * h * case.expert_width * case.experts / case.ep
    mixture = attention + routed + case.matrices * h * case.shared_width / t + h * case.experts
    return dense, mixture


def stage_weights(case: Case) -> tuple[Number, Number]:
    """Weights of one rank on the fullest stage: (all but routed experts, routed experts)."""
    dense, mixture = layer_weights(case)
    routed = case.matrices * case.width * case.expert_width * case.experts / case.ep
    share = case.moe_layers / case.layers
    ends = case.vocab * case.width / case.tp * np.where((case.pp > 1) | (case.tied > 0), 1.0, 2.0)
    shared = case.stage_layers * (dense * (1 - share) + (mixture - routed) * share) + ends
    return shared, case.stage_layers * share * routed
