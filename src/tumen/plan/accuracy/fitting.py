"""Fit the constants of the cost model to published runs.

One set of constants for all rows and one factor a (framework, release), by robust ridge regression
on log(predicted / published): Gauss-Newton with numerical derivatives. Constants are pulled to
their priors and factors to 1. Each source weighs by a power of its number of rows, so that no table
dominates the fit. Nothing is fitted to a row or a model.

How well a fit predicts sources it has not seen is measured by benchmarks/plan_accuracy.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tumen.plan.accuracy.published import Published
from tumen.plan.model import step
from tumen.plan.model.physics import NAMES, SHARES, Physics, from_vector, vector
from tumen.plan.model.scenario import Array, Index, Scenario, stack

PRIOR_SPREAD = 0.35  # of the logarithm of a constant
SHARE_SPREAD = 0.7  # of the logit of a share
FACTOR_SPREAD = 0.12  # of the logarithm of a factor
NOISE = 0.05  # of one published figure
TAIL = 0.12  # error from which on it no longer counts by its square
SOURCE_POWER = -0.4  # weight of a row: the number of rows of its source to this power
DERIVATIVE_STEP = 1e-4
LONGEST_STEP = 0.7  # of one constant in one round
FIRST_DAMPING = 1e-3
ENOUGH = 1e-4  # relative gain of a round below which the fit ends


@dataclass(frozen=True)
class FitTable:
    """Rows with a published time as one table; `starts` is the first scenario of each row."""

    rows: tuple[Published, ...]
    scenarios: Scenario
    starts: Index
    releases: tuple[str, ...]
    release_of: Index  # index into `releases`, by row
    seconds: Array
    weights: Array

    @classmethod
    def of(cls, rows: Sequence[Published]) -> FitTable:
        """Return the table of the rows that have a time."""
        timed = tuple(row for row in rows if row.seconds)
        scenarios = stack([scenario for row in timed for scenario in row.scenarios])
        counts = [len(row.scenarios) for row in timed]
        names = [row.software.name for row in timed]
        releases = tuple(dict.fromkeys(names))
        sources = [row.source for row in timed]
        return cls(
            rows=timed,
            scenarios=scenarios.changed(factor=1.0),
            starts=np.cumsum([0, *counts])[:-1],
            releases=releases,
            release_of=np.array([releases.index(name) for name in names]),
            seconds=np.array([row.seconds for row in timed], dtype=float),
            weights=np.array([sources.count(source) ** SOURCE_POWER for source in sources]),
        )

    def predict(self, physics: Physics) -> Array:
        """Return the seconds of each row before factors.

        A field that is not published takes its fastest legal choice.
        """
        steps = step.step_time(self.scenarios, physics).step
        best: Array = np.minimum.reduceat(steps, self.starts)
        return best


@dataclass(frozen=True)
class Fitted:
    """Constants and factors of one fit."""

    physics: Physics
    factors: dict[str, float]

    def predict(self, table: FitTable) -> Array:
        """Return the seconds of each row; a release that the fit has not seen has factor 1."""
        factors = np.array([self.factors.get(name, 1.0) for name in table.releases])
        seconds: Array = table.predict(self.physics) * factors[table.release_of]
        return seconds


@dataclass(frozen=True)
class Point:
    """One point of the fit: constants as unbounded numbers, and logarithms of the factors."""

    x: Array
    logs: Array

    def moved(self, by: Point) -> Point:
        """Return the point after a step."""
        return Point(self.x + by.x, self.logs + by.logs)


def fit(table: FitTable, start: Physics | None = None, rounds: int = 12) -> Fitted:
    """Return constants and factors for a table.

    Args:
        table: published rows.
        start: constants to begin with; default: the priors.
        rounds: Gauss-Newton steps at most.
    """
    at = Point(vector(start or Physics()), np.zeros(len(table.releases)))
    damping = FIRST_DAMPING
    best = objective(table, at)
    for _ in range(rounds):
        after = at.moved(newton(table, at, damping))
        loss = objective(table, after)
        if loss < best:
            gain = best - loss
            best = loss
            at = after
            damping /= 4
            if gain < ENOUGH * best:
                break
        else:
            damping *= 10
    factors = {name: float(np.exp(log)) for name, log in zip(table.releases, at.logs, strict=True)}
    return Fitted(from_vector(at.x), factors)


def spreads() -> Array:
    """Return how far each constant may move from its prior."""
    return np.array([SHARE_SPREAD if name in SHARES else PRIOR_SPREAD for name in NAMES])


def residuals(table: FitTable, at: Point) -> Array:
    """Return log(predicted / published) of each row."""
    predicted = table.predict(from_vector(at.x))
    found: Array = np.log(predicted / table.seconds) + at.logs[table.release_of]
    return found


def objective(table: FitTable, at: Point) -> float:
    """Return the pseudo-Huber loss of the rows and the ridge of constants and factors."""
    error = residuals(table, at)
    loss = 2 * TAIL**2 * (np.sqrt(1 + (error / TAIL) ** 2) - 1) / NOISE**2
    pull = (at.x - vector(Physics())) / spreads()
    pull_logs = at.logs / FACTOR_SPREAD
    return float((table.weights * loss).sum() + (pull**2).sum() + (pull_logs**2).sum())


def derivatives(table: FitTable, at: Point, residual: Array) -> Array:
    """Return the derivatives of the residuals by the constants, shape (rows, constants)."""
    slopes = np.empty((len(residual), len(at.x)))
    for i in range(len(at.x)):
        moved = at.x.copy()
        moved[i] += DERIVATIVE_STEP
        slopes[:, i] = (residuals(table, Point(moved, at.logs)) - residual) / DERIVATIVE_STEP
    return slopes


def newton(table: FitTable, at: Point, damping: float) -> Point:
    """Return one damped Gauss-Newton step of constants and factors."""
    residual = residuals(table, at)
    slopes = derivatives(table, at, residual)
    spread = spreads()
    # a row's residual changes by one with the logarithm of its release's factor
    ones = np.zeros((len(residual), len(table.releases)))
    ones[np.arange(len(residual)), table.release_of] = 1.0
    root = np.sqrt(table.weights / np.sqrt(1 + (residual / TAIL) ** 2)) / NOISE
    jacobian = np.hstack([slopes, ones]) * root[:, None]

    ridge = np.concatenate([1 / spread, np.full(len(at.logs), 1 / FACTOR_SPREAD)])
    pull = np.concatenate([(at.x - vector(Physics())) / spread, at.logs / FACTOR_SPREAD])
    normal = jacobian.T @ jacobian + np.diag(ridge**2)
    gradient = jacobian.T @ (residual * root) + ridge * pull
    move = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
    bounded = np.clip(move, -LONGEST_STEP, LONGEST_STEP)
    return Point(bounded[: len(spread)], bounded[len(spread) :])
