"""Quantization-aware training: compute with rounded weights, update the fp32 weights behind them.

Straight-through (arXiv 1308.3432): the gradient at the rounded weights is used for the fp32
weights. Types and scales are those chosen before (quantize/allocation.py): weights move from point
to point of their type, and a step costs one rounding more. The loss is on the distributions of the
unquantized tier (`teach`), computed live and whole: with a few stored tokens the others would be
free to move.

Packing takes the same scales and rounds the same way: the shipped weights are the validated ones,
bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tumen.core.shape import Shape
from tumen.model import build
from tumen.recipe import Train
from tumen.shrink.distillation import live_loss
from tumen.shrink.gguf_writer import tensors_of
from tumen.shrink.quant_types import QUANTIZERS
from tumen.shrink.quantize.allocation import QuantChoice, read_types
from tumen.shrink.quantize.tensors import Places
from tumen.train import Making, Method, fit
from tumen.train.weights import read_final


class FakeQuantize:
    """The weights that a device will have: `Method.forward_weights` of `train.fit`.

    Args:
        shape: of the network.
        weights: by our names; only their sizes are read.
        choice: type and scales of each matrix; a matrix that it does not name stays as it is.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], choice: QuantChoice) -> None:
        self.shape = shape
        self.choice = choice
        self.places = Places(shape, weights)

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Round fp32 weights by our names to their types."""
        tensors = tensors_of(self.shape, weights)
        rounded = {}
        for name, quant_type in self.choice.types.items():
            scales = self.choice.scales[name]
            rounded[name] = QUANTIZERS[quant_type].fake_quantize(tensors[name], scales)
        return self.places.back(weights, rounded)


def train_quantized(
    section: Train,
    teach: float,
    checkpoint: Path,
    types: Path,
    dataset: Path,
    out: Path,
    *,
    making: Making,
) -> None:
    """Train a tier on its chosen types; write the checkpoint artifact `out` of fp32 weights.

    Args:
        section: the tier's, with the steps and rate of this training (`Quantize.section`).
        teach: share of the loss on the unquantized tier's distributions.
        checkpoint: the trained tier.
        types: artifact of `write_types`.
        dataset: dataset artifact.
        out: the new artifact.
        making: seed, inputs, parents and events.

    Raises:
        TrainError, ArtifactError, DiskError: as `train.fit`.
    """
    shape, weights = read_final(checkpoint)
    # In fp32: the differences to learn are as small as bf16's rounding.
    unquantized = build(shape).eval().requires_grad_(requires_grad=False)
    unquantized.load_state_dict(weights)
    distil = (teach, live_loss(unquantized, 1.0)) if teach else None
    method = Method(
        distil=distil,
        start=weights,
        forward_weights=FakeQuantize(shape, weights, read_types(types)),
    )
    fit(section, shape, dataset, out, making=making, method=method)
