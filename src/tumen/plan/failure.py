"""Failures of a run: how often, how much work they cost, how often to save, how many spare nodes.

    1 / MTTF = nodes x r_node / (1000 days) + r_job
    goodput  = tau / (M e^(R/M) (e^((tau + delta)/M) - 1))

Hardware failures grow with the fleet, software failures do not. The second line is Daly 2006,
equation 20, for exponential failures.

M is the mean time between failures, tau the time between saves, delta the time that a save blocks
training, R detection and restart. Young's sqrt(2 delta M) starts the search for the best tau.

With checkpoint replicas in memory, tau and delta are theirs. The disk then serves only the few
failures that destroy the replicas too: a second factor, at their own rate.

`simulate` plays the same process event by event and agrees where the formula holds
(tests/plan/test_failure.py, benchmarks/failure_day.py). Default rates are published ones: 2.3-6.5
node failures in 1,000 node-days (arXiv 2410.21680); 3.79 for Llama 3 (arXiv 2407.21783).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tumen.recipe import Planning

LOW_RATE = 2.3  # published range, node failures in 1,000 node-days
HIGH_RATE = 6.5
SHORT_RESTART = 0.5  # range of the restart time, as a multiple
LONG_RESTART = 1.5
SAVE_FLOOR_SECONDS = 5.0  # a save blocks training at least this long
STATE_BYTES = 14.0  # of a weight in a checkpoint: bf16 weight, fp32 master and two moments
DAY = 86400.0
LARGEST_EXPONENT = 700.0  # e^700 is near the largest float
SEARCH_STEPS = 60  # of the golden-section search: 1e-12 of the interval


@dataclass(frozen=True)
class Reliability:
    """What failures do to a run, in seconds and in shares of the wall clock."""

    nodes: int
    between_failures_seconds: float
    save_seconds: float
    save_every_seconds: float
    replica_every_seconds: float  # into a neighbour's memory; 0 without replicas
    young_seconds: float
    restart_seconds: float
    goodput: float
    goodput_low: float
    goodput_high: float
    spare_nodes: int
    failures_per_day: float
    waiting_goodput: float  # without spares, waiting for every repair
    elastic_goodput: float  # without spares, continuing on the nodes that are up


def between_failures(nodes: float, node_rate: float, job_rate: float = 0.0) -> float:
    """Return the mean seconds between failures; infinity if nothing fails.

    Args:
        nodes: nodes of the run.
        node_rate: failures of a node in 1,000 days.
        job_rate: failures of the job itself a day, whatever its size.
    """
    a_day = nodes * node_rate / 1000.0 + job_rate
    return DAY / a_day if a_day > 0 else math.inf


# ---------------------------------------------------------------------- when to save


def young(save_seconds: float, between_seconds: float) -> float:
    """Return Young's interval (1974): the square root of 2 x save x time between failures."""
    return math.sqrt(2.0 * save_seconds * between_seconds)


def goodput(
    every_seconds: float, save_seconds: float, between_seconds: float, restart_seconds: float
) -> float:
    """Return the share of the time that advances the run (Daly 2006, equation 20).

    Args:
        every_seconds: time between saves.
        save_seconds: time that a save blocks training.
        between_seconds: mean time between failures.
        restart_seconds: detection and restart.
    """
    if math.isinf(between_seconds):
        return every_seconds / (every_seconds + save_seconds)
    mean = between_seconds
    exponent = min((every_seconds + save_seconds) / mean, LARGEST_EXPONENT)
    restarting = math.exp(min(restart_seconds / mean, LARGEST_EXPONENT))
    return every_seconds / (mean * restarting * math.expm1(exponent))


def best_interval(save_seconds: float, between_seconds: float, restart_seconds: float) -> float:
    """Return the interval with the best goodput: golden-section search around Young's.

    Without failures a save a day is enough. The arguments are those of `goodput`.
    """
    if math.isinf(between_seconds):
        return DAY
    # Young's interval ignores restarts and is near the best one.
    start = young(save_seconds, between_seconds)
    low = start / 10
    high = start * 4
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(SEARCH_STEPS):
        left = high - golden * (high - low)
        right = low + golden * (high - low)
        left_goodput = goodput(left, save_seconds, between_seconds, restart_seconds)
        if left_goodput > goodput(right, save_seconds, between_seconds, restart_seconds):
            high = right
        else:
            low = left
    return (low + high) / 2


def save_time(parameters: float, nodes: float, node_bytes_per_second: float) -> float:
    """Return the seconds that one save blocks training, every node writing its part.

    Args:
        parameters: weights of the network.
        nodes: that write at once.
        node_bytes_per_second: that one node writes.
    """
    rate = max(nodes, 1.0) * node_bytes_per_second
    return SAVE_FLOOR_SECONDS + STATE_BYTES * parameters / rate


def intervals(
    save_seconds: float, mean: float, restart: float, plan: Planning
) -> tuple[float, float, float]:
    """Return (seconds between saves on disk, between replicas in memory, goodput of both).

    The second is 0 without replicas. A failure that destroys the replicas has restarted from the
    disk's save already, so its restart is counted once.

    Args:
        save_seconds: time that a save on disk blocks training.
        mean: time between failures.
        restart: detection and restart.
        plan: states whether there are replicas, and how many failures destroy them.
    """
    if plan.replica_seconds is None:
        every = best_interval(save_seconds, mean, restart)
        return every, 0.0, goodput(every, save_seconds, mean, restart)
    replicated = best_interval(plan.replica_seconds, mean, restart)
    rare = mean / plan.replicas_lost
    every = best_interval(save_seconds, rare, 0.0)
    near = goodput(replicated, plan.replica_seconds, mean, restart)
    return every, replicated, near * goodput(every, save_seconds, rare, 0.0)


# ---------------------------------------------------------------------- repairs


def spares(nodes: int, node_rate: float, repair_days: float = 2.0, risk: float = 0.05) -> int:
    """Return the fewest spare nodes with which the run rarely waits for a repair.

    The number of nodes in repair is Poisson with mean nodes x rate x repair time.

    Args:
        nodes: nodes of the run.
        node_rate: failures of a node in 1,000 days.
        repair_days: time until a broken node is back.
        risk: share of the time that the run may wait.
    """
    mean = nodes * node_rate / 1000.0 * repair_days
    term = math.exp(-mean)
    cumulative = term
    count = 0
    while cumulative < 1.0 - risk and count < nodes:
        count += 1
        term *= mean / count
        cumulative += term
    return count


def whole_share(nodes: int, plan: Planning) -> float:
    """Return the share of the time that no node is in repair, without replacements (Poisson)."""
    return math.exp(-nodes * plan.failures / 1000.0 * plan.repair_days)


def elastic_share(plan: Planning) -> float:
    """Return the mean share of nodes that are up: an elastic run shrinks to them."""
    return 1.0 / (1.0 + plan.failures / 1000.0 * plan.repair_days)


# ---------------------------------------------------------------------- a whole run


def reliability(world_size: int, node: int, parameters: float, plan: Planning) -> Reliability:
    """Return what failures do to a run.

    The range of its goodput covers published failure rates and restarts half and one and a half as
    long.

    Args:
        world_size: accelerators of the run.
        node: accelerators of a node.
        parameters: weights of the network.
        plan: failure rates, restart and checkpoint times.
    """
    nodes = max(math.ceil(world_size / node), 1)
    save = save_time(parameters, nodes, plan.checkpoint_bytes_per_second)
    restart = plan.detect_seconds + plan.restart_seconds
    mean = between_failures(nodes, plan.failures, plan.software_failures)
    every, replicated, share = intervals(save, mean, restart, plan)
    expected = share * (1.0 - plan.stragglers)
    fails = math.isfinite(mean)
    low, high = goodput_range(nodes, save, restart, plan)
    return Reliability(
        nodes=nodes,
        between_failures_seconds=mean,
        save_seconds=save,
        save_every_seconds=every,
        replica_every_seconds=replicated,
        young_seconds=young(save, mean) if fails else math.inf,
        restart_seconds=restart,
        goodput=expected,
        goodput_low=low,
        goodput_high=high,
        spare_nodes=spares(nodes, plan.failures, plan.repair_days),
        failures_per_day=DAY / mean if fails else 0.0,
        waiting_goodput=expected * whole_share(nodes, plan),
        elastic_goodput=expected * elastic_share(plan),
    )


def goodput_range(
    nodes: int, save_seconds: float, restart: float, plan: Planning
) -> tuple[float, float]:
    """Return the (low, high) goodput of published failure rates and of other restarts.

    Args:
        nodes: nodes of the run.
        save_seconds: time that a save on disk blocks training.
        restart: detection and restart.
        plan: failure rates; those outside the published range widen it.
    """

    def at(rate: float, slower: float) -> float:
        """Return the goodput at another node failure rate; software failures change with it."""
        proportion = rate / plan.failures if plan.failures else 1.0
        mean = between_failures(nodes, rate, plan.software_failures * proportion)
        _, _, share = intervals(save_seconds, mean, restart * slower, plan)
        return share * (1.0 - plan.stragglers)

    low = at(max(HIGH_RATE, plan.failures), LONG_RESTART)
    return low, at(min(LOW_RATE, plan.failures), SHORT_RESTART)


def simulate(
    every_seconds: float,
    save_seconds: float,
    between_seconds: float,
    restart_seconds: float,
    days: float,
    seed: int = 0,
) -> float:
    """Return the goodput of one simulated run: work, save, fail at exponential times, restart.

    Args:
        every_seconds: time between saves.
        save_seconds: time that a save blocks training.
        between_seconds: mean time between failures.
        restart_seconds: detection and restart.
        days: length of the run.
        seed: of the random failures.
    """
    draw = np.random.default_rng(seed)
    clock = 0.0
    saved = 0.0
    next_failure = float(draw.exponential(between_seconds))
    end = days * DAY
    while clock < end:
        done = clock + every_seconds + save_seconds
        if done <= next_failure:
            clock = done
            saved += every_seconds
            continue
        clock = next_failure
        next_failure = clock + float(draw.exponential(between_seconds))
        while clock + restart_seconds > next_failure:  # it fails again during the restart
            clock = next_failure
            next_failure = clock + float(draw.exponential(between_seconds))
        clock += restart_seconds
    return saved / clock
