"""Forward seconds of one layer and micro-batch inside one accelerator.

A matmul takes the larger of its arithmetic (at a rate that depends on its size) and its bytes.
Other operators take their bytes over the memory rate.
"""

from __future__ import annotations

import numpy as np

from tumen.plan.model.physics import Physics
from tumen.plan.model.scenario import Number, Scenario

BACKWARD = 2.0  # matmuls of the backward pass: one for the input, one for the weights
FLASH_BACKWARD = 2.5  # five matmuls instead of two (arXiv 2307.08691, section 3.2)
A100_FLOPS = 312e12  # the accelerator whose knee `Physics.knee` states
HAND_FUSED = 1.0
UNALIGNED_SOFTMAX = 4  # attention kernel: unfused, with a softmax that is not fused either
LOSS_BYTES = 10.0  # moved for one logit by an fp32 cross entropy, forward


def by_generation(scenario: Scenario, *values: float) -> Number:
    """Return the value of the accelerator's generation (Ampere, Hopper, Blackwell, other)."""
    return np.choose(np.asarray(scenario.generation, dtype=int), values)


def memory_rate(scenario: Scenario, physics: Physics) -> Number:
    """Return the bytes a second that operators reach."""
    return scenario.memory_rate * physics.memory


# ---------------------------------------------------------------------- matmuls


def matmul_rate(
    scenario: Scenario, physics: Physics, rows: Number, columns: Number, inner: Number
) -> Number:
    """Return the FLOPs a second of a matmul (rows x inner) @ (inner x columns).

    The rate is e0 g / (g + k), with g the harmonic mean of the three sides. The knee k grows with
    the accelerator: a faster one needs a larger matmul.

    Args:
        scenario: a scenario or a table of them.
        physics: constants of the model.
        rows: of the left matrix.
        columns: of the right matrix.
        inner: the side that both share.
    """
    efficiency = scenario.matmul_efficiency * format_share(scenario, physics)
    inverse = 1.0 / np.maximum(rows, 1) + 1.0 / np.maximum(columns, 1) + 1.0 / np.maximum(inner, 1)
    side = 3.0 / inverse
    knee = physics.knee * (scenario.matmul_flops / A100_FLOPS) ** physics.knee_power
    return scenario.matmul_flops * np.minimum(efficiency, 1.0) * side / (side + knee)


def format_share(scenario: Scenario, physics: Physics) -> Number:
    """Return the share of the best measured matmul that training reaches."""
    sixteen = by_generation(
        scenario,
        physics.matmul_ampere,
        physics.matmul_hopper,
        physics.matmul_blackwell,
        physics.matmul_other,
    )
    eight = by_generation(scenario, 1.0, physics.matmul8_hopper, physics.matmul8_blackwell, 1.0)
    share = sixteen * np.where(scenario.matmul_format > 0, eight, 1.0)
    row_scaled = np.where(scenario.matmul_format == 3, physics.matmul8_row, 1.0)
    return share * np.where(scenario.matmul_format == 2, physics.matmul4, row_scaled)


def matmul(
    scenario: Scenario,
    physics: Physics,
    rows: Number,
    columns: Number,
    inner: Number,
    copies: Number = 1.0,
) -> Number:
    """Return the seconds of `copies` forward matmuls (rows x inner) @ (inner x columns)."""
    flops = 2.0 * rows * columns * inner
    arithmetic = flops / matmul_rate(scenario, physics, rows, columns, inner)
    # inputs have the width of the format, the output is bf16
    item = np.where(scenario.matmul_format > 0, 1.0, 2.0)
    moved = item * (rows * inner + inner * columns) + 2.0 * rows * columns
    return copies * np.maximum(arithmetic, moved / memory_rate(scenario, physics))


def attention_matmuls(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of the projections around the attention core."""
    tokens = scenario.tokens
    tp = scenario.tp
    hidden = scenario.hidden_size
    up = matmul(scenario, physics, tokens, scenario.up_columns / tp, scenario.up_rows)
    values = scenario.num_attention_heads * scenario.value_dim
    out = matmul(scenario, physics, tokens, hidden, values / tp)
    down, kv_up = latent_matmuls(scenario, physics)
    return up + out + down + kv_up


def latent_matmuls(scenario: Scenario, physics: Physics) -> tuple[Number, Number]:
    """Return the seconds of latent attention's (joint down projection, latent up projection).

    Both are 0 for other attention, which has no such columns.
    """
    tokens = scenario.tokens
    tp = scenario.tp
    hidden = scenario.hidden_size
    down_columns = np.maximum(scenario.down_columns, 1)
    down = matmul(scenario, physics, tokens, down_columns, hidden)
    down = np.where(scenario.down_columns > 0, down, 0.0)
    kv_columns = np.maximum(scenario.kv_up_columns, 1)
    kv_rows = np.maximum(scenario.kv_up_rows, 1)
    kv_up = matmul(scenario, physics, tokens, kv_columns / tp, kv_rows)
    kv_up = np.where(scenario.kv_up_columns > 0, kv_up, 0.0)
    return down, kv_up


def feed_matmuls(scenario: Scenario, physics: Physics, width: Number) -> Number:
    """Return the seconds of a dense (or shared) feed-forward; 0 where its `width` is 0."""
    tokens = scenario.tokens
    inner = np.maximum(width, 1) / scenario.tp
    hidden = scenario.hidden_size
    first = matmul(scenario, physics, tokens, (scenario.matrices - 1) * inner, hidden)
    second = matmul(scenario, physics, tokens, hidden, inner)
    return np.where(np.asarray(width) > 0, first + second, 0.0)


def expert_tokens(scenario: Scenario) -> Number:
    """Return the tokens that one expert gets in a micro-batch, experts evenly loaded.

    The expert-parallel group's tokens times the experts per token over the experts.
    """
    group_tokens = scenario.ep * scenario.tokens / scenario.tp
    experts = np.maximum(scenario.n_routed_experts, 1)
    return group_tokens * scenario.num_experts_per_tok / experts


def expert_matmuls(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of a layer's routed experts on one rank, as grouped matmuls."""
    tokens = expert_tokens(scenario)
    local = scenario.n_routed_experts / scenario.ep
    width = np.maximum(scenario.moe_intermediate_size, 1)
    hidden = scenario.hidden_size
    columns = (scenario.matrices - 1) * width
    first = matmul(scenario, physics, tokens, columns, hidden, local)
    second = matmul(scenario, physics, tokens, hidden, width, local)
    return np.where(scenario.has_experts, (first + second) * physics.grouped, 0.0)


def head_forward(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of the vocabulary projection and the fp32 cross entropy.

    Multi-token-prediction layers use the head again.
    """
    columns = scenario.vocab_size / scenario.tp
    logits = scenario.tokens * scenario.vocab_size / scenario.tp
    loss = LOSS_BYTES * logits / memory_rate(scenario, physics)
    projection = matmul(scenario, physics, scenario.tokens, columns, scenario.hidden_size)
    return (1 + scenario.num_nextn_predict_layers) * (projection + loss)


# ---------------------------------------------------------------------- attention core


def core_forward(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of the attention core: softmax(q k) v without the projections."""
    return np.where(
        unfused(scenario), unfused_core(scenario, physics), flash_core(scenario, physics)
    )


def core_backward(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of the attention core's backward pass."""
    times = np.where(unfused(scenario), BACKWARD, FLASH_BACKWARD)
    return core_forward(scenario, physics) * times


def unfused(scenario: Scenario) -> Number:
    """Return whether scores are written to memory."""
    kernel = np.asarray(scenario.kernel, dtype=int)
    return (kernel == 0) | (kernel == UNALIGNED_SOFTMAX)


def score_pairs(scenario: Scenario) -> Number:
    """Return the (query, key) pairs of all heads of one rank."""
    return scenario.tokens * scenario.context * scenario.num_attention_heads / scenario.tp


def core_flops(scenario: Scenario) -> Number:
    """Return the FLOPs of scores and weighted values for all pairs, causal or not."""
    return 2.0 * score_pairs(scenario) * (scenario.query_dim + scenario.value_dim)


def flash_core(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of a flash attention kernel: its arithmetic on the causal pairs."""
    kernel = np.asarray(scenario.kernel, dtype=int)
    shares = (1.0, physics.flash1, physics.flash2, physics.flash3, 1.0)
    share: Number = np.choose(kernel, shares)
    share = share * by_generation(scenario, 1.0, physics.flash_hopper, physics.flash_blackwell, 1.0)
    # small heads and short contexts leave the matrix units idle
    share = share * scenario.query_dim / (scenario.query_dim + physics.head_knee)
    share = share * scenario.context / (scenario.context + physics.context_knee)
    return core_flops(scenario) * scenario.causal_share / (scenario.bf16_flops * share)


def unfused_core(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of batched matmuls over all pairs and of the scores' memory traffic."""
    aligned = np.where(np.mod(scenario.query_dim, 8) == 0, 1.0, physics.unaligned)
    rate = scenario.bf16_flops * scenario.matmul_efficiency * physics.batched / aligned
    unaligned_softmax = np.asarray(scenario.kernel, dtype=int) == UNALIGNED_SOFTMAX
    passes = np.where(unaligned_softmax, physics.softmax_unfused, 1.0)
    moved = passes * physics.score_bytes * score_pairs(scenario)
    return core_flops(scenario) / rate + moved / memory_rate(scenario, physics)


# ---------------------------------------------------------------------- elementwise operators


def elementwise(scenario: Scenario, physics: Physics, inner: Number) -> Number:
    """Return the seconds of norms, residuals, dropout, activation and layout changes of one layer.

    Bytes a token: 22 h for two norms and two bias-dropout-adds (split by TP under sequence
    parallelism only), 8 for each element of q, k and v, and 4 (matrices - 1) + 2 for each inner
    element (arXiv 2205.05198, section 4 counts the same tensors). 8-bit matmuls add casts of 4
    bytes.

    Args:
        scenario: a scenario or a table of them.
        physics: constants of the model.
        inner: width of the feed-forward.
    """
    casts = np.where(scenario.matmul_format > 0, 4.0, 0.0)
    norms = (22.0 + casts) * scenario.hidden_size / scenario.norm_split
    queries = scenario.num_attention_heads * scenario.query_dim
    qkv = 8.0 * (queries + scenario.kv_elements)
    activation = (4.0 * (scenario.matrices - 1) + 2.0 + casts) * inner
    moved = norms + (qkv + activation) / scenario.tp

    kind = np.asarray(scenario.fusion, dtype=int)
    fusion = np.choose(kind, (physics.eager, HAND_FUSED, physics.compiled))
    return scenario.tokens * moved * fusion / memory_rate(scenario, physics)


def routing(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to permute tokens to experts and back, with the experts' activations."""
    copies = scenario.tokens / scenario.tp * scenario.num_experts_per_tok
    # in domains wider than a node dispatch and permutation are one kernel
    wide = scenario.domain > scenario.node
    passes = np.where(wide, physics.permute_fused, physics.permute)
    permuted = passes * scenario.hidden_size * 2.0
    activation = (4.0 * (scenario.matrices - 1) + 2.0) * scenario.moe_intermediate_size
    moved = copies * (permuted + activation)
    return np.where(scenario.has_experts, moved / memory_rate(scenario, physics), 0.0)


# ---------------------------------------------------------------------- host


def host(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds that the host needs to launch the forward kernels of one layer.

    More for tensor-parallel ranks of a node: they wait for each other's hosts.
    """
    peers = np.minimum(scenario.tp, scenario.node) - 1
    return scenario.launch_factor * (physics.launch + physics.launch_tp * peers**2)
