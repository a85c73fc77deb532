"""Failures: how often, how much work they cost, how often to save, how many spares.

    1 / MTTF = nodes x r_node / (1000 days) + r_job          hardware grows with the fleet, software does not
    goodput  = tau / (M e^(R/M) (e^((tau + delta)/M) - 1))   Daly 2006, equation 20, exponential failures

tau is the time between saves, delta what a save blocks, R detection and restart. Young's sqrt(2 delta M) starts the
search for the best tau. Where copies of the state are kept in memory, tau and delta are theirs, and the disk serves the
few failures that take copies with them: a second factor, at their own rate. `simulate` plays the same process event by
event; both agree where the formula holds (tests/plan/test_failure.py, benchmarks/failure_day.py). Default rates are
published ones: 2.3-6.5 node failures in 1,000 node-days (arXiv 2410.21680; 3.79 for Llama 3, arXiv 2407.21783).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tumen.recipe import Planning

LOW_RATE, HIGH_RATE = 2.3, 6.5  # published range, node failures in 1,000 node-days
SAVE_FLOOR_SECONDS = 5.0  # a save stops the step at least this long
STATE_BYTES = 14.0  # a weight in a checkpoint: bf16 weight, fp32 master and two moments
DAY = 86400.0


@dataclass(frozen=True)
class Reliability:
    """What failures do to a run. Seconds, and shares of the wall clock."""

    nodes: int
    between_failures_seconds: float
    save_seconds: float
    save_every_seconds: float
    copy_every_seconds: float  # into a neighbour's memory; 0: no copies
    young_seconds: float
    restart_seconds: float
    goodput: float
    goodput_low: float
    goodput_high: float
    spare_nodes: int
    failures_per_day: float
    waiting_goodput: float  # without spares, waiting for every repair
    elastic_goodput: float  # without spares, going on with the nodes that are left


def between_failures(nodes: float, node_rate: float, job_rate: float = 0.0) -> float:
    """Mean seconds between failures of `nodes` nodes at `node_rate` in 1,000 node-days and `job_rate` a day."""
    a_day = nodes * node_rate / 1000.0 + job_rate
    return DAY / a_day if a_day > 0 else math.inf


def young(save_seconds: float, between_seconds: float) -> float:
    """Young's interval (1974): the square root of twice the save times the time between failures."""
    return math.sqrt(2.0 * save_seconds * between_seconds)


def goodput(
    every_seconds: float, save_seconds: float, between_seconds: float, restart_seconds: float
) -> float:
    """Share of the time that advances the run (Daly 2006, equation 20)."""
    if math.isinf(between_seconds):
        return every_seconds / (every_seconds + save_seconds)
    m = between_seconds
    exponent = min((every_seconds + save_seconds) / m, 700.0)
    return every_seconds / (m * math.exp(min(restart_seconds / m, 700.0)) * math.expm1(exponent))


def best_interval(save_seconds: float, between_seconds: float, restart_seconds: float) -> float:
    """The interval with the best goodput: golden-section search around Young's."""
    if math.isinf(between_seconds):
        return DAY
    low, high = young(save_seconds, between_seconds) / 10, young(save_seconds, between_seconds) * 4
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - golden * (high - low), low + golden * (high - low)
        better = goodput(a, save_seconds, between_seconds, restart_seconds)
        if better > goodput(b, save_seconds, between_seconds, restart_seconds):
            high = b
        else:
            low = a
    return (low + high) / 2


def save_time(parameters: float, nodes: float, node_bytes_per_second: float) -> float:
    """Seconds one save blocks the run, every node writing its part."""
    return SAVE_FLOOR_SECONDS + STATE_BYTES * parameters / (max(nodes, 1.0) * node_bytes_per_second)


def spares(nodes: int, node_rate: float, repair_days: float = 2.0, risk: float = 0.05) -> int:
    """Spare nodes so that, with broken ones `repair_days` in repair, the run waits in at most `risk` of the time
    (Poisson).
    """
    mean = nodes * node_rate / 1000.0 * repair_days
    term = cumulative = math.exp(-mean)
    count = 0
    while cumulative < 1.0 - risk and count < nodes:
        count += 1
        term *= mean / count
        cumulative += term
    return count


def whole_share(nodes: int, plan: Planning) -> float:
    """Share of the time all nodes are up at once with no replacements: no repair is under way (Poisson)."""
    return math.exp(-nodes * plan.failures / 1000.0 * plan.repair_days)


def elastic_share(plan: Planning) -> float:
    """Mean share of the nodes that are up: what an elastic run works with, its data-parallel group shrunk to them."""
    return 1.0 / (1.0 + plan.failures / 1000.0 * plan.repair_days)


def intervals(
    save_seconds: float, mean: float, restart: float, plan: Planning
) -> tuple[float, float, float]:
    """Seconds between saves on disk, seconds between copies in memory (0: none), and the goodput they give."""
    if plan.replica_seconds is None:
        every = best_interval(save_seconds, mean, restart)
        return every, 0.0, goodput(every, save_seconds, mean, restart)
    copied = best_interval(plan.replica_seconds, mean, restart)
    rare = mean / plan.replicas_lost
    every = best_interval(save_seconds, rare, 0.0)
    return (
        every,
        copied,
        goodput(copied, plan.replica_seconds, mean, restart)
        * goodput(every, save_seconds, rare, 0.0),
    )


def reliability(cards: int, node: int, parameters: float, plan: Planning) -> Reliability:
    """Goodput of a run on `cards` cards, with the range of published failure rates and of restarts half and double as
    long.
    """
    nodes = max(math.ceil(cards / node), 1)
    save = save_time(parameters, nodes, plan.checkpoint_bytes_per_second)
    restart = plan.detect_seconds + plan.restart_seconds
    mean = between_failures(nodes, plan.failures, plan.software_failures)
    every, copied, share = intervals(save, mean, restart, plan)

    fast = 1.0 - plan.stragglers

    def at(rate: float, slower: float) -> float:
        m = between_failures(
            nodes, rate, plan.software_failures * (rate / plan.failures if plan.failures else 1.0)
        )
        return intervals(save, m, restart * slower, plan)[2] * fast

    low_rate, high_rate = min(LOW_RATE, plan.failures), max(HIGH_RATE, plan.failures)
    return Reliability(
        nodes=nodes,
        between_failures_seconds=mean,
        save_seconds=save,
        save_every_seconds=every,
        copy_every_seconds=copied,
        young_seconds=young(save, mean) if math.isfinite(mean) else math.inf,
        restart_seconds=restart,
        goodput=share * fast,
        goodput_low=at(high_rate, 1.5),
        goodput_high=at(low_rate, 0.5),
        spare_nodes=spares(nodes, plan.failures, plan.repair_days),
        failures_per_day=DAY / mean if math.isfinite(mean) else 0.0,
        waiting_goodput=share * fast * whole_share(nodes, plan),
        elastic_goodput=share * fast * elastic_share(plan),
    )


def simulate(
    every_seconds: float,
    save_seconds: float,
    between_seconds: float,
    restart_seconds: float,
    days: float,
    seed: int = 0,
) -> float:
    """Goodput of one played run: work, save, fail at exponential times, restart from the last save."""
    draw = np.random.default_rng(seed)
    clock, saved, next_failure = 0.0, 0.0, float(draw.exponential(between_seconds))
    end = days * DAY
    while clock < end:
        done = clock + every_seconds + save_seconds
        if done <= next_failure:
            clock, saved = done, saved + every_seconds
            continue
        clock = next_failure
        next_failure = clock + float(draw.exponential(between_seconds))
        while clock + restart_seconds > next_failure:  # it fails again while it restarts
            clock = next_failure
            next_failure = clock + float(draw.exponential(between_seconds))
        clock += restart_seconds
    return saved / clock
