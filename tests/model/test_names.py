"""Names: every shape goes out and comes back bit by bit, or says in one line why not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.shapes import SHAPES

from tumen.core.errors import ExportError, InputError, TumenError
from tumen.core.shape import Experts, Mla, Shape
from tumen.formats.hf_config import config_of, shape_of
from tumen.model import build
from tumen.model.names import from_public, interleave, names_of, sizes_of, to_public
from tumen.model.names.public_names import halve

OUT = {name: shape.model_copy(update={"rms_norm_eps": 1e-6}) for name, shape in SHAPES.items()}
GO_OUT = {
    "gqa",
    "mha",
    "mla",
    "mla without query rank",
    "mla, stretched",
    "mla moe",
    "mla moe on devices",
}


def one_line(error: pytest.ExceptionInfo[TumenError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", OUT)
def test_out_and_back_bit_by_bit_or_refused_in_one_line(name: str) -> None:
    shape = OUT[name]
    weights = build(shape, 3).state_dict()
    if name not in GO_OUT:
        with pytest.raises(ExportError) as caught:
            to_public(shape, weights)
        one_line(caught)
        return
    public = to_public(shape, weights)
    assert {one.public: one.size for one in names_of(shape)} == {
        key: tuple(weight.shape) for key, weight in public.items()
    }
    assert sum(weight.numel() for weight in public.values()) == shape.parameters()
    back = from_public(shape, public)
    assert list(back) == list(weights)
    assert all(torch.equal(back[key], weight) for key, weight in weights.items())
    assert shape_of(config_of(shape)) == shape


def test_experts_are_matrices_of_their_own_there() -> None:
    shape = OUT["mla moe"]
    weights = build(shape, 1).state_dict()
    public = to_public(shape, weights)
    third = public["model.layers.1.mlp.experts.3.down_proj.weight"]
    assert torch.equal(third, weights["blocks.1.feed.down"][3].T)
    assert "model.layers.0.mlp.experts.0.down_proj.weight" not in public, "the first layer is dense"


def test_a_large_shape_is_named_without_being_held() -> None:
    """DeepSeek-V2-Lite: 15.7 billion weights (arXiv 2405.04434, appendix B)."""
    shape = Shape(
        hidden_size=2048, num_hidden_layers=27, intermediate_size=10944, vocab_size=102_400, tie_word_embeddings=False, rms_norm_eps=1e-6,
        attention=Mla(num_attention_heads=16, kv_lora_rank=512), experts=Experts(n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=1408),
    )  # fmt: skip
    names = list(names_of(shape))
    assert (
        len({name.public for name in names}) == len(names) == 3 + 27 * 7 + 3 + 26 * (1 + 3 * 64 + 3)
    )
    assert (
        sum(torch.Size(name.size).numel() for name in names) == shape.parameters() == 15_706_484_224
    )


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 4), st.integers(1, 3))
def test_halves_and_neighbours_undo_each_other(
    heads: int, plain: int, half: int, inner: int
) -> None:
    rows = torch.arange(heads * (plain + 2 * half) * inner, dtype=torch.float32).view(-1, inner)
    assert torch.equal(halve(interleave(rows, heads, 2 * half), heads, 2 * half), rows)
    assert torch.equal(interleave(halve(rows, heads, 2 * half), heads, 2 * half), rows)


class TestRefused:
    def test_a_weight_without_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as the correction bias of DeepSeek-V3, or a layer that predicts further tokens."""
        shape = OUT["mla moe"]
        sizes = sizes_of(shape) | {"blocks.1.feed.bias": (4,)}
        monkeypatch.setattr("tumen.model.names.public_names.sizes_of", lambda _: sizes)
        with pytest.raises(
            ExportError, match=r"blocks\.1\.feed\.bias: DeepseekV2ForCausalLM has no such weight"
        ) as caught:
            list(names_of(shape))
        one_line(caught)

    @pytest.mark.parametrize(
        "field",
        [
            {"num_nextn_predict_layers": 1},
            {"window": 9},
            {"gated": False},
            {"biases": True, "n_positions": 8},
        ],
    )
    @pytest.mark.parametrize("name", ["gqa", "mla"])
    def test_what_neither_architecture_has(self, name: str, field: dict[str, object]) -> None:
        with pytest.raises(ExportError) as caught:
            config_of(OUT[name].model_copy(update=field))
        assert all(f"shape.{key}" in one_line(caught) for key in field)

    def test_a_weight_of_ours_is_missing(self) -> None:
        weights = build(OUT["gqa"]).state_dict()
        del weights["norm.weight"]
        with pytest.raises(ExportError, match=r"norm\.weight is missing") as caught:
            to_public(OUT["gqa"], weights)
        one_line(caught)

    @pytest.mark.parametrize("name", ["gqa", "mla moe"])
    def test_public_weights_that_do_not_fit(self, name: str) -> None:
        public = to_public(OUT[name], build(OUT[name]).state_dict())
        key = "model.layers.1.self_attn.o_proj.weight"
        cases = {
            f"{key} is missing": {
                other: weight for other, weight in public.items() if other != key
            },
            "odd is unknown": public | {"odd": torch.zeros(1)},
            f"{key} is (3, 3), not": public | {key: torch.zeros(3, 3)},
            "(and 1 more)": public | {"odd": torch.zeros(1), "odder": torch.zeros(1)},
        }
        for part, weights in cases.items():
            with pytest.raises(InputError) as caught:
                from_public(OUT[name], weights)
            assert part in one_line(caught)
