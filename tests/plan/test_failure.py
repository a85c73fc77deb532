"""Failures: published rates, sums by hand, and the closed form against runs played event by event."""

from __future__ import annotations

import math
import random

import pytest

from tumen.plan import goodput, reliability
from tumen.plan.failure import (
    best_interval,
    between_failures,
    elastic_share,
    intervals,
    save_time,
    simulate,
    spares,
    whole_share,
    young,
)
from tumen.recipe import Planning

LLAMA3 = 3.79  # node failures in 1,000 node-days, arXiv 2407.21783
HOUR, DAY = 3600.0, 86400.0


# ---------------------------------------------------------------------- how often


@pytest.mark.parametrize(("cards", "hours"), [(10_000, 5.1), (6_500, 7.8), (16_384, 3.1)])
def test_llama3_rate(cards: int, hours: float) -> None:
    assert between_failures(cards / 8, LLAMA3) / HOUR == pytest.approx(hours, abs=0.06)


def test_hardware_grows_with_the_fleet_and_software_does_not() -> None:
    assert between_failures(2000, 4.0) == pytest.approx(between_failures(1000, 4.0) / 2)
    assert between_failures(1, 0.0, 1.0) == between_failures(5000, 0.0, 1.0) == DAY
    assert math.isinf(between_failures(10, 0.0))


def test_rates_of_nodes_and_of_the_job_add_up() -> None:
    """500 nodes at 4 in 1,000 node-days fail twice a day; the job itself once more."""
    assert between_failures(500, 4.0, 1.0) == pytest.approx(DAY / 3)


# ---------------------------------------------------------------------- goodput


def test_young_by_hand() -> None:
    """A save of 50 s and a failure every 10,000 s: the square root of a million."""
    assert young(50, 10_000) == pytest.approx(1000.0)


def test_young_is_near_the_best() -> None:
    best = best_interval(30, 5.1 * HOUR, 600)
    assert young(30, 5.1 * HOUR) == pytest.approx(best, rel=0.05)
    assert goodput(best, 30, 5.1 * HOUR, 600) >= goodput(best * 2, 30, 5.1 * HOUR, 600)
    assert goodput(best, 30, 5.1 * HOUR, 600) >= goodput(best / 2, 30, 5.1 * HOUR, 600)


@pytest.mark.parametrize("restart", [0.0, 600.0, 3600.0])
@pytest.mark.parametrize(("save", "between"), [(5, 3600), (30, 18_000), (300, 18_000), (60, 1e6)])
def test_the_best_interval_beats_a_grid(save: float, between: float, restart: float) -> None:
    best = best_interval(save, between, restart)
    found = goodput(best, save, between, restart)
    grid = [young(save, between) * (0.2 + 0.05 * k) for k in range(70)]
    assert found >= max(goodput(every, save, between, restart) for every in grid) - 1e-12


def test_without_failures_only_saves_cost() -> None:
    assert goodput(900, 100, math.inf, 600) == pytest.approx(0.9)
    assert best_interval(100, math.inf, 600) == DAY


def test_goodput_by_hand() -> None:
    """Daly 2006, equation 20, with every quantity equal to the time between failures but the restart."""
    assert goodput(1.0, 1.0, 1.0, 0.0) == pytest.approx(1.0 / math.expm1(2.0))
    assert goodput(1.0, 1.0, 1.0, 2.0) == pytest.approx(math.exp(-2.0) / math.expm1(2.0))


def test_hopeless_clusters_have_no_goodput() -> None:
    """An exponent that would overflow is cut: the answer is as good as zero, not an error."""
    assert 0.0 <= goodput(1e9, 1e9, 1.0, 0.0) < 1e-200
    assert 0.0 <= goodput(1.0, 1.0, 1.0, 1e9) < 1e-200


def test_goodput_falls_with_each_cost() -> None:
    base = goodput(1800, 30, 5 * HOUR, 600)
    assert goodput(1800, 60, 5 * HOUR, 600) < base
    assert goodput(1800, 30, 4 * HOUR, 600) < base
    assert goodput(1800, 30, 5 * HOUR, 900) < base


def play(every: float, save: float, between: float, restart: float, days: int, seed: int) -> float:
    """Goodput of a run played second by second in its events: written apart from the planner's own simulation."""
    draw = random.Random(seed)
    end, now, safe = days * DAY, 0.0, 0.0
    fault = draw.expovariate(1 / between)
    while now < end:
        ready = now + restart if now else now
        if fault < ready:  # it fails while it restarts
            now, fault = fault, fault + draw.expovariate(1 / between)
            continue
        now = ready
        while now + every + save <= fault:
            now, safe = now + every + save, safe + every
            if now >= end:
                return safe / now
        now, fault = fault, fault + draw.expovariate(1 / between)
    return safe / now


CLUSTERS = [
    (5.1 * HOUR, 30.0, 600.0),
    (7.8 * HOUR, 60.0, 900.0),
    (50 * HOUR, 40.0, 600.0),
    (1 * HOUR, 60.0, 1800.0),
]


@pytest.mark.parametrize(("between", "save", "restart"), CLUSTERS)
def test_both_simulations_agree_with_the_formula(
    between: float, save: float, restart: float
) -> None:
    every = best_interval(save, between, restart)
    expected = goodput(every, save, between, restart)
    days = max(400, int(between / HOUR * 60))
    ours = [simulate(every, save, between, restart, days=days, seed=seed) for seed in range(4)]
    theirs = [play(every, save, between, restart, days, seed) for seed in range(4)]
    assert sum(ours) / 4 == pytest.approx(expected, rel=0.02)
    assert sum(theirs) / 4 == pytest.approx(expected, rel=0.02)


def test_a_simulated_run_that_never_fails_only_saves() -> None:
    assert simulate(900, 100, 1e15, 600, days=30) == pytest.approx(0.9, rel=1e-3)


def test_simulations_differ_by_seed_alone() -> None:
    once = simulate(900, 30, HOUR, 60, days=3, seed=1)
    assert once == simulate(900, 30, HOUR, 60, days=3, seed=1)
    assert once != simulate(900, 30, HOUR, 60, days=3, seed=2)


# ---------------------------------------------------------------------- saves and spares


def test_a_save_writes_fourteen_bytes_a_weight() -> None:
    """bf16 weight, fp32 master and two moments of 4 bytes; every node writes its part; five seconds at least."""
    state = 2 + 3 * 4
    assert save_time(1e9, 10, 1e8) == pytest.approx(5 + state * 1e9 / (10 * 1e8))
    assert save_time(1e9, 0, 1e8) == save_time(1e9, 1, 1e8)


def test_spares_rise_with_the_fleet() -> None:
    assert 0 <= spares(8, 4.0) <= spares(1250, 4.0) <= spares(2048, 4.0) < 60


@pytest.mark.parametrize(
    ("nodes", "rate", "repair", "risk"),
    [(1250, 4.0, 2.0, 0.05), (1250, 4.0, 2.0, 0.01), (100, 6.5, 5.0, 0.05), (2048, 3.79, 1.0, 0.1)],
)
def test_spares_cover_all_but_a_rare_day(
    nodes: int, rate: float, repair: float, risk: float
) -> None:
    """The number of nodes in repair is Poisson: the fewest spares that leave at most the risk."""
    mean = nodes * rate / 1000 * repair

    def at_most(count: int) -> float:
        return sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(count + 1))

    found = spares(nodes, rate, repair, risk)
    assert at_most(found) >= 1 - risk
    assert at_most(found - 1) < 1 - risk


def test_no_more_spares_than_nodes() -> None:
    assert spares(2, 4000.0, repair_days=30.0) == 2
    assert spares(100, 0.0) == 0


def test_shares_without_spares() -> None:
    """One node in 250 fails a day and takes two days: 500 nodes have four in repair on average."""
    plan = Planning(failures=4.0, repair_days=2.0)
    assert whole_share(500, plan) == pytest.approx(math.exp(-4.0))
    assert elastic_share(plan) == pytest.approx(1 / 1.008)


# ---------------------------------------------------------------------- a whole run


def test_llama3_goodput_is_inside() -> None:
    """More than 90% effective training time on 16,384 cards."""
    plan = Planning(failures=LLAMA3)
    found = reliability(16_384, 8, 405e9, plan)
    assert found.goodput_low <= 0.90 <= found.goodput_high
    assert found.goodput == pytest.approx(0.90, abs=0.04)


def test_reliability_joins_its_parts() -> None:
    plan = Planning(
        failures=4.0,
        software_failures=0.5,
        detect_seconds=100,
        restart_seconds=500,
        stragglers=0.02,
        checkpoint_bytes_per_second=1e9,
        repair_days=3.0,
    )
    found = reliability(8001, 8, 100e9, plan)
    mean = DAY / (1001 * 4 / 1000 + 0.5)
    save = 5 + 14 * 100e9 / (1001 * 1e9)
    every = best_interval(save, mean, 600)
    assert found.nodes == 1001
    assert found.between_failures_seconds == pytest.approx(mean)
    assert found.failures_per_day == pytest.approx(1001 * 4 / 1000 + 0.5)
    assert found.save_seconds == pytest.approx(save)
    assert found.save_every_seconds == pytest.approx(every)
    assert found.young_seconds == pytest.approx(young(save, mean))
    assert found.restart_seconds == 600
    assert found.replica_every_seconds == 0.0
    assert found.goodput == pytest.approx(0.98 * goodput(every, save, mean, 600))
    assert found.spare_nodes == spares(1001, 4.0, 3.0)
    assert found.waiting_goodput == pytest.approx(found.goodput * whole_share(1001, plan))
    assert found.elastic_goodput == pytest.approx(found.goodput * elastic_share(plan))


def test_the_range_is_of_published_rates_and_restarts() -> None:
    """2.3 to 6.5 node failures in 1,000 node-days; restarts half and one and a half as long; software in proportion."""
    plan = Planning(failures=4.0, software_failures=0.2, stragglers=0.0)
    found = reliability(8000, 8, 100e9, plan)
    for rate, restart, expected in ((6.5, 900, found.goodput_low), (2.3, 300, found.goodput_high)):
        mean = DAY / (rate + 0.2 * rate / 4)
        every = best_interval(found.save_seconds, mean, restart)
        assert expected == pytest.approx(goodput(every, found.save_seconds, mean, restart))


def test_rates_outside_the_published_range_widen_it() -> None:
    """Seven is above the published range: it becomes the high rate itself; one below becomes the low one."""
    for failures in (7.0, 1.0):
        plan = Planning(failures=failures, software_failures=0.0, stragglers=0.0)
        found = reliability(8000, 8, 100e9, plan)
        rate, restart = (failures, 900) if failures > 5 else (failures, 300)
        mean = DAY / rate
        every = best_interval(found.save_seconds, mean, restart)
        edge = found.goodput_low if failures > 5 else found.goodput_high
        assert edge == pytest.approx(goodput(every, found.save_seconds, mean, restart))


def test_a_run_without_failures() -> None:
    found = reliability(8, 8, 1e9, Planning(failures=0, software_failures=0, stragglers=0))
    assert math.isinf(found.between_failures_seconds)
    assert math.isinf(found.young_seconds)
    assert found.failures_per_day == 0.0
    assert found.spare_nodes == 0
    assert found.goodput == pytest.approx(DAY / (DAY + found.save_seconds))


def test_less_than_a_node_is_one() -> None:
    assert reliability(1, 8, 1e9, Planning()).nodes == 1


def test_without_spares_elastic_beats_waiting() -> None:
    found = reliability(10_000, 8, 236e9, Planning(failures=LLAMA3))
    assert found.waiting_goodput < found.elastic_goodput < found.goodput
    alone = reliability(10_000, 8, 236e9, Planning(failures=LLAMA3, stragglers=0.05))
    assert alone.goodput == pytest.approx(found.goodput * 0.95 / 0.99)


# ---------------------------------------------------------------------- replicas in memory


def test_copies_in_memory_beat_the_disk_alone() -> None:
    """A copy costs less than a save and is taken more often; the disk is left to failures that take copies with them."""
    watched = Planning(failures=LLAMA3, detect_seconds=10, restart_seconds=60, stragglers=0)
    disk = reliability(10_000, 8, 236e9, watched)
    copies = reliability(10_000, 8, 236e9, watched.model_copy(update={"replica_seconds": 0.5}))
    assert disk.goodput < 0.98 < copies.goodput
    assert disk.replica_every_seconds == 0.0
    assert copies.replica_every_seconds < disk.save_every_seconds < copies.save_every_seconds
    lost = reliability(
        10_000, 8, 236e9, watched.model_copy(update={"replica_seconds": 0.5, "replicas_lost": 1.0})
    )
    assert lost.goodput < disk.goodput, "copies that never survive only cost"


def test_two_levels_multiply() -> None:
    """Copies meet every failure, the disk one in fifty; restarting is paid once, with the copies."""
    plan = Planning(replica_seconds=0.5, replicas_lost=0.02)
    every, copied, share = intervals(60.0, 5 * HOUR, 100.0, plan)
    assert copied == pytest.approx(best_interval(0.5, 5 * HOUR, 100.0))
    assert every == pytest.approx(best_interval(60.0, 250 * HOUR, 0.0))
    near = goodput(copied, 0.5, 5 * HOUR, 100.0)
    assert share == pytest.approx(near * goodput(every, 60.0, 250 * HOUR, 0.0))
