"""Types: the bytes mean what was computed, to the bit; they are as small as said; and scales are well chosen."""

from __future__ import annotations

import typing

import gguf
import numpy as np
import pytest
import torch

from tumen.core.errors import ExportError
from tumen.recipe.field_types import QuantType
from tumen.shrink.quant_types import QUANTIZERS, Quantizer, fitting

QUANTIZED = [name for name in QUANTIZERS if name != "bf16"]


def rows(kind: str) -> torch.Tensor:
    """Twelve rows of two of the largest blocks."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(12, 512, generator=generator) * 0.05
    if kind == "outliers":
        weights[torch.rand(weights.shape, generator=generator) < 0.01] *= 30
    elif kind == "one sign":
        weights = -weights.abs()
    elif kind == "zeros":
        weights[::2] = 0
        weights[1, :256] = 0
    elif kind == "constant":
        weights[:] = 0.3
    elif kind == "large and small":
        weights *= 10.0 ** torch.arange(-7, 5).unsqueeze(1)
    return weights


def back(quantizer: Quantizer, data: torch.Tensor) -> torch.Tensor:
    """What gguf's own reader makes of bytes."""
    return torch.from_numpy(gguf.quants.dequantize(data.numpy(), quantizer.kind))


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize(
    "kind", ["plain", "outliers", "one sign", "zeros", "constant", "large and small"]
)
def test_what_is_written_is_what_was_computed_to_the_bit(name: QuantType, kind: str) -> None:
    quantizer, weights = QUANTIZERS[name], rows(kind)
    scales = quantizer.fit(weights)
    data, seen = quantizer.encode(weights, scales), quantizer.fake_quantize(weights, scales)
    assert torch.equal(back(quantizer, data), seen)
    assert torch.isfinite(seen).all()
    assert data.numel() == quantizer.bytes_of(weights) == weights.numel() * quantizer.bits / 8


@pytest.mark.parametrize("name", QUANTIZED)
def test_held_scales_give_the_same_bytes_as_the_training_saw(name: QuantType) -> None:
    """Weights move, scales stay: what is seen is what would be written."""
    quantizer, weights = QUANTIZERS[name], rows("plain")
    scales = quantizer.fit(weights)
    moved = weights + 0.01 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(5))
    assert torch.equal(
        back(quantizer, quantizer.encode(moved, scales)), quantizer.fake_quantize(moved, scales)
    )


@pytest.mark.parametrize(("name", "bound"), [("bf16", 0.003), ("q8_0", 0.006), ("q6_k", 0.021), ("q5_k", 0.036), ("q5_0", 0.041),
                                             ("q4_k", 0.073), ("q4_0", 0.083), ("q3_k", 0.155), ("q2_k", 0.31)])  # fmt: skip
def test_error_is_inside_the_bound(name: QuantType, bound: float) -> None:
    weights = rows("plain")
    quantizer = QUANTIZERS[name]
    assert (
        float(
            (quantizer.fake_quantize(weights, quantizer.fit(weights)) - weights).norm()
            / weights.norm()
        )
        < bound
    )


@pytest.mark.parametrize("name", ["q8_0", "q5_0", "q4_0"])
@pytest.mark.parametrize("kind", ["plain", "outliers", "one sign"])
def test_searched_scales_are_no_worse_than_the_formats_usual_rounding(
    name: QuantType, kind: str
) -> None:
    quantizer, weights = QUANTIZERS[name], rows(kind)
    usual = gguf.quants.dequantize(
        gguf.quants.quantize(weights.numpy(), quantizer.kind), quantizer.kind
    )
    searched = quantizer.fake_quantize(weights, quantizer.fit(weights))
    assert float((searched - weights).norm()) <= float(np.linalg.norm(usual - weights.numpy()))


@pytest.mark.parametrize("name", QUANTIZED)
def test_what_counts_more_is_kept_better(name: QuantType) -> None:
    quantizer, weights = QUANTIZERS[name], rows("plain")
    importance = torch.ones(1, 512)
    importance[:, ::4] = 50

    def error(scales: object) -> float:
        return float(
            (importance * (quantizer.fake_quantize(weights, scales) - weights).square()).sum()
        )  # type: ignore[arg-type]

    assert error(quantizer.fit(weights, importance)) < error(quantizer.fit(weights))


def test_many_blocks_are_searched_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, quantizer = rows("outliers"), QUANTIZERS["q4_k"]
    whole = quantizer.fit(weights)
    monkeypatch.setattr("tumen.shrink.quant_types.AT_ONCE", 512)
    assert all(torch.equal(a, b) for a, b in zip(whole, quantizer.fit(weights), strict=True))


def test_what_is_no_number_is_refused() -> None:
    weights = rows("plain")
    weights[3, 7] = torch.nan
    with pytest.raises(ExportError, match="NaN or infinite"):
        QUANTIZERS["q4_0"].fit(weights)


def test_rows_that_no_block_fits_fall_back() -> None:
    assert [fitting(name, 256) for name in QUANTIZERS] == list(QUANTIZERS)
    assert {name: fitting(name, 96) for name in QUANTIZED} == {
        "q8_0": "q8_0", "q6_k": "q8_0", "q5_k": "q5_0", "q5_0": "q5_0", "q4_k": "q4_0", "q4_0": "q4_0", "q3_k": "q4_0", "q2_k": "q4_0",
    }  # fmt: skip
    assert {fitting(name, 48) for name in QUANTIZERS} == {"bf16"}


def test_a_recipe_knows_every_type() -> None:
    assert set(typing.get_args(QuantType)) == set(QUANTIZERS)
