"""Non-negative least squares with a prior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PULL = 0.02  # weight of the prior against relative errors of 1


def nonnegative(
    matrix: Array, target: Array, prior: Array, pull: float = PULL, rounds: int = 4000
) -> Array:
    """Fit coefficients that are not negative, by coordinate descent.

    Args:
        matrix: (measurements, coefficients).
        target: (measurements,); errors are relative to it.
        prior: (coefficients,) that are likely where the measurements do not decide.
        pull: weight of the prior.
        rounds: of the descent over all coefficients.

    Returns:
        The coefficients.
    """
    rows = matrix / target[:, None]
    scaled = rows * prior  # unknowns become multiples of the prior
    # Normal equations of the measurements and the prior, whose multiples are all 1.
    normal = scaled.T @ scaled + pull**2 * np.eye(len(prior))
    right = scaled.T @ np.ones(len(target)) + pull**2
    x = np.ones(len(prior))
    for _ in range(rounds):
        for i in range(len(x)):
            # The best value of one coefficient, given the others.
            step = (right[i] - normal[i] @ x) / normal[i, i]
            x[i] = max(x[i] + step, 0.0)
    found: Array = x * prior
    return found
