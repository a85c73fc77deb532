"""What a compute budget buys: steps of a tier, and what they spend.

    flops of a step = 3 x flops_per_token(row_tokens) x rows x row_tokens          (forward once, backward twice)
    steps           = floor(budget / flops of a step)

Matmuls and attention scores are counted, of experts the chosen ones; the optimiser, padding of expert queues, recomputation
and what a teacher costs are not. Networks of one budget so differ by less than a step each (arXiv 2203.15556 counts alike).
"""

from __future__ import annotations

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Shape
from tumen.recipe import Train


class Spent(Frozen):
    """A training run in numbers: tokens seen, weights held and used by a token, bytes of cache a token (16 bit), FLOPs."""

    steps: int
    tokens: int
    parameters: int
    active_parameters: int
    cache_bytes: float
    step_flops: int
    flops: int


def step_flops(shape: Shape, train: Train) -> int:
    """FLOPs of one training step; the masked scores of a row are computed in full."""
    return 3 * shape.flops_per_token(train.seq_len) * train.batch_size * train.seq_len


def steps_within(budget: float, shape: Shape, train: Train, what: str) -> int:
    """Whole steps that a budget of FLOPs pays for.

    Raises:
        PlanError: not even one; `what` names the budget.
    """
    step = step_flops(shape, train)
    if budget < step:
        raise PlanError(
            f"{what}: one step takes {step:.3g} FLOPs, the budget is {budget:.3g}; raise it, or take fewer rows"
        )
    return int(budget // step)


def spent(shape: Shape, train: Train) -> Spent:
    """What the steps of a train section spend on a shape with its vocabulary."""
    step = step_flops(shape, train)
    return Spent(
        steps=train.steps,
        tokens=train.steps * train.batch_size * train.seq_len,
        parameters=shape.parameters(),
        active_parameters=shape.active_parameters(),
        cache_bytes=shape.cache_bytes(),
        step_flops=step,
        flops=train.steps * step,
    )
