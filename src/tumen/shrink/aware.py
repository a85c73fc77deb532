"""Training on the grid: the network computes with what a device will have, the gradient moves the fp32 weights behind it.

Straight-through (arXiv 1308.3432): the gradient at the rounded weights is taken for that at the weights themselves. The grid is the
one that was chosen before (choose.py), scales and all: weights move from point to point of it, and a step costs one rounding more.
What is learnt is the unquantised tier's own distributions (`teach`), asked for as it goes, whole: a few kept tokens would leave the
others free to move.

Packing takes the same scales and rounds the same way: what was validated is what is shipped, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tumen.core import Events, Shape
from tumen.core.recipe import Train
from tumen.data import Shards, read_shards
from tumen.model import build, causal_mask
from tumen.shrink.choose import Choice, read_grid
from tumen.shrink.gguf import tensors_of
from tumen.shrink.grid import GRIDS
from tumen.shrink.places import Places
from tumen.train import fit, read_final

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
        return self.places.back(weights, {name: GRIDS[grid].see(tensors[name], scales[name]) for name, grid in grids.items()})


def asked(shape: Shape, weights: Mapping[str, Tensor], shards: Shards) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss (logits (A, vocab), sources (A,)) -> (A,): KL from a teacher, run over the examples that the sources lie in."""
    teacher = build(shape).eval()
    teacher.load_state_dict(dict(weights))

    @torch.no_grad()
    def said(sources: np.ndarray) -> Tensor:
        examples, rows = np.unique(np.searchsorted(shards.starts, sources, side="right") - 1, return_inverse=True)
        starts, lengths = shards.starts[examples], shards.lengths[examples]
        ids = np.zeros((len(examples), int(lengths.max())), np.int64)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            ids[row, :length] = shards.tokens[start : start + length]
        tokens, real = torch.from_numpy(ids), torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
        positions = torch.arange(ids.shape[1]).expand_as(tokens)
        states, *_ = teacher(tokens, positions, causal_mask(torch.ones_like(tokens)), real=real)
        before = np.maximum(sources - starts[rows] - 1, 0)  # padding asks for token 0, which nothing stands before
        return teacher.head(states[torch.from_numpy(rows), torch.from_numpy(before)]).float().log_softmax(dim=-1)

    def loss(logits: Tensor, sources: Tensor) -> Tensor:
        wanted = said(sources.numpy())
        return (wanted.exp() * (wanted - logits.log_softmax(dim=-1))).sum(dim=-1)

    return loss


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
        section: the tier's, with the steps and rate of this training (`Quantise.section`).
        teach: share of the loss on the unquantised tier's distributions.

    Raises:
        TrainError, ArtifactError, DiskError: as `train.fit`.
    """
    shape, weights = read_final(checkpoint)
    fit(
        section,
        shape,
        dataset,
        out,
        seed=seed,
        inputs=inputs,
        made_from=made_from,
        events=events,
        distil=(teach, asked(shape, weights, read_shards(dataset / "train"))) if teach else None,
        start=weights,
        seen=OnGrid(shape, weights, read_grid(grid)),
    )
