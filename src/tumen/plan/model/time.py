"""Seconds of one training step, term by term. One function a term; each cites its formula; all broadcast over tables.

    step = factor x ( pipeline(stage forward + backward + exposed sends) + exposed gradient traffic + optimizer )

A matmul takes the larger of its arithmetic at a size-dependent rate and its bytes; other operators take their bytes.
Traffic of a group follows alpha + bytes / rate (arXiv 2104.04473 section 3; Thakur et al. 2005 for the rings) with
the rule of `links.rate`: a group with r ranks in a node sees the scale-up link or r network cards, whichever is less.
What software overlaps is said by the case, how well by the constants of `physics.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from tumen.plan.model import bound, links
from tumen.plan.model.case import FULL, SELECTIVE, Case, Number
from tumen.plan.model.counts import layer_weights, stage_weights
from tumen.plan.model.physics import Physics

BACKWARD = 2.0  # matmuls of the backward pass: one for the input, one for the weights
FLASH_BACKWARD = 2.5  # five matmuls instead of two (arXiv 2307.08691, section 3.2)
SHARPNESS = 8.0  # of the maximum of card and host: they run side by side but for a few waits
REST_BACKWARD = 1.6  # bytes of the backward elementwise operators as a multiple of the forward ones


@dataclass(frozen=True)
class Parts:
    """Seconds of a step by cause; they add up to `step`. `stage_forward` and `stage_backward`: one micro-batch."""

    matmul: Number
    attention: Number
    elementwise: Number
    host: Number
    head: Number
    tensor: Number
    context: Number
    expert: Number
    sharded: Number
    pipeline_sends: Number
    bubble: Number
    gradients: Number
    optimizer: Number
    step: Number
    stage_forward: Number
    stage_backward: Number

    def rows(self) -> dict[str, Number]:
        """Name -> value."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def generation(case: Case, *values: float) -> Number:
    """The constant of the card's generation (Ampere, Hopper, Blackwell, other)."""
    return np.choose(np.asarray(case.generation, dtype=int), values)


def matmul_rate(
    case: Case, physics: Physics, rows: Number, columns: Number, inner: Number
) -> Number:
    """Flops a second of a matmul: e0 g / (g + k), g the harmonic mean of its three sides.

    k grows with the card: a faster card needs a larger matmul to fill it.
    """
    share16 = generation(
        case,
        physics.matmul_ampere,
        physics.matmul_hopper,
        physics.matmul_blackwell,
        physics.matmul_other,
    )
    share8 = generation(case, 1.0, physics.matmul8_hopper, physics.matmul8_blackwell, 1.0)
    share = share16 * np.where(case.fp8 > 0, share8, 1.0)
    share = share * np.where(
        case.fp8 == 2, physics.matmul4, np.where(case.fp8 == 3, physics.matmul8_row, 1.0)
    )
    side = 3.0 / (
        1.0 / np.maximum(rows, 1) + 1.0 / np.maximum(columns, 1) + 1.0 / np.maximum(inner, 1)
    )
    knee = physics.knee * (case.matmul_flops / 312e12) ** physics.knee_power
    return case.matmul_flops * np.minimum(case.matmul_share * share, 1.0) * side / (side + knee)


def matmul(
    case: Case, physics: Physics, rows: Number, columns: Number, inner: Number, copies: Number = 1.0
) -> Number:
    """Seconds of `copies` forward matmuls (rows x inner) @ (inner x columns): the larger of arithmetic and bytes."""
    flops = 2.0 * rows * columns * inner
    item = np.where(case.fp8 > 0, 1.0, 2.0)
    moved = item * (rows * inner + inner * columns) + 2.0 * rows * columns
    arithmetic = flops / matmul_rate(case, physics, rows, columns, inner)
    return copies * np.maximum(arithmetic, moved / (case.memory_rate * physics.memory))


def attention_matmuls(case: Case, physics: Physics) -> Number:
    """Projections around the attention core, forward, of one layer and micro-batch."""
    q, t = case.tokens, case.tp
    up = matmul(case, physics, q, case.up_columns / t, case.up_rows)
    out = matmul(case, physics, q, case.width, case.heads * case.value_dim / t)
    down = np.where(
        case.down_columns > 0,
        matmul(case, physics, q, np.maximum(case.down_columns, 1), case.width),
        0.0,
    )
    kv_up = matmul(
        case, physics, q, np.maximum(case.kv_up_columns, 1) / t, np.maximum(case.kv_up_rows, 1)
    )
    return up + out + down + np.where(case.kv_up_columns > 0, kv_up, 0.0)


def feed_matmuls(case: Case, physics: Physics, width: Number) -> Number:
    """A dense (or shared) feed-forward of `width`, forward."""
    q, inner = case.tokens, np.maximum(width, 1) / case.tp
    first = matmul(case, physics, q, (case.matrices - 1) * inner, case.width)
    return np.where(np.asarray(width) > 0, first + matmul(case, physics, q, case.width, inner), 0.0)


def expert_tokens(case: Case) -> Number:
    """Tokens one expert sees in a micro-batch, experts evenly loaded: the group's tokens times top_k over the
    experts.
    """
    return case.ep * case.tokens / case.tp * case.top_k / np.maximum(case.experts, 1)


def expert_matmuls(case: Case, physics: Physics) -> Number:
    """Routed experts of one layer on one rank (grouped matmuls), forward; one rank holds experts / ep of them."""
    rows, local = expert_tokens(case), case.experts / case.ep
    first = matmul(
        case,
        physics,
        rows,
        (case.matrices - 1) * np.maximum(case.expert_width, 1),
        case.width,
        local,
    )
    second = matmul(case, physics, rows, case.width, np.maximum(case.expert_width, 1), local)
    return np.where(case.experts > 0, (first + second) * physics.grouped, 0.0)


def core_forward(case: Case, physics: Physics) -> Number:
    """The attention core of one layer, forward: flash kernels by arithmetic, unfused ones by their bytes as well."""
    context: Number = np.where(case.window > 0, np.minimum(case.window, case.seq), case.seq)
    pairs = case.tokens * context * case.heads / case.tp
    causal: Number = np.where(case.window > 0, np.minimum(1.0, 1.0 - 0.5 * context / case.seq), 0.5)
    flops = 2.0 * pairs * (case.query_dim + case.value_dim)
    kernel = np.asarray(case.kernel, dtype=int)
    share: Number = np.choose(kernel, (1.0, physics.flash1, physics.flash2, physics.flash3, 1.0))
    share = share * generation(case, 1.0, physics.flash_hopper, physics.flash_blackwell, 1.0)
    # small heads and short rows leave the matrix units idle
    share = (
        share
        * case.query_dim
        / (case.query_dim + physics.head_knee)
        * context
        / (context + physics.context_knee)
    )
    flash = flops * causal / (case.half_flops * share)
    aligned: Number = np.where(np.mod(case.query_dim, 8) == 0, 1.0, physics.unaligned)
    rate = case.half_flops * case.matmul_share * physics.batched / aligned
    scores: Number = (
        np.where(kernel == 4, physics.softmax_unfused, 1.0) * physics.score_bytes * pairs
    )
    unfused = flops / rate + scores / (case.memory_rate * physics.memory)
    return np.where((kernel == 0) | (kernel == 4), unfused, flash)


def core_backward(case: Case, physics: Physics) -> Number:
    """The attention core backward, as a multiple of the forward one."""
    kernel = np.asarray(case.kernel, dtype=int)
    return core_forward(case, physics) * np.where(
        (kernel == 0) | (kernel == 4), BACKWARD, FLASH_BACKWARD
    )


def elementwise(case: Case, physics: Physics, inner: Number) -> Number:
    """Norms, residuals, dropout, activation and layout changes of one layer with a feed-forward of `inner`, forward.

    Bytes a token: 22 h for two norms and two bias-dropout-adds (split by TP under sequence parallelism only), 12 for
    each element of q, k, v, 4 (matrices - 1) + 2 for each of the activation (arXiv 2205.05198, section 4 counts the
    same tensors).
    """
    split = np.where(case.sp > 0, case.tp, 1.0)
    heads = case.heads * case.query_dim + case.kv_elements
    casts = np.where(case.fp8 > 0, 4.0, 0.0)
    moved = (22.0 + casts) * case.width / split
    moved = moved + (8.0 * heads + (4.0 * (case.matrices - 1) + 2.0 + casts) * inner) / case.tp
    fused = np.choose(np.asarray(case.fused, dtype=int), (physics.eager, 1.0, physics.compiled))
    return case.tokens * moved * fused / (case.memory_rate * physics.memory)


def routing(case: Case, physics: Physics) -> Number:
    """Permuting tokens to experts and back, and the expert activations of one layer, forward."""
    copies = case.tokens / case.tp * case.top_k
    passes = np.where(case.domain > case.node, physics.permute_fused, physics.permute)
    moved = copies * (
        passes * case.width * 2.0 + (4.0 * (case.matrices - 1) + 2.0) * case.expert_width
    )
    return np.where(case.experts > 0, moved / (case.memory_rate * physics.memory), 0.0)


def head_forward(case: Case, physics: Physics) -> Number:
    """Vocabulary projection and fp32 cross entropy of one micro-batch, forward (MTP layers use it again)."""
    logits = case.tokens * case.vocab / case.tp
    loss = 10.0 * logits / (case.memory_rate * physics.memory)
    return (1 + case.mtp) * (
        matmul(case, physics, case.tokens, case.vocab / case.tp, case.width) + loss
    )


def tensor_traffic(case: Case, physics: Physics) -> Number:
    """One all-reduce (or all-gather and reduce-scatter) over the TP group of one layer's activations."""
    size = case.tokens * case.width * 2.0
    seconds = links.all_reduce(case, physics, size, case.tp, 1.0)
    # ranks meet at every collective: the slowest host sets the pace
    return np.where(case.tp > 1, seconds + physics.tp_meet * case.launch * case.tp, 0.0)


def context_traffic(case: Case, physics: Physics) -> Number:
    """Keys and values around the CP ring, forward, of one layer: (c - 1) hops of the local ones."""
    size = case.tokens * case.kv_elements / case.tp * 2.0
    rate = links.rate(case, physics, case.cp, case.tp)
    return np.where(case.cp > 1, (case.cp - 1) * size / rate, 0.0)


def expert_traffic(case: Case, physics: Physics) -> Number:
    """Dispatch (or combine) of one layer: k copies inside the scale-up domain, one copy a node over the network."""
    copies = case.tokens / case.tp * case.width * 2.0
    inside = np.minimum(case.ep, case.domain)
    nodes = case.ep / inside
    reach = np.where(case.group_limit > 0, np.minimum(case.group_limit, nodes), nodes)
    sent = np.minimum(case.top_k, reach) * (1.0 - 1.0 / nodes)
    across = copies * sent / (case.nic_rate * physics.all_to_all)
    within = copies * case.top_k * (1.0 - 1.0 / inside) / (case.link_rate * physics.all_to_all)
    latency = physics.link_latency * inside + np.where(
        nodes > 1, physics.network_latency * nodes, 0.0
    )
    return np.where((case.experts > 0) & (case.ep > 1), np.maximum(across, within) + latency, 0.0)


def overlapped(work: Number, traffic: Number, hidden: Number) -> Number:
    """Seconds of `traffic` that show when a share `hidden` of it may run behind `work`."""
    return traffic - np.minimum(hidden * traffic, work)


def host(case: Case, physics: Physics) -> Number:
    """Time the host needs to launch the forward kernels of one layer; the card waits when its own work is shorter."""
    return case.launch * (
        physics.launch + physics.launch_tp * (np.minimum(case.tp, case.node) - 1) ** 2
    )


def sharded_traffic(case: Case, physics: Physics) -> tuple[Number, Number]:
    """FSDP (ZeRO-3): a gather in the forward and a gather and a scatter in the backward pass of each micro-batch.

    arXiv 1910.02054, section 7.2.2; with hybrid sharding the group is the shard and gradients are reduced across later.
    """
    shared, routed = stage_weights(case)
    size = (shared + routed) * 2.0
    once = links.ring(case, physics, size, case.shard, case.tp, case.layers)
    on = (case.zero >= 3) & (case.shard > 1)
    scatter = links.ring(
        case, physics, (shared + routed) * case.reduce_bytes, case.shard, case.tp, case.layers
    )
    return np.where(on, once, 0.0), np.where(on, once + scatter, 0.0)


def sends(case: Case, physics: Physics) -> Number:
    """One activation to the next stage, one way, of one micro-batch and model chunk."""
    size = case.tokens * case.width * 2.0 / np.where(case.scatter + case.sp > 0, case.tp, 1.0)
    apart = case.cards / case.pp >= case.domain
    rate = np.where(apart, case.nic_rate * physics.network_p2p, case.link_rate * physics.link)
    return np.where(case.pp > 1, size / rate + physics.network_latency, 0.0)


def gradient_traffic(case: Case, physics: Physics) -> Number:
    """Gradients (and, sharded, parameters) over the data-parallel group once a step.

    Ring all-reduce 2 (d - 1) / d, or reduce-scatter and all-gather under ZeRO-1/2. Expert weights have the smaller
    group.
    """
    shared, routed = stage_weights(case)
    group = case.dp * case.cp
    buckets = np.maximum(1.0, (shared + routed) * case.reduce_bytes / physics.bucket_bytes)
    shard = np.where(case.shard > 1, np.minimum(case.shard, group), 1.0)
    copies = np.maximum(group / shard, 1.0)

    def reduced(size: Number, wide: Number) -> Number:
        scatter = links.ring(
            case, physics, size * case.reduce_bytes, np.minimum(shard, wide), case.tp, buckets
        )
        gather = links.ring(case, physics, size * 2.0, np.minimum(shard, wide), case.tp, buckets)
        across = links.all_reduce(
            case,
            physics,
            size * case.reduce_bytes / shard,
            np.maximum(wide / shard, 1),
            case.tp * shard,
            buckets,
        )
        plain = links.all_reduce(case, physics, size * case.reduce_bytes, wide, case.tp, buckets)
        split = np.where(case.zero >= 3, 0.0, scatter + gather) + np.where(copies > 1, across, 0.0)
        return np.where(case.zero > 0, split, plain)

    wide = np.maximum(group * case.tp / case.ep, 1.0)
    dense = np.where(group > 1, reduced(shared, group), 0.0)
    return dense + np.where((case.experts > 0) & (wide > 1), reduced(routed, wide), 0.0)


def optimizer(case: Case, physics: Physics) -> Number:
    """Adam once a step: 26 bytes of state touched for each weight this rank updates."""
    shared, routed = stage_weights(case)
    shard = np.where(case.zero > 0, np.maximum(case.shard, 1.0), 1.0)
    expert_shard = np.where(case.zero > 0, np.maximum(case.shard * case.tp / case.ep, 1.0), 1.0)
    weights = shared / shard + routed / expert_shard
    return 26.0 * weights / (case.memory_rate * physics.memory) + physics.step_overhead


def step(case: Case, physics: Physics) -> Parts:
    """Seconds of one step on the slowest pipeline, with its parts."""
    share = case.moe_layers / case.layers
    m = case.micro_batches
    redo = np.where(case.recompute >= FULL, 1.0, case.redo_matmul)
    redo_rest = np.where(case.recompute >= FULL, 1.0, case.redo_rest)
    redo_core = np.where(
        case.recompute >= SELECTIVE, np.where((case.kernel % 4 == 0) | (redo >= 1), 1.0, redo), 0.0
    )

    mixture = expert_matmuls(case, physics) + feed_matmuls(case, physics, case.shared_width)
    linear = (
        attention_matmuls(case, physics)
        + (1 - share) * feed_matmuls(case, physics, case.feed_forward)
        + share * mixture
    )
    core = core_forward(case, physics)
    inner = (1 - share) * case.feed_forward + share * case.shared_width
    rest = elementwise(case, physics, inner) + share * routing(case, physics)
    # gradients of the weights are added to a main copy in every micro-batch
    dense, mixed = layer_weights(case)
    accumulate = (
        ((1 - share) * dense + share * mixed)
        * (case.reduce_bytes * 2)
        / (case.memory_rate * physics.memory)
    )

    tensor = tensor_traffic(case, physics)
    ring = context_traffic(case, physics)
    routed = share * 2.0 * expert_traffic(case, physics)
    tensor_hidden = np.where(case.tp_overlap > 0, physics.tp_hidden, 0.0)
    tensor_forward = overlapped(linear, 2 * tensor, tensor_hidden)
    tensor_backward = overlapped(
        2 * linear, 2 * tensor, np.maximum(tensor_hidden, physics.tp_hidden_backward)
    )
    ring_forward = overlapped(core, ring, physics.cp_hidden)
    ring_backward = overlapped(FLASH_BACKWARD * core, 2 * ring, physics.cp_hidden)
    expert_hidden = np.where(case.ep_overlap > 0, physics.ep_hidden, 0.0)
    routed_forward = overlapped(linear, routed, expert_hidden)
    routed_backward = overlapped(2 * linear, routed, expert_hidden)

    forward_work = linear + core + rest
    backward_work = (
        (BACKWARD + redo) * linear
        + core_backward(case, physics)
        + redo_core * core
        + (REST_BACKWARD + redo_rest) * rest
        + accumulate
    )
    forward_traffic = tensor_forward + ring_forward + routed_forward
    backward_traffic = tensor_backward + ring_backward + routed_backward
    backward_traffic = (
        backward_traffic + redo * (tensor_forward + routed_forward) + redo_core * ring_forward
    )
    launches = host(case, physics) * (
        1 + share * np.where(case.domain > case.node, physics.launch_moe_graph, physics.launch_moe)
    )
    forward = forward_work + forward_traffic
    backward = backward_work + backward_traffic
    waits_forward = idle(forward, launches)
    waits_backward = idle(backward, launches * (physics.launch_backward + redo))

    extra = np.where(case.pp > 1, 0.0, 1.0) * case.mtp
    depth = case.stage_layers + extra
    gather_forward, gather_backward = sharded_traffic(case, physics)
    stage_forward = depth * (forward + waits_forward)
    stage_backward = depth * (backward + waits_backward)
    exposed_forward = overlapped(stage_forward, gather_forward, physics.fsdp_hidden)
    exposed_backward = overlapped(stage_backward, gather_backward, physics.fsdp_hidden)

    head = (1 + BACKWARD) * head_forward(case, physics)
    middle = stage_forward + stage_backward + exposed_forward + exposed_backward
    last = (
        np.where(case.pp > 1, (case.last_layers + case.mtp) / case.stage_layers, 1.0) * middle
        + head
    )
    send = 2.0 * sends(case, physics) * case.vpp
    send_shown = send * np.where(case.pp_overlap > 0, 1 - physics.pp_hidden, physics.pp_shown)
    slowest = np.where(case.pp > 1, np.maximum(middle, last), last) + send_shown
    total = np.where(
        case.pp > 1,
        middle * case.layers / case.stage_layers + head + case.mtp / case.stage_layers * middle,
        last,
    )
    fill = pipeline_bubble(case, total, slowest, send * case.pp / case.vpp)
    gradients = gradient_traffic(case, physics)
    shown = np.where(
        case.dp_overlap > 0,
        overlapped(physics.dp_window * stage_backward, gradients, physics.dp_hidden),
        gradients,
    )
    update = optimizer(case, physics)
    # a fast release may not be promised more than physics gives
    whole = np.maximum(case.factor * (m * slowest + fill + shown + update), bound.seconds(case))
    scale = case.factor * m * depth
    return Parts(
        matmul=scale * (1 + BACKWARD + redo) * linear,
        attention=scale * (core + core_backward(case, physics) + redo_core * core),
        elementwise=scale * ((1 + REST_BACKWARD + redo_rest) * rest + accumulate),
        host=scale * (waits_forward + waits_backward),
        head=case.factor * m * (slowest - send_shown - middle),
        tensor=scale * (tensor_forward + tensor_backward + redo * tensor_forward),
        context=scale * (ring_forward + ring_backward + redo_core * ring_forward),
        expert=scale * (routed_forward + routed_backward + redo * routed_forward),
        sharded=case.factor * m * (exposed_forward + exposed_backward),
        pipeline_sends=case.factor * m * send_shown,
        bubble=case.factor * fill,
        gradients=case.factor * shown,
        optimizer=case.factor * update,
        step=whole,
        stage_forward=stage_forward,
        stage_backward=stage_backward,
    )


def idle(card: Number, launches: Number) -> Number:
    """Time the card waits for the host: smooth maximum of both minus the card's own work."""
    return (card**SHARPNESS + launches**SHARPNESS) ** (1.0 / SHARPNESS) - card


def pipeline_bubble(case: Case, total: Number, slowest: Number, send: Number) -> Number:
    """Idle time of the slowest stage.

    1F1B: the other stages' forward and backward once, divided by the chunks when interleaved (arXiv 2104.04473, section
    2.2). Zero-bubble hides it but for the weight-gradient third (arXiv 2401.10241); DualPipe halves it (its README).
    """
    kind = np.asarray(case.schedule, dtype=int)
    share = np.choose(kind, (1.0, 1.0, 1.0 / 3.0, 0.5))
    return np.where(case.pp > 1, np.maximum(total - slowest, 0.0) / case.vpp * share + send, 0.0)
