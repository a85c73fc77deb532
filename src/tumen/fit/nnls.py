"""Least squares with no coefficient below zero, pulled to a prior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PULL = 0.02  # weight of the prior against relative errors of 1


def nonnegative(
    matrix: Array, target: Array, prior: Array, pull: float = PULL, rounds: int = 4000
) -> Array:
    """Least squares on relative errors with no coefficient below zero, pulled to a prior; by coordinate descent."""
    rows = matrix / target[:, None]
    scaled = rows * prior  # unknowns become multiples of the prior
    normal = scaled.T @ scaled + pull**2 * np.eye(len(prior))
    right = scaled.T @ np.ones(len(target)) + pull**2
    x = np.ones(len(prior))
    for _ in range(rounds):
        for i in range(len(x)):
            x[i] = max(x[i] + (right[i] - normal[i] @ x) / normal[i, i], 0.0)
    found: Array = x * prior
    return found
