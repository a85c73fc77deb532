"""Arithmetic of a step: matmuls, experts, the attention core, elementwise operators, each worked out by hand."""

from __future__ import annotations

import pytest
from tests.plan.networks import dense, mixture, number, one_scenario, plain, workload

from tumen.core.shape import Mla, Shape
from tumen.plan import Layout
from tumen.plan.facts import cards
from tumen.plan.model import compute

TERA = 1e12


# ---------------------------------------------------------------------- rate of a matmul


def test_a_huge_matmul_reaches_the_measured_share_of_the_peak() -> None:
    scenario = one_scenario(matmul_flops=100 * TERA, matmul_efficiency=0.8)
    rate = compute.matmul_rate(scenario, plain(matmul_ampere=0.9, knee=100.0), 1e9, 1e9, 1e9)
    assert number(rate) == pytest.approx(100 * TERA * 0.8 * 0.9, rel=1e-6)


def test_a_matmul_as_wide_as_the_knee_runs_at_half_the_rate() -> None:
    """The knee is the side at which an A100 (312 TFLOP/s) reaches half of its best rate."""
    scenario = one_scenario(matmul_flops=312 * TERA, matmul_efficiency=1.0)
    physics = plain(knee=200.0, knee_power=0.6)
    assert number(compute.matmul_rate(scenario, physics, 200, 200, 200)) == pytest.approx(
        156 * TERA
    )


def test_a_faster_card_needs_a_larger_matmul() -> None:
    """Four times the peak and a power of one half: the knee doubles."""
    physics = plain(knee=200.0, knee_power=0.5)
    scenario = one_scenario(matmul_flops=4 * 312 * TERA, matmul_efficiency=1.0)
    rate = number(compute.matmul_rate(scenario, physics, 400, 400, 400))
    assert rate == pytest.approx(4 * 156 * TERA)


def test_the_side_of_a_matmul_is_the_harmonic_mean_of_three() -> None:
    """Sides 100, 200 and 200 have the harmonic mean 150."""
    scenario = one_scenario(matmul_flops=312 * TERA, matmul_efficiency=1.0)
    physics = plain(knee=150.0, knee_power=0.0)
    for sides in ((100, 200, 200), (200, 100, 200), (200, 200, 100)):
        assert number(compute.matmul_rate(scenario, physics, *sides)) == pytest.approx(156 * TERA)


def test_no_matmul_beats_the_peak() -> None:
    scenario = one_scenario(matmul_flops=100 * TERA, matmul_efficiency=0.9)
    rate = compute.matmul_rate(scenario, plain(matmul_ampere=2.0), 1e9, 1e9, 1e9)
    assert number(rate) == pytest.approx(100 * TERA)


@pytest.mark.parametrize(
    ("generation", "constant"),
    [(0, "matmul_ampere"), (1, "matmul_hopper"), (2, "matmul_blackwell"), (3, "matmul_other")],
)
def test_each_generation_has_its_own_share(generation: int, constant: str) -> None:
    scenario = one_scenario(generation=generation, matmul_flops=100 * TERA, matmul_efficiency=1.0)
    rate = compute.matmul_rate(scenario, plain(**{constant: 0.5}), 1e9, 1e9, 1e9)
    assert number(rate) == pytest.approx(50 * TERA)


@pytest.mark.parametrize(
    ("precision", "generation", "constants", "share"),
    [
        (0, 1, {"matmul8_hopper": 0.5}, 1.0),  # 16 bits
        (1, 0, {"matmul8_hopper": 0.5, "matmul8_blackwell": 0.5}, 1.0),  # Ampere has no 8-bit unit
        (1, 1, {"matmul8_hopper": 0.5}, 0.5),
        (1, 2, {"matmul8_blackwell": 0.5}, 0.5),
        (2, 2, {"matmul8_blackwell": 0.5, "matmul4": 0.5}, 0.25),
        (3, 1, {"matmul8_hopper": 0.5, "matmul8_row": 0.5}, 0.25),
        (1, 1, {"matmul4": 0.5, "matmul8_row": 0.5}, 1.0),
    ],
)
def test_narrow_formats_have_their_own_share(
    precision: int, generation: int, constants: dict[str, float], share: float
) -> None:
    scenario = one_scenario(
        matmul_format=precision,
        generation=generation,
        matmul_flops=100 * TERA,
        matmul_efficiency=1.0,
    )
    rate = compute.matmul_rate(scenario, plain(**constants), 1e9, 1e9, 1e9)
    assert number(rate) == pytest.approx(100 * TERA * share)


# ---------------------------------------------------------------------- seconds of a matmul


def test_a_square_matmul_takes_its_arithmetic() -> None:
    """4096^3 multiply-adds at 100 TFLOP/s."""
    scenario = one_scenario(matmul_flops=100 * TERA, matmul_efficiency=1.0, memory_rate=1e15)
    found = compute.matmul(scenario, plain(), 4096, 4096, 4096)
    assert number(found) == pytest.approx(2 * 4096**3 / (100 * TERA))


def test_a_matrix_vector_product_takes_its_bytes() -> None:
    """One row: the weights of 2 bytes each, the row and the answer cross the memory bus."""
    scenario = one_scenario(matmul_flops=1e18, matmul_efficiency=1.0, memory_rate=1e12)
    found = compute.matmul(scenario, plain(memory=0.5), 1, 1000, 2000)
    moved = 2 * (2000 + 2000 * 1000) + 2 * 1000
    assert number(found) == pytest.approx(moved / 0.5e12)


def test_eight_bits_halve_the_bytes_of_the_inputs_and_not_of_the_answer() -> None:
    scenario = one_scenario(
        matmul_format=1, matmul_flops=1e18, matmul_efficiency=1.0, memory_rate=1e12
    )
    found = compute.matmul(scenario, plain(), 10, 1000, 2000)
    assert number(found) == pytest.approx((10 * 2000 + 2000 * 1000 + 2 * 10 * 1000) / 1e12)


def test_copies_of_a_matmul_follow_each_other() -> None:
    scenario = one_scenario()
    once = compute.matmul(scenario, plain(), 128, 256, 512)
    assert number(compute.matmul(scenario, plain(), 128, 256, 512, 7)) == pytest.approx(
        7 * number(once)
    )


# ---------------------------------------------------------------------- matmuls of a layer


def flops_of(shape: Shape, seq: int, tp: int = 1) -> float:
    """Forward FLOPs of one rank's projections of one layer, by listing its matrices."""
    width, attention = shape.hidden_size, shape.attention
    if isinstance(attention, Mla):
        matrices = [
            (
                width,
                attention.q_lora_rank + attention.kv_lora_rank + attention.qk_rope_head_dim,
                1,
            ),  # not split
            (
                attention.q_lora_rank,
                attention.num_attention_heads
                * (attention.qk_nope_head_dim + attention.qk_rope_head_dim),
                tp,
            ),
            (
                attention.kv_lora_rank,
                attention.num_attention_heads * (attention.qk_nope_head_dim + attention.v_head_dim),
                tp,
            ),
            (attention.num_attention_heads * attention.v_head_dim, width, tp),
        ]
    else:
        columns = (
            attention.num_attention_heads + 2 * attention.num_key_value_heads
        ) * attention.head_dim
        matrices = [
            (width, columns, tp),
            (attention.num_attention_heads * attention.head_dim, width, tp),
        ]
    return sum(2.0 * seq * a * b / share for a, b, share in matrices)


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("shape", [dense(), mixture()], ids=["grouped", "latent"])
def test_attention_projections(shape: Shape, tp: int) -> None:
    """Arithmetic alone: the bytes are made free."""
    layout = Layout(tp=tp, dp=1, micro_batch=2)
    scenario = one_scenario(
        layout, workload(shape, 1024, 8), matmul_efficiency=1.0, memory_rate=1e18
    )
    found = number(compute.attention_matmuls(scenario, plain()))
    assert found == pytest.approx(flops_of(shape, 2 * 1024, tp) / cards()["a100"].bf16_flops)


@pytest.mark.parametrize(("gated", "matrices"), [(True, 3), (False, 2)])
def test_a_feed_forward_has_three_matrices_or_two(gated: bool, matrices: int) -> None:
    shape = dense(gated=gated)
    scenario = one_scenario(
        Layout(tp=2), workload(shape, 1024), matmul_efficiency=1.0, memory_rate=1e18
    )
    found = number(compute.feed_matmuls(scenario, plain(), scenario.intermediate_size))
    flops = 2.0 * 1024 * shape.hidden_size * shape.intermediate_size * matrices / 2
    assert found == pytest.approx(flops / cards()["a100"].bf16_flops)
    assert number(compute.feed_matmuls(scenario, plain(), 0.0)) == 0.0


def test_an_expert_sees_its_share_of_the_groups_tokens() -> None:
    """Two of eight experts a token, four ranks of 1,024 tokens: 4 x 1024 x 2 / 8 tokens an expert."""
    scenario = one_scenario(Layout(dp=4, ep=4), workload(mixture(), 1024, 8))
    assert number(compute.expert_tokens(scenario)) == 1024.0
    split = one_scenario(Layout(tp=2, dp=2, ep=4), workload(mixture(), 1024, 8))
    assert number(compute.expert_tokens(split)) == 512.0  # two ranks share a sequence


def test_experts_do_the_same_arithmetic_on_any_number_of_ranks() -> None:
    """Each rank has its own tokens, so expert parallelism moves work and adds none."""
    shape = mixture()
    rate = cards()["a100"].bf16_flops
    for ep in (1, 2, 4, 8):
        scenario = one_scenario(
            Layout(dp=8, ep=ep), workload(shape, 1024, 8), matmul_efficiency=1.0, memory_rate=1e18
        )
        flops = 2.0 * 1024 * 2 * 3 * shape.hidden_size * shape.experts.moe_intermediate_size
        found = number(compute.expert_matmuls(scenario, plain(grouped=1.25)))
        assert found == pytest.approx(1.25 * flops / rate)
    assert number(compute.expert_matmuls(one_scenario(), plain())) == 0.0


# ---------------------------------------------------------------------- attention core


def core_flops(tokens: int, context: float, heads: int, dim: int, causal: float = 0.5) -> float:
    """Scores and weighted values: two matmuls of `context` columns for every token and head."""
    return tokens * context * heads * 2 * (dim + dim) * causal


@pytest.mark.parametrize(("kernel", "constant"), [(1, "flash1"), (2, "flash2"), (3, "flash3")])
def test_flash_attention_takes_its_arithmetic(kernel: int, constant: str) -> None:
    scenario = one_scenario(kernel=kernel)
    found = number(compute.core_forward(scenario, plain(**{constant: 0.5})))
    flops = core_flops(2048, 2048, 8, 64)
    assert found == pytest.approx(flops / (0.5 * cards()["a100"].bf16_flops))


@pytest.mark.parametrize(("generation", "share"), [(0, 1.0), (1, 0.5), (2, 0.25), (3, 1.0)])
def test_flash_attention_by_generation(generation: int, share: float) -> None:
    scenario = one_scenario(kernel=2, generation=generation)
    physics = plain(flash_hopper=0.5, flash_blackwell=0.25)
    flops = core_flops(2048, 2048, 8, 64)
    found = number(compute.core_forward(scenario, physics))
    assert found == pytest.approx(flops / (share * cards()["a100"].bf16_flops))


def test_small_heads_and_short_sequences_leave_units_idle() -> None:
    """A head as wide as its knee runs at half the rate; so does a context as long as its knee."""
    scenario = one_scenario(kernel=2)
    free = number(compute.core_forward(scenario, plain()))
    assert number(compute.core_forward(scenario, plain(head_knee=64.0))) == pytest.approx(2 * free)
    assert number(compute.core_forward(scenario, plain(context_knee=2048.0))) == pytest.approx(
        2 * free
    )


def test_a_window_bounds_the_context() -> None:
    """512 of 2,048 tokens: all but the first window are full, so 1 - 512 / 4096 of the window's pairs count."""
    scenario = one_scenario(kernel=2, asked=workload(dense(window=512)))
    flops = core_flops(2048, 512, 8, 64, causal=1 - 0.5 * 512 / 2048)
    found = number(compute.core_forward(scenario, plain()))
    assert found == pytest.approx(flops / cards()["a100"].bf16_flops)
    # by counting: token i sees min(i, 512) tokens, itself included half
    pairs = sum(min(i + 0.5, 512) for i in range(2048))
    assert pairs == pytest.approx(2048 * 512 * (1 - 0.5 * 512 / 2048), rel=1e-3)


def test_a_window_longer_than_the_sequence_is_full_attention() -> None:
    wide = one_scenario(kernel=2, asked=workload(dense(window=1 << 20)))
    full = one_scenario(kernel=2)
    assert number(compute.core_forward(wide, plain())) == number(
        compute.core_forward(full, plain())
    )


def test_unfused_attention_moves_its_scores() -> None:
    """All pairs, causal or not, by batched matmuls, and `score_bytes` for every score."""
    scenario = one_scenario(kernel=0, matmul_efficiency=1.0)
    physics = plain(batched=0.5, score_bytes=11.0, memory=0.5)
    card = cards()["a100"]
    arithmetic = core_flops(2048, 2048, 8, 64, causal=1.0) / (0.5 * card.bf16_flops)
    scores = 11.0 * 2048 * 2048 * 8 / (0.5 * card.memory_rate)
    assert number(compute.core_forward(scenario, physics)) == pytest.approx(arithmetic + scores)
    slower = plain(batched=0.5, score_bytes=11.0, memory=0.5, softmax_unfused=3.0)
    eager = one_scenario(kernel=4, matmul_efficiency=1.0)
    assert number(compute.core_forward(eager, slower)) == pytest.approx(arithmetic + 3 * scores)
    assert number(compute.core_forward(scenario, slower)) == pytest.approx(arithmetic + scores)


def test_unaligned_heads_are_slow_without_flash() -> None:
    """Heads that are no multiple of 8 wide miss the tensor cores' layout."""
    scenario = one_scenario(
        kernel=0, asked=workload(dense(head_dim=60)), matmul_efficiency=1.0, memory_rate=1e18
    )
    flops = core_flops(2048, 2048, 8, 60, causal=1.0)
    found = number(compute.core_forward(scenario, plain(unaligned=3.0)))
    assert found == pytest.approx(3.0 * flops / cards()["a100"].bf16_flops)


def test_the_core_is_split_over_tensor_ranks() -> None:
    whole, half = one_scenario(kernel=2), one_scenario(Layout(tp=2), kernel=2)
    assert number(compute.core_forward(half, plain())) == pytest.approx(
        number(compute.core_forward(whole, plain())) / 2
    )


@pytest.mark.parametrize(("kernel", "times"), [(0, 2.0), (1, 2.5), (2, 2.5), (3, 2.5), (4, 2.0)])
def test_backward_of_the_core(kernel: int, times: float) -> None:
    """Flash recomputes the scores: five matmuls instead of two (arXiv 2307.08691, section 3.2)."""
    scenario = one_scenario(kernel=kernel)
    forward = number(compute.core_forward(scenario, plain()))
    assert number(compute.core_backward(scenario, plain())) == pytest.approx(times * forward)


# ---------------------------------------------------------------------- elementwise operators


def test_elementwise_bytes_of_a_dense_layer() -> None:
    """22 h for norms and residuals, 8 for a query element and 1 each of k and v, and 10 of the activation.

    The layer has h = 512, 8 heads of 64, 2 x 2 x 64 elements of keys and values, 2,048 inner columns and 3 matrices.
    """
    scenario = one_scenario(memory_rate=1e12)
    moved = 22 * 512 + 8 * (8 * 64 + 2 * 2 * 64) + (4 * 2 + 2) * 2048
    found = number(compute.elementwise(scenario, plain(memory=0.5), scenario.intermediate_size))
    assert found == pytest.approx(2048 * moved / 0.5e12)


def test_tensor_ranks_split_the_norms_only_under_sequence_parallelism() -> None:
    inner = 4 * (8 * (8 * 64 + 256) + 10 * 2048) / 4 / 4  # bytes of what is always split
    for sequence_parallel, norms in ((False, 22 * 512), (True, 22 * 512 / 4)):
        layout = Layout(tp=4, sequence_parallel=sequence_parallel)
        scenario = one_scenario(layout, memory_rate=1e12)
        found = number(compute.elementwise(scenario, plain(), scenario.intermediate_size))
        assert found == pytest.approx(2048 * (norms + inner) / 1e12)


def test_eight_bits_add_casts() -> None:
    """Four bytes more for each element of the residual stream and of the activation."""
    plainly = number(compute.elementwise(one_scenario(memory_rate=1e12), plain(), 2048.0))
    casting = number(
        compute.elementwise(one_scenario(memory_rate=1e12, matmul_format=1), plain(), 2048.0)
    )
    assert casting - plainly == pytest.approx(2048 * 4 * (512 + 2048) / 1e12)


@pytest.mark.parametrize(("fused", "times"), [(0, 1.5), (1, 1.0), (2, 0.6)])
def test_fusion_changes_elementwise_time(fused: int, times: float) -> None:
    physics = plain(eager=1.5, compiled=0.6)
    base = number(compute.elementwise(one_scenario(), plain(), 2048.0))
    found = number(compute.elementwise(one_scenario(fusion=fused), physics, 2048.0))
    assert found == pytest.approx(times * base)


def test_routing_moves_every_copy_of_a_token() -> None:
    """Two copies a token: `permute` passes of 2 h bytes and the expert's activation, 10 bytes an element."""
    scenario = one_scenario(asked=workload(mixture(), 1024), memory_rate=1e12)
    found = number(compute.routing(scenario, plain(permute=9.0, permute_fused=7.0)))
    assert found == pytest.approx(1024 * 2 * (9 * 256 * 2 + 10 * 128) / 1e12)
    wide = one_scenario(asked=workload(mixture(), 1024), memory_rate=1e12, domain=72, node=4)
    found = number(compute.routing(wide, plain(permute=9.0, permute_fused=7.0)))
    assert found == pytest.approx(1024 * 2 * (7 * 256 * 2 + 10 * 128) / 1e12)
    assert number(compute.routing(one_scenario(), plain())) == 0.0


def test_the_head_is_a_matmul_and_a_loss() -> None:
    """4,096 logits a token, ten bytes each for the fp32 cross entropy; tensor ranks split the vocabulary."""
    scenario = one_scenario(
        Layout(tp=2), matmul_efficiency=1.0, memory_rate=1e12, matmul_flops=1e12
    )
    found = number(compute.head_forward(scenario, plain()))
    arithmetic = 2.0 * 2048 * 512 * 2048 / 1e12
    assert found == pytest.approx(arithmetic + 10 * 2048 * 2048 / 1e12)
    predicting = one_scenario(
        Layout(tp=2),
        matmul_efficiency=1.0,
        memory_rate=1e12,
        matmul_flops=1e12,
        num_nextn_predict_layers=2,
    )
    assert number(compute.head_forward(predicting, plain())) == pytest.approx(3 * found)
