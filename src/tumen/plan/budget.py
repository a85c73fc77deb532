"""The steps that a compute budget pays for, and the compute that steps take.

    FLOPs of a step = 3 x flops_per_token(seq_len) x batch_size x seq_len
    steps           = floor(budget / FLOPs of a step)

The factor 3 is one forward pass and a backward pass of twice its FLOPs.

Counted are matmuls and attention scores, of experts the chosen ones; not the optimizer, the padding
of expert queues, recomputation and a teacher. Networks trained with one budget so differ by less
than a step each (arXiv 2203.15556 counts in the same way).
"""

from __future__ import annotations

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Shape
from tumen.recipe import Train


class TrainingCompute(Frozen):
    """The compute of a training run, with the tokens and the network it is for."""

    steps: int
    tokens: int  # seen in training
    parameters: int
    active_parameters: int  # used by a token
    cache_bytes: float  # of the key-value cache, a token, in 16 bits
    step_flops: int
    flops: int  # of all steps


def step_flops(shape: Shape, train: Train) -> int:
    """Return the FLOPs of one training step; masked scores are computed in full."""
    return 3 * shape.flops_per_token(train.seq_len) * train.batch_size * train.seq_len


def steps_within(budget: float, shape: Shape, train: Train, what: str) -> int:
    """Return the whole steps that a budget pays for.

    Args:
        budget: FLOPs.
        shape: the network, with its vocabulary.
        train: its batch and sequence length.
        what: name of the budget, for the message.

    Raises:
        PlanError: the budget is less than one step.
    """
    step = step_flops(shape, train)
    if budget < step:
        raise PlanError(
            f"{what}: one step takes {step:.3g} FLOPs, the budget is {budget:.3g}; "
            "raise it, or set a smaller batch_size"
        )
    return int(budget // step)


def training_compute(shape: Shape, train: Train) -> TrainingCompute:
    """Return the compute of a training section's steps on a shape with its vocabulary."""
    step = step_flops(shape, train)
    return TrainingCompute(
        steps=train.steps,
        tokens=train.steps * train.batch_size * train.seq_len,
        parameters=shape.parameters(),
        active_parameters=shape.active_parameters(),
        cache_bytes=shape.cache_bytes(),
        step_flops=step,
        flops=train.steps * step,
    )
