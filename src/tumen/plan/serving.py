"""Size the serving of a fleet of devices: requests, tokens, accelerators in the cloud, cost.

A decode step reads the active weights once for the whole batch, and the cache of each sequence; a
prefill is arithmetic. Both take the larger of bytes and FLOPs (arXiv 2211.05102, section 2). The
answer is a sizing from peaks and shares, not a benchmark: its grade is "datasheet".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tumen.core import units
from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Shape
from tumen.plan.facts import Accelerator

DAY = 86400.0
MEMORY_SHARE = 0.75  # of the memory rate that a decode step reaches
FLOPS_SHARE = 0.5  # of the peak that a prefill reaches
ROOM_SHARE = 0.9  # of the memory that weights and cache may take
BUSY_SHARE = 0.7  # above this load queues grow
MOST_SEQUENCES = 512
DAYS_OF = {"": 1.0, "day": 1.0, "d": 1.0, "hour": 1 / 24, "h": 1 / 24, "week": 7.0, "w": 7.0}


class Demand(Frozen):
    """Requests of a fleet of devices."""

    devices: float
    requests_per_day: float  # of one device
    prompt_tokens: float = 600.0
    answer_tokens: float = 60.0
    on_device: float = 0.7  # share of requests that the device answers itself
    peak_over_mean: float = 3.0


class Serving(Frozen):
    """Accelerators and cost of a demand. Rates are a second, shares are of one."""

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


@dataclass(frozen=True)
class ServedModel:
    """A network as it is served: where, and with how many bits."""

    shape: Shape
    accelerator: Accelerator
    bits: float = 16.0  # of a weight
    cache_bits: float = 16.0  # of an element of the key-value cache


@dataclass(frozen=True)
class ServingReplica:
    """One copy of the served network and the load it carries."""

    accelerators: int
    sequences: int  # decoded at once
    token_seconds: float
    first_token_seconds: float
    requests: float  # a second


def rate_of(text: str) -> float:
    """Return requests a day from `1/day`, `20/week` or a number.

    Raises:
        PlanError: a period other than hour, day and week.
    """
    number, _, period = text.partition("/")
    if period not in DAYS_OF:
        raise PlanError(
            f"--requests {text!r}: {period!r} is not a period; write 1/day, 5/hour or 10/week"
        )
    return units.count(number) / DAYS_OF[period]


def size_serving(model: ServedModel, demand: Demand, price: float, currency: str) -> Serving:
    """Return accelerators and cost for a demand on one model.

    Args:
        model: what is served.
        demand: what the devices ask.
        price: of one accelerator and hour.
        currency: of the price.

    Raises:
        PlanError: a demand that is not above zero, or a share outside 0..1.
    """
    check_demand(demand)
    replica = replica_of(model, demand)
    mean = demand.devices * demand.requests_per_day / DAY
    peak = mean * demand.peak_over_mean
    cloud = peak * (1 - demand.on_device)
    replicas = math.ceil(cloud / replica.requests) if cloud else 0
    accelerators = replicas * replica.accelerators

    tokens = demand.prompt_tokens + demand.answer_tokens
    money_a_day = accelerators * price * 24
    cloud_tokens_a_day = mean * (1 - demand.on_device) * tokens * DAY
    a_million = 0.0
    if cloud_tokens_a_day:  # 0 where devices answer everything
        a_million = money_a_day / cloud_tokens_a_day * 1e6
    return Serving(
        mean_requests=mean,
        peak_requests=peak,
        mean_tokens=mean * tokens,
        peak_tokens=peak * tokens,
        on_device=demand.on_device,
        cloud_peak_requests=cloud,
        cards_a_replica=replica.accelerators,
        sequences_a_replica=replica.sequences,
        replica_tokens=replica.requests * tokens,
        replica_requests=replica.requests,
        token_seconds=replica.token_seconds,
        first_token_seconds=replica.first_token_seconds,
        cards=accelerators,
        money_per_million_tokens=a_million,
        money_per_day=money_a_day,
        currency=currency,
    )


def check_demand(demand: Demand) -> None:
    """Reject a demand that makes no sense.

    Raises:
        PlanError: devices or requests that are not above zero, or a share outside 0..1.
    """
    if demand.devices <= 0 or demand.requests_per_day <= 0:
        raise PlanError(
            "--devices and --requests must be above 0; the least that makes sense is 1 and 1/day"
        )
    if not 0 <= demand.on_device <= 1:
        best = min(max(demand.on_device, 0), 1)
        raise PlanError(
            f"--on-device {demand.on_device:g} is not a share of 1; "
            f"the nearest legal value is {best:g}"
        )


def replica_of(model: ServedModel, demand: Demand) -> ServingReplica:
    """Return one replica and the requests a second that it can answer."""
    count = replica_accelerators(model)
    memory = count * model.accelerator.memory_bytes * ROOM_SHARE
    room = memory - model.shape.parameters() * model.bits / 8
    context = demand.prompt_tokens + demand.answer_tokens
    cache = model.shape.cache_bytes(model.cache_bits) * context  # of one sequence
    sequences = max(int(min(room / cache, MOST_SEQUENCES)), 1)
    token = decode_seconds(model, count, sequences, cache)
    first = prefill_seconds(model, count, demand.prompt_tokens)
    # A decode step serves all sequences at once, a prefill only its own.
    busy = demand.answer_tokens * token / sequences + first
    return ServingReplica(
        accelerators=count,
        sequences=sequences,
        token_seconds=token,
        first_token_seconds=first,
        requests=BUSY_SHARE / busy,
    )


def replica_accelerators(model: ServedModel) -> int:
    """Return how many accelerators hold the weights, with room for caches; a power of two."""
    weights = model.shape.parameters() * model.bits / 8
    need = weights / (model.accelerator.memory_bytes * ROOM_SHARE * 2 / 3)  # a third is for caches
    return int(2 ** math.ceil(math.log2(max(need, 1.0))))


def decode_seconds(
    model: ServedModel, accelerators: int, sequences: int, cache_bytes: float
) -> float:
    """Return the seconds of one token for every sequence of a batch.

    Args:
        model: what is served.
        accelerators: of the replica.
        sequences: decoded at once.
        cache_bytes: of one sequence.
    """
    active = model.shape.active_parameters()
    weights = weights_read(model.shape, sequences)
    moved = weights * model.bits / 8 + sequences * cache_bytes
    flops = 2.0 * active * sequences
    bytes_a_second = accelerators * model.accelerator.memory_rate * MEMORY_SHARE
    flops_a_second = accelerators * model.accelerator.bf16_flops * FLOPS_SHARE
    return max(moved / bytes_a_second, flops / flops_a_second)


def weights_read(shape: Shape, sequences: int) -> int:
    """Return the weights that a decode step reads: a small batch skips experts no token chose."""
    if not shape.experts:
        return shape.parameters()
    chosen = shape.experts.num_experts_per_tok / shape.experts.n_routed_experts
    share = 1 - (1 - chosen) ** sequences
    active = shape.active_parameters()
    return int(active + (shape.parameters() - active) * share)


def prefill_seconds(model: ServedModel, accelerators: int, prompt_tokens: float) -> float:
    """Return the seconds of one request's prompt; its tokens attend to half of it on average.

    Args:
        model: what is served.
        accelerators: of the replica.
        prompt_tokens: of one request.
    """
    flops = model.shape.flops_per_token(int(prompt_tokens / 2)) * prompt_tokens
    return flops / (accelerators * model.accelerator.bf16_flops * FLOPS_SHARE)
