"""Shapes: what the arithmetic says is what torch holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.core.shape import Experts, Gqa, Mla, Shape

EVEN = st.sampled_from((2, 4, 8))
SMALL = st.integers(1, 6)


@st.composite
def gqas(draw: st.DrawFn) -> Gqa:
    groups = draw(st.integers(1, 3))
    return Gqa(
        num_attention_heads=groups * draw(st.integers(1, 3)),
        num_key_value_heads=groups,
        head_dim=draw(EVEN),
    )


@st.composite
def mlas(draw: st.DrawFn) -> Mla:
    q_rank = draw(st.none() | SMALL)
    return Mla(
        num_attention_heads=draw(st.integers(1, 3)),
        kv_lora_rank=draw(SMALL),
        q_lora_rank=q_rank,
        qk_nope_head_dim=draw(SMALL),
        qk_rope_head_dim=draw(EVEN),
        v_head_dim=draw(SMALL),
    )


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Small shapes: dense and mixtures, latent and grouped, tied and not."""
    layers = draw(st.integers(1, 3))
    experts = None
    if layers > 1 and draw(st.booleans()):
        routed = draw(st.integers(1, 4))
        experts = Experts(
            n_routed_experts=routed,
            num_experts_per_tok=draw(st.integers(1, routed)),
            moe_intermediate_size=draw(SMALL),
            n_shared_experts=draw(st.integers(0, 2)),
            first_k_dense_replace=draw(st.integers(0, layers - 1)),
        )
    return Shape(
        hidden_size=draw(SMALL), num_hidden_layers=layers, intermediate_size=draw(SMALL), attention=draw(gqas() | mlas()), experts=experts,
        vocab_size=draw(st.integers(1, 9)), tie_word_embeddings=draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=60)
@given(shapes())
def test_parameters_are_what_torch_holds(shape: Shape) -> None:
    from tumen.model import build

    assert shape.parameters() == sum(weight.numel() for weight in build(shape).parameters())


@given(shapes())
def test_active_parameters_leave_out_the_experts_that_sleep(shape: Shape) -> None:
    asleep = 0
    if shape.experts:
        asleep = (
            shape.moe_layers
            * (shape.experts.n_routed_experts - shape.experts.num_experts_per_tok)
            * 3
            * shape.hidden_size
            * shape.experts.moe_intermediate_size
        )
    assert shape.active_parameters() == shape.parameters() - asleep


@settings(max_examples=30)
@given(shapes())
def test_cache_elements_are_what_a_cache_holds(shape: Shape) -> None:
    import torch

    from tumen.model import Cache, build

    caches = [Cache() for _ in range(shape.num_hidden_layers)]
    ids = torch.zeros(1, 3, dtype=torch.long)
    with torch.inference_mode():
        build(shape).eval()(ids, torch.arange(3)[None], torch.zeros(1, 1, 3, 3), caches)
    assert sum(cache.elements() for cache in caches) == shape.cache_elements()
    assert shape.cache_bytes(8) == shape.cache_elements()


@given(shapes(), st.integers(1, 100))
def test_flops_grow_with_the_context_alone(shape: Shape, context: int) -> None:
    v_dim = (
        shape.attention.v_head_dim if isinstance(shape.attention, Mla) else shape.attention.head_dim
    )
    a_token = (
        2
        * shape.num_hidden_layers
        * shape.attention.num_attention_heads
        * (shape.attention.query_dim + v_dim)
    )
    assert shape.flops_per_token(context + 1) - shape.flops_per_token(context) == a_token


DEEPSEEK_V2 = Shape(
    hidden_size=5120, num_hidden_layers=60, intermediate_size=12288, vocab_size=102_400, tie_word_embeddings=False,
    attention=Mla(num_attention_heads=128, kv_lora_rank=512, q_lora_rank=1536, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
    experts=Experts(n_routed_experts=160, num_experts_per_tok=6, moe_intermediate_size=1536, n_shared_experts=2, first_k_dense_replace=1),
)  # fmt: skip
V2_LITE = Shape(
    hidden_size=2048, num_hidden_layers=27, intermediate_size=10944, vocab_size=102_400, tie_word_embeddings=False,
    attention=Mla(num_attention_heads=16, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
    experts=Experts(n_routed_experts=64, num_experts_per_tok=6, moe_intermediate_size=1408, n_shared_experts=2, first_k_dense_replace=1),
)  # fmt: skip
LLAMA_2_7B = Shape(
    hidden_size=4096,
    num_hidden_layers=32,
    intermediate_size=11008,
    vocab_size=32_000,
    tie_word_embeddings=False,
    attention=Gqa(num_attention_heads=32, num_key_value_heads=32, head_dim=128),
)


def test_deepseek_v2_is_as_published() -> None:
    """arXiv 2405.04434: 236B parameters, 21B active, table 1: (512 + 64) * 60 elements of cache."""
    assert round(DEEPSEEK_V2.parameters() / 1e9) == 236
    assert round(DEEPSEEK_V2.active_parameters() / 1e9) == 21
    assert DEEPSEEK_V2.cache_elements() == 34_560


def test_v2_lite_is_as_published() -> None:
    """arXiv 2405.04434, appendix B: 15.7B parameters."""
    assert round(V2_LITE.parameters() / 1e9, 1) == 15.7


def test_llama_is_as_published() -> None:
    """The checkpoint meta-llama/Llama-2-7b holds 6,738,415,616 weights."""
    assert LLAMA_2_7B.parameters() == 6_738_415_616
    assert LLAMA_2_7B.active_parameters() == LLAMA_2_7B.parameters()


def test_only_two_kinds_of_attention() -> None:
    with pytest.raises(ValueError, match="does not match any of the expected tags"):
        Shape.model_validate(
            {
                "hidden_size": 1,
                "num_hidden_layers": 1,
                "intermediate_size": 1,
                "attention": {"kind": "mqa", "num_attention_heads": 1},
            }
        )


def test_a_copy_refuses_a_field_that_does_not_exist() -> None:
    gqa = Gqa(num_attention_heads=4, num_key_value_heads=2)
    assert gqa.model_copy(update={"head_dim": 8}).head_dim == 8
    assert gqa.model_copy() == gqa
    with pytest.raises(TypeError, match="Gqa has no field head_dims, heads"):
        gqa.model_copy(update={"heads": 2, "head_dims": 8})
