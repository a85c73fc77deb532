"""Whether a model fits, and what to cut: no more than is needed, and what costs least quality first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tumen.core.shape import Gqa, Shape
from tumen.fit.device import decode_seconds, device_of
from tumen.fit.footprint import CACHE_CELLS, Footprint, of_shape
from tumen.fit.verdict import Place, cuts, fit_on, longest_context, memory_of, most_layers

PHONE = device_of("phone-8gb")
SHAPE = Shape(
    hidden_size=2048,
    num_hidden_layers=16,
    intermediate_size=8192,
    vocab_size=128_256,
    attention=Gqa(num_attention_heads=32, num_key_value_heads=8),
)


def model(quantize: str = "bf16") -> Footprint:
    return of_shape(SHAPE, quantize, "llama")


def place(limit: float, context: int = 4096) -> Place:
    return Place(PHONE, 4, context, limit)


def peak(found: Footprint, context: int) -> float:
    return memory_of(found, PHONE, context).total


def test_a_model_fits_up_to_its_peak_and_not_a_byte_below() -> None:
    size = peak(model(), 4096)
    assert fit_on(model(), PHONE, 4, 4096, size).fits
    assert fit_on(model(), PHONE, 4, 4096, size).cuts == ()
    assert not fit_on(model(), PHONE, 4, 4096, size - 1).fits
    assert place(size).holds(model())
    assert not place(size - 1).holds(model())


def test_without_a_limit_the_memory_of_the_device_counts() -> None:
    assert fit_on(model(), PHONE, 4, 512).memory_limit_bytes == PHONE.left_bytes


def test_the_peak_is_all_its_parts() -> None:
    memory = memory_of(model(), PHONE, 4096)
    parts = memory.weights + memory.copies + memory.cache + memory.buffers + memory.runtime
    assert memory.total == parts
    assert memory.weights == sum(model().weight_bytes.values())
    assert memory.cache == model().cache_bytes(4096)


def test_the_speed_is_that_in_the_middle_of_an_answer() -> None:
    found = fit_on(model(), PHONE, 4, 512)
    assert found.tokens_per_second == 1 / decode_seconds(model(), PHONE, 4, 34)
    assert found.load_seconds == model().file_bytes / PHONE.storage_rate


def test_the_context_is_cut_no_more_than_is_needed() -> None:
    limit = (peak(model(), CACHE_CELLS) + peak(model(), 4096)) / 2
    shorter = longest_context(model(), place(limit))
    assert shorter
    assert shorter < 4096
    assert peak(model(), shorter) <= limit < peak(model(), shorter + CACHE_CELLS)


def test_no_context_helps_where_the_weights_are_too_large() -> None:
    assert not longest_context(model(), place(1e9))


def test_layers_are_cut_no_more_than_is_needed() -> None:
    limit = peak(model(), 4096) * 0.7
    layers = most_layers(model(), place(limit))
    assert layers
    assert layers < 16
    assert peak(model().but(layers=layers), 4096) <= limit
    assert peak(model().but(layers=layers + 1), 4096) > limit


def test_no_layers_are_left_where_the_embedding_is_too_large() -> None:
    assert not most_layers(model(), place(1e8))


def test_cuts_begin_with_what_costs_least_quality() -> None:
    limit = (peak(model(), CACHE_CELLS) + peak(model(), 4096)) / 2
    found = [cut.what for cut in cuts(model(), place(limit))]
    shorter = longest_context(model(), place(limit))
    assert found[:3] == [f"context 4096 -> {shorter}", "bf16 -> int8", "bf16 -> int4"]
    assert found[3].startswith("layers 16 -> ")
    assert not any(", " in what for what in found), "all at once only where it must be"


@pytest.mark.parametrize(("quantize", "types"), [("bf16", ["int8", "int4"]), ("int8", ["int4"]), ("int4", [])])  # fmt: skip
def test_a_type_is_cut_to_smaller_ones_alone(quantize: str, types: list[str]) -> None:
    limit = peak(model(quantize), 512) * 0.9
    found = [cut.what for cut in cuts(model(quantize), place(limit, 512))]
    arrows = [what for what in found if what.startswith(f"{quantize} -> ")]
    assert arrows == [f"{quantize} -> {name}" for name in types]


def test_where_no_single_cut_is_enough_all_are_made_at_once() -> None:
    least = replace(place(0), context=CACHE_CELLS)
    limit = peak(model("int4").but(layers=1), CACHE_CELLS) * 1.01
    found = cuts(model(), replace(least, context=4096, limit=limit))
    assert [cut.fits for cut in found[:-1]] == [False] * (len(found) - 1)
    assert found[-1].fits
    assert found[-1].what == f"context {CACHE_CELLS}, int4, layers 16 -> 1"
