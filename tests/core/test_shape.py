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
    return Gqa(heads=groups * draw(st.integers(1, 3)), kv_heads=groups, head_dim=draw(EVEN))


@st.composite
def mlas(draw: st.DrawFn) -> Mla:
    q_rank = draw(st.none() | SMALL)
    return Mla(
        heads=draw(st.integers(1, 3)),
        kv_rank=draw(SMALL),
        q_rank=q_rank,
        nope_dim=draw(SMALL),
        rope_dim=draw(EVEN),
        v_dim=draw(SMALL),
    )


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Small shapes: dense and mixtures, latent and grouped, tied and not."""
    layers = draw(st.integers(1, 3))
    experts = None
    if layers > 1 and draw(st.booleans()):
        routed = draw(st.integers(1, 4))
        experts = Experts(
            routed=routed,
            top_k=draw(st.integers(1, routed)),
            width=draw(SMALL),
            shared=draw(st.integers(0, 2)),
            dense_layers=draw(st.integers(0, layers - 1)),
        )
    return Shape(
        width=draw(SMALL), layers=layers, feed_forward=draw(SMALL), attention=draw(gqas() | mlas()), experts=experts,
        vocab=draw(st.integers(1, 9)), tied=draw(st.booleans()),
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
            * (shape.experts.routed - shape.experts.top_k)
            * 3
            * shape.width
            * shape.experts.width
        )
    assert shape.active_parameters() == shape.parameters() - asleep


@settings(max_examples=30)
@given(shapes())
def test_cache_elements_are_what_a_cache_holds(shape: Shape) -> None:
    import torch

    from tumen.model import Cache, build

    caches = [Cache() for _ in range(shape.layers)]
    ids = torch.zeros(1, 3, dtype=torch.long)
    with torch.inference_mode():
        build(shape).eval()(ids, torch.arange(3)[None], torch.zeros(1, 1, 3, 3), caches)
    assert sum(cache.elements() for cache in caches) == shape.cache_elements()
    assert shape.cache_bytes(8) == shape.cache_elements()


@given(shapes(), st.integers(1, 100))
def test_flops_grow_with_the_context_alone(shape: Shape, context: int) -> None:
    v_dim = shape.attention.v_dim if isinstance(shape.attention, Mla) else shape.attention.head_dim
    a_token = 2 * shape.layers * shape.attention.heads * (shape.attention.query_dim + v_dim)
    assert shape.flops_per_token(context + 1) - shape.flops_per_token(context) == a_token


DEEPSEEK_V2 = Shape(
    width=5120, layers=60, feed_forward=12288, vocab=102_400, tied=False,
    attention=Mla(heads=128, kv_rank=512, q_rank=1536, nope_dim=128, rope_dim=64, v_dim=128),
    experts=Experts(routed=160, top_k=6, width=1536, shared=2, dense_layers=1),
)  # fmt: skip
V2_LITE = Shape(
    width=2048, layers=27, feed_forward=10944, vocab=102_400, tied=False,
    attention=Mla(heads=16, kv_rank=512, nope_dim=128, rope_dim=64, v_dim=128),
    experts=Experts(routed=64, top_k=6, width=1408, shared=2, dense_layers=1),
)  # fmt: skip
LLAMA_2_7B = Shape(
    width=4096,
    layers=32,
    feed_forward=11008,
    vocab=32_000,
    tied=False,
    attention=Gqa(heads=32, kv_heads=32, head_dim=128),
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
            {"width": 1, "layers": 1, "feed_forward": 1, "attention": {"kind": "mqa", "heads": 1}}
        )
