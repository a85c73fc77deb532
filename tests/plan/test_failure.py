"""Failures: published rates, and the closed form against the played one."""

from __future__ import annotations

import math

import pytest

from tumen.plan.failure import (
    best_interval,
    between_failures,
    goodput,
    reliability,
    simulate,
    spares,
    young,
)
from tumen.recipe.recipe import Planning

LLAMA3 = 3.79  # node failures in 1,000 node-days, arXiv 2407.21783


@pytest.mark.parametrize(("cards", "hours"), [(10_000, 5.1), (6_500, 7.8), (16_384, 3.1)])
def test_llama3_rate(cards: int, hours: float) -> None:
    assert between_failures(cards / 8, LLAMA3) / 3600 == pytest.approx(hours, abs=0.06)


def test_llama3_goodput_is_inside() -> None:
    """More than 90% effective training time on 16,384 cards."""
    plan = Planning(failures=LLAMA3)
    found = reliability(16_384, 8, 405e9, plan)
    assert found.goodput_low <= 0.90 <= found.goodput_high
    assert found.goodput == pytest.approx(0.90, abs=0.04)


@pytest.mark.parametrize(
    ("between", "save", "restart"),
    [(5.1 * 3600, 30, 600), (7.8 * 3600, 60, 900), (50 * 3600, 40, 600)],
)
def test_simulation_agrees(between: float, save: float, restart: float) -> None:
    every = best_interval(save, between, restart)
    played = (
        sum(simulate(every, save, between, restart, days=400, seed=seed) for seed in range(4)) / 4
    )
    assert played == pytest.approx(goodput(every, save, between, restart), rel=0.02)


def test_young_is_near_the_best() -> None:
    best = best_interval(30, 5.1 * 3600, 600)
    assert young(30, 5.1 * 3600) == pytest.approx(best, rel=0.05)
    assert goodput(best, 30, 5.1 * 3600, 600) >= goodput(best * 2, 30, 5.1 * 3600, 600)
    assert goodput(best, 30, 5.1 * 3600, 600) >= goodput(best / 2, 30, 5.1 * 3600, 600)


def test_hardware_grows_with_the_fleet_and_software_does_not() -> None:
    assert between_failures(2000, 4.0) == pytest.approx(between_failures(1000, 4.0) / 2)
    assert between_failures(1, 0.0, 1.0) == between_failures(5000, 0.0, 1.0) == 86400
    assert math.isinf(between_failures(10, 0.0))


def test_spares_rise_with_the_fleet() -> None:
    assert 0 <= spares(8, 4.0) <= spares(1250, 4.0) <= spares(2048, 4.0) < 60


def test_without_spares_elastic_beats_waiting() -> None:
    found = reliability(10_000, 8, 236e9, Planning(failures=LLAMA3))
    assert found.waiting_goodput < found.elastic_goodput < found.goodput
    alone = reliability(10_000, 8, 236e9, Planning(failures=LLAMA3, stragglers=0.05))
    assert alone.goodput == pytest.approx(found.goodput * 0.95 / 0.99)


def test_copies_in_memory_beat_the_disk_alone() -> None:
    """A copy costs less than a save and is taken more often; the disk is left to the failures that take copies with them."""
    watched = Planning(failures=LLAMA3, detect_seconds=10, restart_seconds=60, stragglers=0)
    disk = reliability(10_000, 8, 236e9, watched)
    copies = reliability(10_000, 8, 236e9, watched.model_copy(update={"replica_seconds": 0.5}))
    assert disk.goodput < 0.98 < copies.goodput
    assert (
        disk.copy_every_seconds,
        copies.copy_every_seconds < disk.save_every_seconds < copies.save_every_seconds,
    ) == (0.0, True)
    lost = reliability(
        10_000, 8, 236e9, watched.model_copy(update={"replica_seconds": 0.5, "replicas_lost": 1.0})
    )
    assert lost.goodput < disk.goodput, "copies that never survive only cost"
