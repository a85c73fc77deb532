"""Training on the grid: the network computes with what a device will have, the gradient moves the fp32 weights behind it.

Straight-through (arXiv 1308.3432): the gradient at the rounded weights is taken for that at the weights themselves. Scales are
searched anew every few steps and held in between, when a step costs one rounding more. What is learnt is the unquantised tier's own
distributions (`teach`), which say more about a sentence than its one right action.

The last search is after the last step, on the weights of the checkpoint, and packing makes the same search: what was validated is
what is shipped, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tumen.core import Events, Shape, TrainError, verify
from tumen.core.recipe import GridName, Train
from tumen.data import read_shards
from tumen.shrink.choose import read_grid
from tumen.shrink.gguf import tensors_of
from tumen.shrink.grid import GRIDS, Scales
from tumen.shrink.places import Places
from tumen.shrink.student import kept_loss, write_logits
from tumen.train import fit, read_final

HOLD = 20  # steps between two searches for scales


class OnGrid:
    """What a device will have of given weights: `train.fit(seen=...)`.

    Args:
        weights: by our names; their sizes.
        grids: by the file's names; what it does not name stays as it is.
        importance: by the file's names, see `Grid.fit`.
        last: the step after which scales are searched a last time.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Tensor],
        grids: Mapping[str, GridName],
        importance: Mapping[str, Tensor],
        last: int,
    ) -> None:
        self.shape, self.grids, self.importance, self.last = shape, grids, importance, last
        self.places = Places(shape, weights)
        self.scales: dict[str, Scales] = {}

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """fp32 weights by our names, after so many steps -> the same on the grid."""
        tensors = tensors_of(self.shape, weights)
        if step % HOLD == 0 or step == self.last:
            self.scales = {name: GRIDS[grid].fit(tensors[name], self.importance.get(name)) for name, grid in self.grids.items()}
        seen = {name: GRIDS[grid].see(tensors[name], self.scales[name]) for name, grid in self.grids.items()}
        return self.places.back(weights, seen)


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
        TrainError: checkpoints would fall between two searches; else as `train.fit`.
    """
    if section.checkpoint_every % HOLD:
        raise TrainError(f"train.checkpoint_every is {section.checkpoint_every}: on a grid it must be a multiple of {HOLD}")
    shape, weights = read_final(checkpoint)
    choice = read_grid(grid)
    distil = None
    if teach:
        kept = out.with_name(f"{out.name}-logits")
        write_logits(checkpoint, dataset, kept, section, events, section.steps, seed)
        distil = (teach, kept_loss(kept, read_shards(dataset / "train"), 1.0))
        made_from = [*made_from, verify(kept, "logits").digest]
    fit(
        section,
        shape,
        dataset,
        out,
        seed=seed,
        inputs=inputs,
        made_from=made_from,
        events=events,
        distil=distil,
        start=weights,
        seen=OnGrid(shape, weights, choice.grids, choice.importance, section.steps),
    )
