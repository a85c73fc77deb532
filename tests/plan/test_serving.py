"""Serving: rates, one replica, and a fleet of them, each by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.plan.networks import dense, mixture

from tumen.core.errors import PlanError
from tumen.core.shape import Shape
from tumen.plan import Demand, ServedModel, rate_of, size_serving, workload_of
from tumen.plan.facts import cards
from tumen.plan.serving import decode_seconds, prefill_seconds, replica_accelerators
from tumen.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def shape():
    return workload_of(load_recipe(RECIPES / "milm-6b.toml")).shape


def served(shape: Shape, bits: float = 16, cache_bits: float = 16) -> ServedModel:
    return ServedModel(shape, cards()["h800"], bits, cache_bits)


def demand(**fields: float) -> Demand:
    return Demand(**{"devices": 120e6, "requests_per_day": 1.0, "on_device": 0.7, **fields})


# ---------------------------------------------------------------------- demand


@pytest.mark.parametrize(
    ("text", "a_day"),
    [
        ("1/day", 1.0),
        ("2/hour", 48.0),
        ("2/h", 48.0),
        ("7/week", 1.0),
        ("14/w", 2.0),
        ("5/d", 5.0),
        ("3", 3.0),
        ("1k/day", 1000.0),
    ],
)
def test_rates(text: str, a_day: float) -> None:
    assert rate_of(text) == pytest.approx(a_day)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"on_device": 1.5}, "nearest legal value is 1"),
        ({"on_device": -0.5}, "nearest legal value is 0"),
        ({"devices": 0}, "above 0"),
        ({"requests_per_day": 0}, "above 0"),
    ],
)
def test_nonsense_demands(shape, fields: dict[str, float], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        size_serving(served(shape, 16, 16), demand(**fields), 2.0, "USD")
    with pytest.raises(PlanError, match="is not a period"):
        rate_of("1/blink")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_on_the_device_is_legal(shape, share: float) -> None:
    found = size_serving(served(shape, 16, 16), demand(on_device=share), 2.0, "USD")
    assert (found.cards == 0) == (share == 1.0)
    assert found.cloud_peak_requests == pytest.approx(found.peak_requests * (1 - share))
    if share == 1.0:
        assert found.money_per_million_tokens == found.money_per_day == 0.0


# ---------------------------------------------------------------------- one replica


def test_cards_of_a_replica_are_a_power_of_two() -> None:
    """Weights take at most two thirds of the nine tenths that weights and cache may have."""
    card = cards()["h800"]
    network = dense(12)
    room = card.memory_bytes * 0.9 * 2 / 3
    for bits in (4, 16, 10_000, 100_000):
        found = replica_accelerators(ServedModel(network, card, bits))
        need = network.parameters() * bits / 8
        assert found == 2 ** round(math.log2(found))
        assert need <= found * room
        assert found == 1 or need > found / 2 * room


def test_decoding_reads_weights_and_caches() -> None:
    """A token of every sequence: the weights once, each cache, at three quarters of the memory rate."""
    card, network = cards()["h800"], dense(12)
    found = decode_seconds(served(network), 2, 10, cache_bytes=1e9)
    moved = network.parameters() * 2 + 10 * 1e9
    assert found == pytest.approx(moved / (2 * card.memory_rate * 0.75))


def test_large_batches_decode_at_half_the_peak() -> None:
    card, network = cards()["h800"], dense(12)
    found = decode_seconds(served(network), 2, 100_000, cache_bytes=0.0)
    flops = 2.0 * network.active_parameters() * 100_000
    assert found == pytest.approx(flops / (2 * card.bf16_flops * 0.5))


def test_a_batch_wakes_the_experts_its_tokens_chose() -> None:
    """Two of eight experts a token: one sequence reads a quarter of them, many read all."""
    card, network = cards()["h800"], mixture(9)
    active, every = network.active_parameters(), network.parameters()
    rate = card.memory_rate * 0.75
    one = decode_seconds(served(network), 1, 1, 0.0)
    assert one == pytest.approx((active + (every - active) / 4) * 2 / rate, rel=1e-6)
    two = decode_seconds(served(network), 1, 2, 0.0)
    assert two == pytest.approx((active + (every - active) * (1 - 0.75**2)) * 2 / rate, rel=1e-6)


def test_a_prompt_is_arithmetic() -> None:
    """Each of its tokens sees half of the prompt, on average."""
    card, network = cards()["h800"], dense(12)
    found = prefill_seconds(served(network), 2, 600)
    expected = 600 * network.flops_per_token(300) / (2 * card.bf16_flops * 0.5)
    assert found == pytest.approx(expected)


# ---------------------------------------------------------------------- a fleet


def test_serving_of_120_million_devices(shape) -> None:
    found = size_serving(served(shape, 16, 16), demand(), 2.0, "USD")
    assert found.mean_requests == pytest.approx(1389, abs=1)
    assert found.cloud_peak_requests == pytest.approx(found.peak_requests * 0.3)
    assert found.cards >= 1
    everything = size_serving(served(shape, 16, 16), demand(on_device=1.0), 2.0, "USD")
    assert everything.cards == 0
    smaller = size_serving(served(shape, 4, 4), demand(), 2.0, "USD")
    assert smaller.cards <= found.cards


def test_a_fleet_by_hand(shape) -> None:
    card = cards()["h800"]
    found = size_serving(
        served(shape, 8), demand(prompt_tokens=500, answer_tokens=100, peak_over_mean=4), 2.5, "EUR"
    )
    mean = 120e6 / 86400
    assert found.mean_requests == pytest.approx(mean)
    assert found.peak_requests == pytest.approx(4 * mean)
    assert found.mean_tokens == pytest.approx(600 * mean)
    assert found.peak_tokens == pytest.approx(2400 * mean)
    each = found.cards_a_replica
    assert each == replica_accelerators(served(shape, 8))
    cache = shape.cache_bytes(16) * 600
    room = each * card.memory_bytes * 0.9 - shape.parameters()
    assert found.sequences_a_replica == min(int(room / cache), 512)
    token = decode_seconds(served(shape, 8), each, found.sequences_a_replica, cache)
    first = prefill_seconds(served(shape, 8), each, 500)
    assert (found.token_seconds, found.first_token_seconds) == pytest.approx((token, first))
    requests = 0.7 / (100 * token / found.sequences_a_replica + first)
    assert found.replica_requests == pytest.approx(requests)
    assert found.replica_tokens == pytest.approx(600 * requests)
    replicas = math.ceil(4 * mean * 0.3 / requests)
    assert found.cards == replicas * each
    assert found.money_per_day == pytest.approx(replicas * each * 2.5 * 24)
    tokens_a_day = 120e6 * 0.3 * 600
    assert found.money_per_million_tokens == pytest.approx(found.money_per_day / tokens_a_day * 1e6)
    assert found.currency == "EUR"


def test_a_replica_has_at_least_one_sequence(shape) -> None:
    """A prompt too long for any cache still decodes one at a time (the sizing says so, not that it fits)."""
    huge = size_serving(served(shape, 16, 16), demand(prompt_tokens=1e9), 2.0, "USD")
    assert huge.sequences_a_replica == 1
