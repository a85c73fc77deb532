"""Serving a fleet of devices: requests a second, what stays on the device, cards in the cloud, cost of a million
tokens.

Decoding reads the active weights once a step for the whole batch and each sequence's cache; prefill is arithmetic.
Both take the larger of bytes and flops (arXiv 2211.05102, section 2). The answer is a sizing, not a benchmark: grade
"datasheet".
"""

from __future__ import annotations

import math

from tumen.core import units
from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Shape
from tumen.plan.facts.card import Card

DAY = 86400.0
MEMORY_SHARE = 0.75  # of the memory rate a decode step reaches
FLOPS_SHARE = 0.5  # of the peak a prefill reaches
ROOM_SHARE = 0.9  # of the memory that weights and cache may take
BUSY_SHARE = 0.7  # a card is not filled above this, or queues grow
MOST_SEQUENCES = 512


class Demand(Frozen):
    """What people ask of the assistant."""

    devices: float
    requests_per_day: float
    prompt_tokens: float = 600.0
    answer_tokens: float = 60.0
    on_device: float = 0.7
    peak_over_mean: float = 3.0


class Serving(Frozen):
    """What it takes. Rates are a second; shares are of one."""

    mean_requests: float
    peak_requests: float
    mean_tokens: float
    peak_tokens: float
    on_device: float
    cloud_peak_requests: float
    cards_a_replica: int
    sequences_a_replica: int
    replica_tokens: float
    replica_requests: float
    token_seconds: float
    first_token_seconds: float
    cards: int
    money_per_million_tokens: float
    money_per_day: float
    currency: str
    grade: str = "datasheet"


def rate_of(text: str) -> float:
    """Requests a day from `1/day`, `20/week` or a number.

    Raises:
        PlanError: something else.
    """
    number, _, period = text.partition("/")
    days = {"": 1.0, "day": 1.0, "d": 1.0, "hour": 1 / 24, "h": 1 / 24, "week": 7.0, "w": 7.0}
    if period not in days:
        raise PlanError(
            f"--requests {text!r}: {period!r} is no period; write 1/day, 5/hour or 10/week"
        )
    return units.count(number) / days[period]


def size(
    shape: Shape,
    demand: Demand,
    card: Card,
    bits: float,
    cache_bits: float,
    price: float,
    currency: str,
) -> Serving:
    """Cards and money for a demand on one model.

    Raises:
        PlanError: a demand below zero, a share outside 0..1.
    """
    if demand.devices <= 0 or demand.requests_per_day <= 0:
        raise PlanError(
            "--devices and --requests must be above 0; the least that makes sense is 1 and 1/day"
        )
    if not 0 <= demand.on_device <= 1:
        raise PlanError(
            f"--on-device {demand.on_device:g} is no share; the nearest legal value is {min(max(demand.on_device, 0), 1):g}"
        )
    mean = demand.devices * demand.requests_per_day / DAY
    peak = mean * demand.peak_over_mean
    cloud = peak * (1 - demand.on_device)
    cards_each = replica_cards(shape, card, bits)
    room = cards_each * card.memory_bytes * ROOM_SHARE - shape.parameters() * bits / 8
    context = demand.prompt_tokens + demand.answer_tokens
    cache = shape.cache_bytes(cache_bits) * context
    sequences = max(int(min(room / cache, MOST_SEQUENCES)), 1)
    token = decode_seconds(shape, card, cards_each, sequences, bits, cache)
    first = prefill_seconds(shape, card, cards_each, demand.prompt_tokens)
    busy = demand.answer_tokens * token / sequences + first
    requests = BUSY_SHARE / busy
    replicas = math.ceil(cloud / requests) if cloud else 0
    money_day = replicas * cards_each * price * 24
    tokens_day = mean * (1 - demand.on_device) * context * DAY
    return Serving(
        mean_requests=mean,
        peak_requests=peak,
        mean_tokens=mean * context,
        peak_tokens=peak * context,
        on_device=demand.on_device,
        cloud_peak_requests=cloud,
        cards_a_replica=cards_each,
        sequences_a_replica=sequences,
        replica_tokens=requests * context,
        replica_requests=requests,
        token_seconds=token,
        first_token_seconds=first,
        cards=replicas * cards_each,
        money_per_million_tokens=money_day / tokens_day * 1e6 if tokens_day else 0.0,
        money_per_day=money_day,
        currency=currency,
    )


def replica_cards(shape: Shape, card: Card, bits: float) -> int:
    """Cards that hold the weights with a third of the memory left for caches; a power of two."""
    need = shape.parameters() * bits / 8 / (card.memory_bytes * ROOM_SHARE * 2 / 3)
    return int(2 ** math.ceil(math.log2(max(need, 1.0))))


def decode_seconds(
    shape: Shape, card: Card, cards: int, sequences: int, bits: float, cache_bytes: float
) -> float:
    """One token for every sequence of a batch."""
    weights = shape.parameters()
    if shape.experts:  # a large batch touches every expert, a small one only those its tokens chose
        share = (
            1
            - (1 - shape.experts.num_experts_per_tok / shape.experts.n_routed_experts) ** sequences
        )
        weights = int(
            shape.active_parameters() + (shape.parameters() - shape.active_parameters()) * share
        )
    moved = weights * bits / 8 + sequences * cache_bytes
    flops = 2.0 * shape.active_parameters() * sequences
    return max(
        moved / (cards * card.memory_rate * MEMORY_SHARE),
        flops / (cards * card.bf16_flops * FLOPS_SHARE),
    )


def prefill_seconds(shape: Shape, card: Card, cards: int, prompt_tokens: float) -> float:
    """The prompt of one request."""
    flops = shape.flops_per_token(int(prompt_tokens / 2)) * prompt_tokens
    return flops / (cards * card.bf16_flops * FLOPS_SHARE)
