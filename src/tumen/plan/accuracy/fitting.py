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
        every: list[Scenario] = []
        starts = []
        for row in timed:
            starts.append(len(every))
            every += row.scenarios
        names = [row.software.name for row in timed]
        releases = tuple(dict.fromkeys(names))  # each once, in the order of the rows
        sources = [row.source for row in timed]
        weights = [sources.count(source) ** SOURCE_POWER for source in sources]
        return cls(
            rows=timed,
            scenarios=stack(every).changed(factor=1.0),
            starts=np.array(starts),
            releases=releases,
            release_of=np.array([releases.index(name) for name in names]),
            seconds=np.array([row.seconds for row in timed], dtype=float),
            weights=np.array(weights),
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
    factors = {}
    for name, log in zip(table.releases, at.logs, strict=True):
        factors[name] = float(np.exp(log))
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
    """Return the pseudo-Huber loss of the rows and the ridge of constants and factors.

    Args:
        table: published rows.
        at: constants and factors.
    """
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
    """Return one damped Gauss-Newton step of constants and factors.

    Args:
        table: published rows.
        at: where the step begins.
        damping: added to the diagonal, as a multiple of it (Levenberg-Marquardt).
    """
    residual = residuals(table, at)
    root = row_weights(table, residual)
    jacobian = jacobian_of(table, at, residual) * root[:, None]
    ridge, pull = priors(at)
    normal = jacobian.T @ jacobian + np.diag(ridge**2)
    gradient = jacobian.T @ (residual * root) + ridge * pull
    damped = normal + damping * np.diag(np.diag(normal))
    move = -np.linalg.solve(damped, gradient)
    bounded = np.clip(move, -LONGEST_STEP, LONGEST_STEP)
    constants = len(at.x)
    return Point(bounded[:constants], bounded[constants:])


def row_weights(table: FitTable, residual: Array) -> Array:
    """Return the square roots of the rows' weights; a row far off counts less (pseudo-Huber)."""
    tails = np.sqrt(1 + (residual / TAIL) ** 2)
    found: Array = np.sqrt(table.weights / tails) / NOISE
    return found


def jacobian_of(table: FitTable, at: Point, residual: Array) -> Array:
    """Return the derivatives of the residuals, shape (rows, constants + releases).

    A row's residual changes by one with the logarithm of its release's factor.
    """
    slopes = derivatives(table, at, residual)
    rows = np.arange(len(residual))
    ones = np.zeros((len(residual), len(table.releases)))
    ones[rows, table.release_of] = 1.0
    return np.hstack([slopes, ones])


def priors(at: Point) -> tuple[Array, Array]:
    """Return (ridge, pull) of constants and factors.

    ridge: one over how far each may move; pull: how far it is from its prior, in that unit.
    """
    spread = spreads()
    factors = np.full(len(at.logs), 1 / FACTOR_SPREAD)
    ridge = np.concatenate([1 / spread, factors])
    off = (at.x - vector(Physics())) / spread
    pull = np.concatenate([off, at.logs / FACTOR_SPREAD])
    return ridge, pull
