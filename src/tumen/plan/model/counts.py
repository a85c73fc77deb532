"""Weights of one rank after tensor, expert and pipeline parallelism, in elements."""

from __future__ import annotations

import numpy as np

from tumen.plan.model.scenario import Number, Scenario


def layer_weights(scenario: Scenario) -> tuple[Number, Number]:
    """Return the weights of one rank in a dense layer and in a mixture layer.

    TP splits every matrix but two: the down projection of latent attention and the router are small
    and held by every rank. EP splits the routed experts.
    """
    hidden = scenario.hidden_size
    tp = scenario.tp
    split = (
        scenario.up_rows * scenario.up_columns + scenario.kv_up_rows * scenario.kv_up_columns
    ) / tp
    attention = hidden * scenario.down_columns + split
    attention = attention + scenario.num_attention_heads * scenario.value_dim * hidden / tp
    dense = attention + scenario.matrices * hidden * scenario.intermediate_size / tp

    shared = scenario.matrices * hidden * scenario.shared_intermediate_size / tp
    router = hidden * scenario.n_routed_experts
    mixture = attention + scenario.routed_weights + shared + router
    return dense, mixture


def stage_weights(scenario: Scenario) -> tuple[Number, Number]:
    """Return one rank's weights on the fullest stage: (all but routed experts, routed experts).

    A stage of a pipeline holds one table at most, the embedding or the head.
    """
    dense, mixture = layer_weights(scenario)
    routed = scenario.routed_weights
    share = scenario.moe_share
    one_table = (scenario.pp > 1) | (scenario.tie_word_embeddings > 0)
    tables = np.where(one_table, 1.0, 2.0)
    ends = scenario.vocab_size * scenario.hidden_size / scenario.tp * tables
    layer = dense * (1 - share) + (mixture - routed) * share
    shared = scenario.stage_layers * layer + ends
    return shared, scenario.stage_layers * share * routed


def optimizer_groups(scenario: Scenario) -> tuple[Number, Number]:
    """Return the ranks that share one copy of the optimizer states.

    (of all but routed experts, of routed experts)

    Each routed expert is held by tp x dp x cp / ep ranks only, so its states are spread over fewer.
    """
    group = np.maximum(scenario.shard, 1.0)
    experts = np.maximum(group * scenario.tp / scenario.ep, 1.0)
    return group, experts
