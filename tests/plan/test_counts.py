"""Weights of a rank: added up over all ranks they are the network's own; FLOPs by listing matrices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.plan.networks import dense, mixture, number, one_scenario, workload

from tumen.core.shape import Mla, Shape
from tumen.plan import Layout
from tumen.plan.facts import cards
from tumen.plan.model import bound, memory
from tumen.plan.model.counts import layer_weights, stage_weights

SHAPES = {
    "dense": dense(12),
    "tied": dense(12, tie_word_embeddings=True),
    "plain feed-forward": dense(8, gated=False),
    "latent attention and experts": mixture(9),
    "full-rank queries": dense(4).model_copy(
        update={
            "attention": Mla(
                num_attention_heads=8,
                kv_lora_rank=64,
                qk_nope_head_dim=32,
                qk_rope_head_dim=16,
                v_head_dim=48,
            )
        }
    ),
}


def norms_of(shape: Shape) -> int:
    """Weights of norms: they are not counted, being far below a thousandth."""
    attention = shape.attention
    bottleneck = 0
    if isinstance(attention, Mla):
        bottleneck = attention.kv_lora_rank + (attention.q_lora_rank or 0)
    return shape.num_hidden_layers * (2 * shape.hidden_size + bottleneck) + shape.hidden_size


@pytest.mark.parametrize("name", SHAPES)
def test_one_rank_holds_the_network(name: str) -> None:
    shape = SHAPES[name]
    shared, routed = stage_weights(one_scenario(Layout(), workload(shape)))
    assert number(shared + routed) == shape.parameters() - norms_of(shape)


@pytest.mark.parametrize("name", SHAPES)
def test_layers_of_both_kinds(name: str) -> None:
    """Dense and mixture layers times their numbers, with embedding and head, are the network."""
    shape = SHAPES[name]
    plain, mixed = (
        number(value) for value in layer_weights(one_scenario(Layout(), workload(shape)))
    )
    ends = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    total = (shape.num_hidden_layers - shape.moe_layers) * plain + shape.moe_layers * mixed + ends
    assert total == shape.parameters() - norms_of(shape)


@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("name", ["dense", "plain feed-forward"])
def test_tensor_ranks_share_every_matrix(name: str, tp: int) -> None:
    whole, _ = stage_weights(one_scenario(Layout(), workload(SHAPES[name])))
    split, _ = stage_weights(one_scenario(Layout(tp=tp), workload(SHAPES[name])))
    assert number(split) == pytest.approx(number(whole) / tp)


def test_latent_projections_and_routers_are_on_every_tensor_rank() -> None:
    """The down projection and the router are small and copied; everything else is split."""
    shape = SHAPES["latent attention and experts"]
    attention = shape.attention
    copied = shape.hidden_size * (
        attention.q_lora_rank + attention.kv_lora_rank + attention.qk_rope_head_dim
    )
    router = shape.hidden_size * shape.experts.n_routed_experts
    whole = layer_weights(one_scenario(Layout(ep=1), workload(shape)))
    half = layer_weights(one_scenario(Layout(tp=2, ep=1), workload(shape)))
    plain = [number(value[0]) for value in (whole, half)]
    assert plain[1] - copied == pytest.approx((plain[0] - copied) / 2)
    # expert parallelism, not tensor parallelism, splits the routed experts
    routed = (
        3 * shape.hidden_size * shape.experts.moe_intermediate_size * shape.experts.n_routed_experts
    )
    mixed = [number(value[1]) - copied - router - routed for value in (whole, half)]
    assert mixed[1] == pytest.approx(mixed[0] / 2)


@pytest.mark.parametrize("ep", [1, 2, 4, 8])
def test_experts_are_spread_over_their_group(ep: int) -> None:
    shape = SHAPES["latent attention and experts"]
    _, routed = stage_weights(one_scenario(Layout(dp=8, ep=ep), workload(shape)))
    every = (
        8
        * 3
        * shape.hidden_size
        * shape.experts.moe_intermediate_size
        * shape.experts.n_routed_experts
    )
    assert number(routed) * ep == every


def test_a_stage_of_a_pipeline_holds_one_table() -> None:
    """First or last: the embedding or the head, not both, and the same for tied ones."""
    for name in ("dense", "tied"):
        shape = SHAPES[name]
        whole, _ = stage_weights(one_scenario(Layout(), workload(shape)))
        tables = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
        stage, _ = stage_weights(one_scenario(Layout(pp=3), workload(shape)))
        expected = (number(whole) - tables) / 3 + shape.vocab_size * shape.hidden_size
        assert number(stage) == pytest.approx(expected)


# ---------------------------------------------------------------------- FLOPs


def forward_flops(shape: Shape, context: int, window: int = 0) -> tuple[float, float]:
    """(matmuls, attention) of one token: two FLOPs a weight it is multiplied with, and causal scores."""
    weights = shape.active_parameters() - norms_of(shape)
    # the embedding is looked up; a tied table is multiplied as the head
    weights -= 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    attention = shape.attention
    value = attention.v_head_dim if isinstance(attention, Mla) else attention.head_dim
    seen = context / 2  # the mean token sees half of the sequence
    if window and window < context:
        seen = window * (1 - 0.5 * window / context)
    pairs = (
        shape.num_hidden_layers
        * attention.num_attention_heads
        * (attention.query_dim + value)
        * seen
    )
    return 2.0 * weights, 2.0 * pairs


@pytest.mark.parametrize("name", SHAPES)
def test_flops_of_a_token(name: str) -> None:
    shape = SHAPES[name]
    found = bound.forward_flops(one_scenario(Layout(), workload(shape, 1024)))
    assert [number(value) for value in found] == pytest.approx(forward_flops(shape, 1024))


def test_a_window_lowers_attention_alone() -> None:
    shape = dense(12, window=256)
    found = bound.forward_flops(one_scenario(Layout(), workload(shape, 1024)))
    assert [number(value) for value in found] == pytest.approx(forward_flops(shape, 1024, 256))
    wide = bound.forward_flops(one_scenario(Layout(), workload(dense(12, window=4096), 1024)))
    assert number(wide[1]) == pytest.approx(forward_flops(shape, 1024)[1])


def test_a_predicted_token_costs_a_layer_and_a_head() -> None:
    shape = SHAPES["dense"]
    once, _ = bound.forward_flops(one_scenario(Layout(), workload(shape)))
    twice, _ = bound.forward_flops(
        one_scenario(Layout(), workload(shape.model_copy(update={"num_nextn_predict_layers": 1})))
    )
    plain, _ = layer_weights(one_scenario(Layout(), workload(shape)))
    assert number(twice - once) == pytest.approx(
        2 * (number(plain) + shape.vocab_size * shape.hidden_size)
    )


# ---------------------------------------------------------------------- bounds


def test_arithmetic_of_a_step() -> None:
    """Forward once and backward twice, on the peaks of all GPUs."""
    shape, card = SHAPES["dense"], cards()["a100"]
    matmuls, scores = forward_flops(shape, 2048)
    tokens = 24 * 2048
    for layout, times in ((Layout(dp=8), (3, 3)), (Layout(dp=8, recompute="full"), (4, 4))):
        found = number(bound.arithmetic(one_scenario(layout)))
        flops = times[0] * matmuls + times[1] * scores
        assert found == pytest.approx(tokens * flops / 8 / card.bf16_flops)
    partly = number(bound.arithmetic(one_scenario(Layout(dp=8, recompute="layernorm,moe"))))
    assert partly == pytest.approx(tokens * (3.6 * matmuls + 3 * scores) / 8 / card.bf16_flops)


def test_eight_bits_speed_up_matmuls_and_not_attention() -> None:
    h100 = cards()["h100"]
    scenario = one_scenario(Layout(dp=8), workload(precision="fp8"), accelerator=h100)
    matmuls, scores = forward_flops(SHAPES["dense"], 2048)
    expected = 24 * 2048 / 8 * 3 * (matmuls / h100.fp8_flops + scores / h100.bf16_flops)
    assert number(bound.arithmetic(scenario)) == pytest.approx(expected)


def test_weights_are_read_twice_a_micro_batch() -> None:
    """Forward and backward; the optimizer touches 26 bytes a weight of its share, once a step."""
    scenario = one_scenario(Layout(dp=8), memory_rate=1e12)
    shape = SHAPES["dense"]
    plain, _ = layer_weights(scenario)
    shared, _ = stage_weights(scenario)
    expected = 3 * 2 * 2 * 12 * number(plain) + 26 * number(shared) / 8
    assert number(bound.memory_traffic(scenario)) == pytest.approx(expected / 1e12)
    assert shape.num_hidden_layers == 12
    narrow = one_scenario(Layout(dp=8, zero=0), memory_rate=1e12, matmul_format=1)
    expected = 3 * 2 * 1 * 12 * number(plain) + 26 * number(shared)
    assert number(bound.memory_traffic(narrow)) == pytest.approx(expected / 1e12)


def test_experts_nobody_chose_are_not_read() -> None:
    """The bound counts attention, the dense layers' feed-forward and the shared experts."""
    shape = SHAPES["latent attention and experts"]
    scenario = one_scenario(Layout(), workload(shape))
    attention = shape.attention.parameters(shape.hidden_size) - 64 - 96
    feed, shared = 3 * shape.hidden_size * shape.intermediate_size, 3 * shape.hidden_size * 128
    assert number(bound.weights_read(scenario)) == pytest.approx(
        attention + feed * 1 / 9 + shared * 8 / 9
    )


def test_tensor_bound() -> None:
    """Eight (t - 1) / t activations of two bytes a layer and micro-batch; half more when done again."""
    scenario = one_scenario(Layout(tp=4, dp=2), link_rate=1e11)
    size = 8 * 3 / 4 * 2048 * 512 * 2
    assert number(bound.tensor(scenario)) == pytest.approx(12 * 12 * size / 1e11)
    again = one_scenario(Layout(tp=4, dp=2, recompute="full"), link_rate=1e11)
    assert number(bound.tensor(again)) == pytest.approx(1.5 * 12 * 12 * size / 1e11)
    assert number(bound.tensor(one_scenario(Layout(dp=2)))) == 0.0
    staged = one_scenario(Layout(tp=4, pp=5, dp=2), link_rate=1e11)
    assert number(bound.tensor(staged)) == pytest.approx(12 * 2 * size / 1e11)


def test_pipeline_bound() -> None:
    """One activation each way, split over the tensor ranks, once a chunk."""
    near = one_scenario(Layout(pp=2, dp=2), link_rate=1e11)
    assert number(bound.pipeline(near)) == pytest.approx(12 * 2048 * 512 * 2 / 1e11)
    far = one_scenario(Layout(tp=8, pp=2, dp=2), nic_rate=1e10)
    assert number(bound.pipeline(far)) == pytest.approx(12 * 2048 * 512 * 2 / 8 / 1e10)
    chunks = one_scenario(Layout(pp=2, dp=2), link_rate=1e11, vpp=3)
    assert number(bound.pipeline(chunks)) == pytest.approx(3 * number(bound.pipeline(near)))
    assert number(bound.pipeline(one_scenario(Layout(dp=2)))) == 0.0


def test_gradient_bound() -> None:
    """2 (n - 1) / n of the weights, two bytes each, whatever the software sends."""
    scenario = one_scenario(Layout(dp=4, cp=2), link_rate=1e11, reduce_bytes=4)
    shared, _ = stage_weights(scenario)
    expected = 2 * 7 / 8 * 2 * number(shared) / 1e11
    assert number(bound.gradients(scenario)) == pytest.approx(expected)
    assert number(bound.gradients(one_scenario(Layout(dp=8, zero=3)))) == 0.0
    assert number(bound.gradients(one_scenario(Layout()))) == 0.0
    far = one_scenario(Layout(tp=8, dp=4), nic_rate=1e10, reduce_bytes=4)
    shared, _ = stage_weights(far)
    assert number(bound.gradients(far)) == pytest.approx(2 * 3 / 4 * 2 * number(shared) / 1e10)


def test_sharded_bound() -> None:
    """Two gathers and a scatter, two bytes a weight."""
    scenario = one_scenario(Layout(dp=8, zero=3), link_rate=1e11)
    shared, _ = stage_weights(scenario)
    assert number(bound.sharded(scenario)) == pytest.approx(3 * 7 / 8 * 2 * number(shared) / 1e11)
    assert number(bound.sharded(one_scenario(Layout(dp=8)))) == 0.0


def test_expert_bound() -> None:
    """One copy a node that is not the token's own, dispatch and combine, both ways."""
    scenario = one_scenario(
        Layout(dp=16, ep=16), workload(mixture(9, routed=16), 1024, 16), nic_rate=1e10
    )
    copies = 4 * 1024 * 256 * min(2, 2) * (1 - 1 / 2)
    assert number(bound.expert(scenario)) == pytest.approx(8 * copies / 1e10)
    inside = one_scenario(Layout(dp=8, ep=8), workload(mixture(9), 1024, 16))
    assert number(bound.expert(inside)) == 0.0
    assert number(bound.expert(one_scenario(Layout(dp=2)))) == 0.0
    limited = scenario.changed(ep=64.0, num_experts_per_tok=8.0, topk_group=2.0)
    free = scenario.changed(ep=64.0, num_experts_per_tok=8.0, topk_group=0.0)
    assert number(bound.expert(limited)) == pytest.approx(number(bound.expert(free)) / 4)


def test_the_bound_is_the_largest_of_its_terms() -> None:
    scenario = one_scenario(Layout(tp=4, pp=2, dp=2))
    terms = {name: number(value) for name, value in bound.terms(scenario).items()}
    assert len(terms) == 7
    assert number(bound.seconds(scenario)) == max(terms.values()) > 0.0


def test_perfect_links_bound_the_real_ones() -> None:
    scenario = one_scenario(link_rate=3e11, nic_rate=2.5e10)
    assert number(bound.full_rate(scenario, 8, 1)) == 3e11
    assert number(bound.full_rate(scenario, 16, 1)) == 2e11
    assert number(bound.full_rate(scenario, 16, 8)) == 2.5e10


# ---------------------------------------------------------------------- layers of a stage


@pytest.mark.parametrize("layers", [8, 9, 10, 13])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_stages_share_the_layers(layers: int, stages: int) -> None:
    """All layers are somewhere, mixtures too; the last stage has what the full ones leave."""
    if layers - (stages - 1) * -(-layers // stages) < 1:
        return
    shape = mixture(layers)
    scenario = one_scenario(Layout(pp=stages), workload(shape))
    counted = [memory.stage_layers(scenario, float(stage)) for stage in range(stages)]
    numbers = [number(layers_) for layers_, _ in counted]
    mixed = [number(layers_ * share) for layers_, share in counted]
    assert sum(numbers) == layers
    assert sum(mixed) == pytest.approx(shape.moe_layers)
    assert mixed[0] == numbers[0] - 1  # the dense layer comes first
    assert all(first >= later for first, later in pairwise(numbers))
    assert number(scenario.stage_layers) == numbers[0]
    assert number(scenario.last_layers) == numbers[-1]


def test_prediction_layers_come_last() -> None:
    shape = mixture(8).model_copy(update={"num_nextn_predict_layers": 2})
    scenario = one_scenario(Layout(pp=2), workload(shape))
    first, last = (memory.stage_layers(scenario, float(stage)) for stage in (0, 1))
    assert number(first[0]) == 4.0
    assert number(last[0]) == 6.0
    assert number(last[1]) == 1.0
