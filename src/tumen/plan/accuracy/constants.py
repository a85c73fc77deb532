"""Fit the constants of the model to published runs: one set for all rows, and one factor a (framework, release).

Robust ridge regression on log(predicted / published) by Gauss-Newton with numerical derivatives: constants are pulled
to their priors, factors to 1, sources weigh by a root of their rows so that no table rules the fit. Nothing is fitted
to a row or a model. What a fit says about sources it has not seen (`tumen.plan.accuracy.report.left_out`) is what we believe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tumen.plan.accuracy.published import Published
from tumen.plan.model import time
from tumen.plan.model.case import Array, Case, Index, stack
from tumen.plan.model.physics import NAMES, SHARES, Physics, from_vector, vector

PRIOR_SPREAD = 0.35  # of the logarithm of a constant
SHARE_SPREAD = 0.7  # of the logit of a share
FACTOR_SPREAD = 0.12  # of the logarithm of a factor
NOISE = 0.05  # of one published figure
TAIL = 0.12  # where errors stop counting by their square


@dataclass(frozen=True)
class Table:
    """Rows with a published time as one case table; `starts` marks the first choice of each row."""

    rows: tuple[Published, ...]
    cases: Case
    starts: Index
    releases: tuple[str, ...]
    release_of: Index  # index into releases, a row
    seconds: Array
    weights: Array

    @classmethod
    def of(cls, rows: Sequence[Published]) -> Table:
        """Rows with a time."""
        timed = tuple(row for row in rows if row.seconds)
        cases = stack([case for row in timed for case in row.cases]).but(factor=1.0)
        counts = [len(row.cases) for row in timed]
        releases = tuple(dict.fromkeys(row.software.name for row in timed))
        sources = [row.source for row in timed]
        return cls(
            rows=timed,
            cases=cases,
            starts=np.cumsum([0, *counts])[:-1],
            releases=releases,
            release_of=np.array([releases.index(row.software.name) for row in timed]),
            seconds=np.array([row.seconds for row in timed], dtype=float),
            weights=np.array([sources.count(source) ** -0.4 for source in sources]),
        )

    def predict(self, physics: Physics) -> Array:
        """Seconds of each row before factors; a field nobody published takes its fastest legal choice."""
        best: Array = np.minimum.reduceat(time.step(self.cases, physics).step, self.starts)
        return best


@dataclass(frozen=True)
class Fitted:
    """Constants and factors of one fit."""

    physics: Physics
    factors: dict[str, float]

    def predict(self, table: Table) -> Array:
        """Seconds of each row of a table; a release the fit has not seen has factor 1."""
        factors = np.array([self.factors.get(name, 1.0) for name in table.releases])
        seconds: Array = table.predict(self.physics) * factors[table.release_of]
        return seconds


def fit(table: Table, start: Physics | None = None, rounds: int = 12) -> Fitted:
    """Constants and factors for a table, from `start` (default: the priors)."""
    prior = vector(Physics())
    x = vector(start or Physics())
    scale = np.array([SHARE_SPREAD if name in SHARES else PRIOR_SPREAD for name in NAMES])
    logs = np.zeros(len(table.releases))
    damp = 1e-3
    best = objective(table, x, logs, prior, scale)
    for _ in range(rounds):
        residual, slopes = linearised(table, x, logs)
        step_x, step_logs = newton(
            table, residual, slopes, (x - prior) / scale, logs / FACTOR_SPREAD, scale, damp
        )
        moved = objective(table, x + step_x, logs + step_logs, prior, scale)
        if moved < best:
            gain, best, damp = best - moved, moved, damp / 4
            x, logs = x + step_x, logs + step_logs
            if gain < 1e-4 * best:
                break
        else:
            damp *= 10
    return Fitted(
        from_vector(x),
        {name: float(np.exp(v)) for name, v in zip(table.releases, logs, strict=True)},
    )


def residuals(table: Table, x: Array, logs: Array) -> Array:
    """log(predicted / published) of each row."""
    out: Array = np.log(table.predict(from_vector(x)) / table.seconds) + logs[table.release_of]
    return out


def objective(table: Table, x: Array, logs: Array, prior: Array, scale: Array) -> float:
    """Pseudo-Huber loss of the rows and the ridge."""
    error = residuals(table, x, logs)
    loss = 2 * TAIL**2 * (np.sqrt(1 + (error / TAIL) ** 2) - 1) / NOISE**2
    return float(
        (table.weights * loss).sum()
        + (((x - prior) / scale) ** 2).sum()
        + ((logs / FACTOR_SPREAD) ** 2).sum()
    )


def linearised(table: Table, x: Array, logs: Array) -> tuple[Array, Array]:
    """Residuals and their derivatives by the constants, shape (rows, constants)."""
    residual = residuals(table, x, logs)
    slopes = np.empty((len(residual), len(x)))
    for i in range(len(x)):
        moved = x.copy()
        moved[i] += 1e-4
        slopes[:, i] = (residuals(table, moved, logs) - residual) / 1e-4
    return residual, slopes


def newton(
    table: Table,
    residual: Array,
    slopes: Array,
    pull: Array,
    pull_logs: Array,
    scale: Array,
    damp: float,
) -> tuple[Array, Array]:
    """One damped Gauss-Newton step of constants and factors."""
    ones = np.zeros((len(residual), len(table.releases)))
    ones[np.arange(len(residual)), table.release_of] = 1.0
    root = np.sqrt(table.weights / np.sqrt(1 + (residual / TAIL) ** 2)) / NOISE
    jacobian = np.hstack([slopes, ones]) * root[:, None]
    ridge = np.concatenate([1 / scale, np.full(len(pull_logs), 1 / FACTOR_SPREAD)])
    normal = jacobian.T @ jacobian + np.diag(ridge**2)
    gradient = jacobian.T @ (residual * root) + ridge * np.concatenate([pull, pull_logs])
    step = -np.linalg.solve(normal + damp * np.diag(np.diag(normal)), gradient)
    limit = np.clip(step, -0.7, 0.7)
    return limit[: len(scale)], limit[len(scale) :]
