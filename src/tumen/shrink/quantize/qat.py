"""Training on the grid: the network computes with what a device will have, the gradient moves the fp32 weights behind it.

Straight-through (arXiv 1308.3432): the gradient at the rounded weights is taken for that at the weights themselves. The grid is the
one that was chosen before (choose.py), scales and all: weights move from point to point of it, and a step costs one rounding more.
What is learnt is the unquantised tier's own distributions (`teach`), asked for as it goes, whole: a few kept tokens would leave the
others free to move.

Packing takes the same scales and rounds the same way: what was validated is what is shipped, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.model import build
from tumen.recipe import Train
from tumen.shrink.distillation import live_loss
from tumen.shrink.gguf_writer import tensors_of
from tumen.shrink.quant_types import GRIDS
from tumen.shrink.quantize.allocation import Choice, read_grid
from tumen.shrink.quantize.tensors import Places
from tumen.train import Method, fit
from tumen.train.weights import read_final


class OnGrid:
    """What a device will have of given weights: `train.fit(seen=...)`.

    Args:
        weights: by our names; their sizes.
        choice: the grid of each matrix and its scales; what it does not name stays as it is.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], choice: Choice) -> None:
        self.shape, self.choice, self.places = shape, choice, Places(shape, weights)

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """fp32 weights by our names -> the same on the grid."""
        tensors = tensors_of(self.shape, weights)
        grids, scales = self.choice.grids, self.choice.scales
        return self.places.back(
            weights,
            {name: GRIDS[grid].see(tensors[name], scales[name]) for name, grid in grids.items()},
        )


def learn_grid(
    section: Train,
    teach: float,
    checkpoint: Path,
    grid: Path,
    dataset: Path,
    out: Path,
    *,
    seed: int,
    inputs: str,
    made_from: list[str],
    events: Events,
) -> None:
    """Train a tier on its chosen grids; writes the checkpoint artifact `out`, fp32 weights that round well.

    Args:
        section: the tier's, with the steps and rate of this training (`Quantize.section`).
        teach: share of the loss on the unquantised tier's distributions.

    Raises:
        TrainError, ArtifactError, DiskError: as `train.fit`.
    """
    shape, weights = read_final(checkpoint)
    whole = (
        build(shape).eval().requires_grad_(requires_grad=False)
    )  # in fp32: what is to be learnt is as small as bf16's rounding
    whole.load_state_dict(weights)
    fit(
        section,
        shape,
        dataset,
        out,
        seed=seed,
        inputs=inputs,
        made_from=made_from,
        events=events,
        method=Method(
            distil=(teach, live_loss(whole, 1.0)) if teach else None,
            start=weights,
            seen=OnGrid(shape, weights, read_grid(grid)),
        ),
    )
