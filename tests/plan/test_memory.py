"""Bytes: every tensor that somebody keeps is listed once; published formulas and peaks."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plan.networks import dense, mixture, number, one_scenario, workload

from tumen.core.shape import Gqa, Shape
from tumen.plan import Layout, Workload
from tumen.plan.facts import cards, software
from tumen.plan.layout import scenario_of
from tumen.plan.model import memory
from tumen.plan.model.counts import layer_weights
from tumen.plan.model.memory import Bytes
from tumen.plan.model.scenario import Scenario, stack

TOKENS = 2048


def stage(scenario: Scenario, index: int = 0) -> Bytes:
    """Bytes of one stage, as numbers."""
    return memory.stage_bytes(scenario, np.array([float(index)])).at(0)


# ---------------------------------------------------------------------- activations, tensor by tensor


def kept_by_a_token(shape: Shape, item: int = 2, dropout: bool = False) -> dict[str, float]:
    """Bytes that a dense layer without recompute keeps for one token, by tensor (arXiv 2205.05198, section 4.1).

    `item` is the size of an element that a matmul reads: 1 where 8-bit matmuls keep 8-bit inputs.
    """
    width, attention = shape.hidden_size, shape.attention
    queries = attention.num_attention_heads * attention.query_dim
    keys_values = 2 * attention.num_key_value_heads * attention.head_dim
    kept = {
        "input of the first norm": 2 * width,
        "input of the projections": item * width,
        "queries": 2 * queries,
        "keys and values": 2 * keys_values,
        "input of the output projection": item * attention.num_attention_heads * attention.head_dim,
        "input of the second norm": 2 * width,
        "input of the feed-forward": item * width,
        "gate and up": 2 * shape.intermediate_size * (2 if shape.gated else 1),
        "input of the down projection": item * shape.intermediate_size,
    }
    if dropout:
        kept["masks of both dropouts"] = 2 * width
    return kept


@pytest.mark.parametrize("gated", [True, False])
def test_activations_of_a_dense_layer(gated: bool) -> None:
    shape = dense(gated=gated)
    found = number(memory.layer_activations(one_scenario(asked=workload(shape)), 0.0))
    assert found == TOKENS * sum(kept_by_a_token(shape).values())


def test_dropout_keeps_masks() -> None:
    shape = dense()
    found = number(memory.layer_activations(one_scenario(dropout=1), 0.0))
    assert found == TOKENS * sum(kept_by_a_token(shape, dropout=True).values())


@pytest.mark.parametrize(("slim", "item"), [(1, 1), (0, 2)])
def test_eight_bit_matmuls_may_keep_eight_bit_inputs(slim: int, item: int) -> None:
    found = number(
        memory.layer_activations(one_scenario(matmul_format=1, keeps_8bit_inputs=slim), 0.0)
    )
    assert found == TOKENS * sum(kept_by_a_token(dense(), item).values())
    wide = number(
        memory.layer_activations(one_scenario(matmul_format=0, keeps_8bit_inputs=slim), 0.0)
    )
    assert wide == TOKENS * sum(kept_by_a_token(dense(), 2).values())


def test_activations_are_korthikantis(gpt3: Shape) -> None:
    """s b h (34 + 5 a s / h) a layer without parallelism, 34 / t with sequence parallelism.

    arXiv 2205.05198, table 2.
    """
    asked = Workload(gpt3, 2048, 8, 1e9, software=software("megatron-lm", "2022-05"))
    plain = stack([scenario_of(asked, Layout(dp=1), cards()["a100"])])
    sbh = 2048 * 12288
    assert number(memory.layer_activations(plain, 0.0)) == pytest.approx(
        sbh * (34 + 5 * 96 * 2048 / 12288)
    )
    layout = Layout(tp=8, recompute="selective", sequence_parallel=True)
    split = stack([scenario_of(asked, layout, cards()["a100"])])
    assert number(memory.layer_activations(split, 0.0)) == pytest.approx(sbh * 34 / 8)


@pytest.mark.parametrize(
    ("kernel", "dropout", "each"), [(0, 1, 5), (0, 0, 2), (4, 0, 2), (2, 1, 0)]
)
def test_unfused_attention_keeps_its_scores(kernel: int, dropout: int, each: int) -> None:
    """Two bytes a score, and three more with dropout; tensor ranks split the heads."""
    base = number(
        memory.layer_activations(one_scenario(Layout(tp=2), kernel=2, dropout=dropout), 0.0)
    )
    scenario = one_scenario(Layout(tp=2), kernel=kernel, dropout=dropout)
    scores = number(memory.layer_activations(scenario, 0.0)) - base
    assert scores == pytest.approx(each * 8 * 2048 * 2048 / 2)


def test_tensor_ranks_split_heads_and_feed_forward_but_not_norms() -> None:
    kept = kept_by_a_token(dense())
    norms = sum(size for name, size in kept.items() if "norm" in name)
    norms += kept["input of the projections"] + kept["input of the feed-forward"]
    rest = sum(kept.values()) - norms
    split = number(memory.layer_activations(one_scenario(Layout(tp=4)), 0.0))
    assert split == TOKENS * (norms + rest / 4)
    sequence = number(
        memory.layer_activations(one_scenario(Layout(tp=4, sequence_parallel=True)), 0.0)
    )
    assert sequence == TOKENS * (norms + rest) / 4


def test_context_ranks_and_micro_batches_scale_the_tokens() -> None:
    base = number(memory.layer_activations(one_scenario(), 0.0))
    assert number(memory.layer_activations(one_scenario(Layout(cp=4)), 0.0)) == base / 4
    assert number(memory.layer_activations(one_scenario(Layout(micro_batch=3)), 0.0)) == 3 * base


def test_activations_of_a_mixture_layer() -> None:
    """Latent attention keeps its latent, each of two experts a token its input, output and inner tensors."""
    shape = mixture()
    attention, experts = shape.attention, shape.experts
    width, inner = shape.hidden_size, experts.moe_intermediate_size
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim + attention.q_lora_rank
    queries = attention.num_attention_heads * attention.query_dim
    values = attention.num_attention_heads * attention.v_head_dim
    kept = {
        "norms' inputs and outputs": 8 * width,
        "latents": 2 * latent,
        "queries, keys and values": 2 * (queries + queries + values),
        "attention output": 2 * values,
        "shared expert": 6 * inner,
        "inputs and outputs of routed experts": 2 * 4 * width,
        "inner tensors of routed experts": 2 * 6 * inner,
    }
    found = number(memory.layer_activations(one_scenario(asked=workload(shape)), 1.0))
    assert found == TOKENS * sum(kept.values())
    half = number(memory.layer_activations(one_scenario(asked=workload(shape)), 0.5))
    plain = number(memory.layer_activations(one_scenario(asked=workload(shape)), 0.0))
    assert half == pytest.approx((found + plain) / 2)


# ---------------------------------------------------------------------- recompute


@pytest.mark.parametrize(
    ("policy", "dropped"),
    [("none", 0.0), ("norm,act", 0.33), ("layernorm,moe", 0.7), ("full", 1.0)],
)
def test_recompute_keeps_the_input_of_a_layer(policy: str, dropped: float) -> None:
    scenario = one_scenario(Layout(tp=2, recompute=policy, sequence_parallel=True))
    whole = number(memory.layer_activations(scenario, 0.0))
    checkpoint = 2 * TOKENS * 512 / 2
    found = number(memory.kept_activations(scenario, 0.0))
    assert found == pytest.approx(checkpoint + (whole - checkpoint) * (1 - dropped))


def test_a_checkpoint_is_whole_without_sequence_parallelism() -> None:
    scenario = one_scenario(Layout(tp=2, recompute="full"))
    assert number(memory.kept_activations(scenario, 0.0)) == 2 * TOKENS * 512


@pytest.mark.parametrize(("policy", "redone"), [("none", 0.0), ("norm,act", 0.33), ("full", 1.0)])
def test_what_is_recomputed_lives_for_one_layer(policy: str, redone: float) -> None:
    """Recomputed activations and half as much again for their gradients."""
    scenario = one_scenario(Layout(recompute=policy))
    whole = number(memory.layer_activations(scenario, 0.0))
    assert number(memory.working_bytes(scenario, 0.0)) == pytest.approx(1.5 * redone * whole)


def test_sequence_parallelism_gathers_two_inputs() -> None:
    """The whole input of a matmul and its gradient, two bytes each, on every tensor rank."""
    scenario = one_scenario(Layout(tp=4, sequence_parallel=True))
    assert number(memory.working_bytes(scenario, 0.0)) == 2 * 2 * TOKENS * 512
    assert number(memory.working_bytes(one_scenario(Layout(tp=4)), 0.0)) == 0.0
    alone = one_scenario(Layout(sequence_parallel=True))
    assert number(memory.working_bytes(alone, 0.0)) == 0.0


def test_an_unfused_gradient_lives_beside_the_main_copy() -> None:
    """Six bytes an element of the largest matmul: 16 bits of the new gradient and 32 of its cast."""
    scenario = one_scenario(Layout(tp=2), unfused_accumulation=1)
    assert number(memory.working_bytes(scenario, 0.0)) == 6 * 512 * 2 * 2048 / 2
    experts = one_scenario(
        asked=workload(mixture().model_copy(update={"intermediate_size": 16})),
        unfused_accumulation=1,
    )
    assert number(memory.working_bytes(experts, 0.0)) == 6 * 256 * 2 * 128


# ---------------------------------------------------------------------- weights, gradients, states


def weights_of_a_stage(shape: Shape, pp: int, index: int) -> float:
    """Weights of a stage of a dense network, embedding first and head last."""
    plain, _ = layer_weights(one_scenario(asked=workload(shape)))
    tables = (index == 0) + (index == pp - 1)
    return (
        shape.num_hidden_layers / pp * number(plain) + tables * shape.vocab_size * shape.hidden_size
    )


@pytest.mark.parametrize("pp", [1, 2, 3])
def test_stages_hold_their_layers_and_tables(pp: int) -> None:
    """Two bytes a weight, four a gradient, twelve of states (fp32 master and two moments)."""
    shape = dense(12)
    scenario = one_scenario(Layout(pp=pp, zero=0), workload(shape))
    for index in range(pp):
        weights = weights_of_a_stage(shape, pp, index)
        found = stage(scenario, index)
        assert found.weights == pytest.approx(2 * weights)
        assert found.gradients == pytest.approx(4 * weights)
        assert found.optimizer == pytest.approx(12 * weights)


def test_a_tied_table_is_held_once_on_one_stage_and_on_both_ends_of_a_pipeline() -> None:
    shape = dense(12, tie_word_embeddings=True)
    table = shape.vocab_size * shape.hidden_size
    plain, _ = layer_weights(one_scenario(asked=workload(shape)))
    alone = stage(one_scenario(Layout(zero=0), workload(shape)))
    assert alone.weights == pytest.approx(2 * (12 * number(plain) + table))
    ends = one_scenario(Layout(pp=2, zero=0), workload(shape))
    for index in (0, 1):
        assert stage(ends, index).weights == pytest.approx(2 * (6 * number(plain) + table))


def test_learned_positions_are_part_of_the_table() -> None:
    without = stage(one_scenario(Layout(zero=0)))
    with_them = stage(one_scenario(Layout(zero=0), n_positions=1000))
    # counted at both ends, as the table is
    assert with_them.weights - without.weights == 2 * 2 * 1000 * 512


@pytest.mark.parametrize("gradient_bytes", [2, 4])
def test_gradients_have_the_width_of_the_software(gradient_bytes: int) -> None:
    found = stage(one_scenario(Layout(zero=0), gradient_bytes=gradient_bytes))
    assert found.gradients == pytest.approx(gradient_bytes * found.weights / 2)


@pytest.mark.parametrize(
    ("zero", "pp", "gradients", "states"),
    [(0, 1, 1, 1), (1, 1, 1, 8), (2, 1, 8, 8), (2, 2, 1, 8), (1, 2, 1, 8)],
)
def test_what_each_stage_of_zero_shards(zero: int, pp: int, gradients: int, states: int) -> None:
    """ZeRO-1 states, ZeRO-2 gradients too; a pipeline adds gradients up over its micro-batches, unsharded."""
    scenario = one_scenario(Layout(dp=8, pp=pp, zero=zero), workload(batch_size=64))
    found, weights = stage(scenario), weights_of_a_stage(dense(12), pp, 0)
    assert found.weights == pytest.approx(2 * weights)
    assert found.gradients == pytest.approx(4 * weights / gradients)
    assert found.optimizer == pytest.approx(12 * weights / states)


def test_zero3_shards_all_and_gathers_two_layers() -> None:
    """The layer at work and the next one, 1.5 layers, and the tables that stay: two bytes each."""
    scenario = one_scenario(Layout(dp=8, zero=3))
    plain, _ = layer_weights(scenario)
    layer, table = number(plain), 4096 * 512
    found, weights = stage(scenario), weights_of_a_stage(dense(12), 1, 0)
    assert found.weights == pytest.approx(2 * max(1.5 * layer, table) + 2 * table)
    assert found.gradients == pytest.approx(4 * weights / 8)
    assert found.optimizer == pytest.approx(12 * weights / 8)
    bounded = stage(one_scenario(Layout(dp=8, zero=3), live_weights=1e6))
    assert bounded.weights == pytest.approx(2 * 1e6 + 2 * table)
    wide = stage(one_scenario(Layout(dp=8, zero=3), workload(dense(vocab_size=100_000))))
    assert wide.weights == pytest.approx(4 * 100_000 * 512)


def test_experts_are_sharded_over_the_ranks_that_hold_copies_of_them() -> None:
    """Eight ranks with experts on four: two share an expert's states, all eight the rest."""
    shape = mixture(9)
    routed = (
        8
        * 3
        * shape.hidden_size
        * shape.experts.moe_intermediate_size
        * shape.experts.n_routed_experts
    )
    scenario = one_scenario(Layout(dp=8, ep=4), workload(shape, 1024, 64))
    every = stage(one_scenario(Layout(zero=0), workload(shape, 1024, 64))).weights / 2
    shared = every - routed
    found = stage(scenario)
    assert found.weights == pytest.approx(2 * (shared + routed / 4))
    assert found.optimizer == pytest.approx(12 * (shared / 8 + routed / 4 / 2))
    alone = stage(one_scenario(Layout(dp=8, ep=8), workload(shape, 1024, 64)))
    assert alone.optimizer == pytest.approx(12 * (shared / 8 + routed / 8))


def test_dualpipe_holds_its_weights_twice() -> None:
    """2x parameters a device, by its README; the optimizer has one copy."""
    plain = stage(one_scenario(Layout(pp=4), workload(batch_size=16)))
    both = stage(one_scenario(Layout(pp=4, schedule="dualpipe"), workload(batch_size=16)))
    assert both.weights == pytest.approx(2 * plain.weights)
    assert both.optimizer == plain.optimizer
    assert both.gradients == plain.gradients


# ---------------------------------------------------------------------- logits, buffers, totals


def test_only_the_last_stage_has_logits() -> None:
    scenario = one_scenario(Layout(tp=2, pp=2), loss_bytes=6)
    assert stage(scenario, 0).logits == 0.0
    assert stage(scenario, 1).logits == TOKENS * 4096 / 2 * 6


def test_kinds_add_up_to_what_each_tool_sees() -> None:
    """The allocator's peak, what it reserved (13 % for fragments), and what nvidia-smi shows beside it."""
    found = Bytes(*(10.0**k for k in range(7)))
    assert found.total == 111_111.0
    assert found.reserved == pytest.approx(1.13 * 111_111)
    assert found.driver == pytest.approx(1.13 * 111_111 + 1e6 + 1.0e9 + 1.5e9)


def test_buffers_of_the_framework_are_no_part_of_the_peak() -> None:
    found = stage(one_scenario(buffer_bytes=5e9))
    assert found.buffers == 5e9
    assert found.total == stage(one_scenario()).total


def test_one_row_of_a_table() -> None:
    scenarios = stack([scenario_of(workload(), Layout(dp=n), cards()["a100"]) for n in (1, 2)])
    table = memory.peak(scenarios)
    for k in range(2):
        assert table.at(k).optimizer == number(table.optimizer[k])
    assert table.at(0).optimizer == 2 * table.at(1).optimizer


def test_first_stages_hold_more_micro_batches(gpt3_workload: Workload) -> None:
    scenario = stack([scenario_of(gpt3_workload, Layout(tp=8, pp=8, dp=2), cards()["a100"])])
    held = [stage(scenario, index).activations for index in range(8)]
    assert held == sorted(held, reverse=True)
    assert held[0] == pytest.approx(8 * held[-1])


def test_activations_of_a_stage() -> None:
    """Its layers times what is kept, times the micro-batches in flight: four on the first of four stages."""
    scenario = one_scenario(Layout(pp=4, recompute="norm,act"), workload(dense(12), batch_size=24))
    kept = number(memory.kept_activations(scenario, 0.0))
    assert stage(scenario, 0).activations == pytest.approx(3 * kept * 4)
    assert stage(scenario, 3).activations == pytest.approx(3 * kept)


# ---------------------------------------------------------------------- the fullest stage


@pytest.mark.parametrize("pp", [1, 2, 4])
@pytest.mark.parametrize("vocab", [64, 4096, 400_000])
def test_the_peak_is_the_fullest_stage(pp: int, vocab: int) -> None:
    scenario = one_scenario(Layout(pp=pp), workload(dense(12, vocab_size=vocab), batch_size=48))
    every = [stage(scenario, index).total for index in range(pp)]
    assert number(memory.peak(scenario).total) == max(every)


def test_the_second_stage_may_be_the_fullest() -> None:
    """Dense layers come first and are lighter than mixtures: the peak is found behind them."""
    shape = mixture(8, routed=64, vocab_size=64).model_copy(update={"intermediate_size": 64})
    scenario = one_scenario(Layout(pp=4), workload(shape, 128, 16))
    every = [stage(scenario, index).total for index in range(4)]
    assert every[1] == max(every) > every[0]
    assert number(memory.peak(scenario).total) == every[1]


def test_a_last_stage_full_of_logits_is_the_fullest() -> None:
    scenario = one_scenario(
        Layout(pp=4, micro_batch=8), workload(dense(12, vocab_size=400_000), batch_size=48)
    )
    every = [stage(scenario, index).total for index in range(4)]
    assert every[3] == max(every) > every[0]
    assert number(memory.peak(scenario).total) == every[3]


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_layout_fits_with_buffers_and_context(margin: float) -> None:
    """The peak, the framework's buffers and one gigabyte of CUDA context, in what the margin leaves."""
    scenario = one_scenario(buffer_bytes=2e9)
    need = (number(memory.peak(scenario).total) + 2e9 + 1e9) / (1 - margin)
    assert bool(memory.fits(scenario.changed(memory_bytes=need * 1.0001), margin)[0])
    assert not bool(memory.fits(scenario.changed(memory_bytes=need * 0.9999), margin)[0])


# ---------------------------------------------------------------------- published


def test_a_published_peak() -> None:
    """Llama 3 70B cut to 12 layers, tp 8 on 8 B200, Megatron-LM 0.14: 30.38 GB allocated (SimuMax's table)."""
    attention = Gqa(num_attention_heads=64, num_key_value_heads=8, head_dim=128)
    shape = Shape(
        hidden_size=8192,
        num_hidden_layers=12,
        intermediate_size=28672,
        attention=attention,
        vocab_size=128256,
        tie_word_embeddings=False,
    )
    asked = Workload(shape, 4096, 4, 1e9, software=software("megatron-core-plain", "2026-05"))
    scenario = stack(
        [scenario_of(asked, Layout(tp=8, dp=1, sequence_parallel=True), cards()["b200"])]
    )
    assert memory.peak(scenario).total[0] / 1e9 == pytest.approx(30.38, rel=0.02)


def test_more_sharding_is_never_more_bytes(gpt3_workload: Workload) -> None:
    totals = []
    for zero in (0, 1, 2, 3):
        layout = Layout(tp=8, dp=64, zero=zero, recompute="full")
        scenario = stack([scenario_of(gpt3_workload, layout, cards()["a100"])])
        totals.append(float(memory.peak(scenario).total[0]))
    assert totals == sorted(totals, reverse=True)


def test_experts_live_on_the_last_stages(v2_workload: Workload) -> None:
    """The dense layer of DeepSeek-V2 is its first one: the first of two stages holds fewer expert weights."""
    scenario = stack([scenario_of(v2_workload, Layout(pp=2, dp=8, ep=8), cards()["h800"])])
    first, second = (memory.stage_layers(scenario, np.array([float(i)])) for i in (0, 1))
    assert first[1][0] == pytest.approx(29 / 30)
    assert second[1][0] == 1.0
