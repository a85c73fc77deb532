"""Where each of our weights stands in a GGUF file, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tumen.core.shape import Shape
from tumen.shrink.gguf_writer import tensors_of


class Places:
    """The way from the file's tensors back to our weights.

    Every tensor of the file is a cut and reordering of ours, so sending numbers through in their place says which one stands where.
    A weight that the file holds twice (a tied embedding beside a head) must be the same in both.

    Args:
        weights: by our names; only their sizes are looked at.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor]) -> None:
        self.sizes = {name: weight.shape for name, weight in weights.items()}
        counts = [weight.numel() for weight in weights.values()]
        numbers = torch.arange(sum(counts)).split(counts)
        named = {
            name: number.view(self.sizes[name])
            for name, number in zip(weights, numbers, strict=True)
        }
        self.places = {
            name: _slice_or(place.flatten()) for name, place in tensors_of(shape, named).items()
        }

    def back(
        self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Our weights, as they are where `tensors` says nothing."""
        flat = torch.cat([weights[name].flatten() for name in self.sizes])
        for name, tensor in tensors.items():
            flat[self.places[name]] = tensor.flatten()
        parts = flat.split([size.numel() for size in self.sizes.values()])
        return {
            name: part.view(size)
            for (name, size), part in zip(self.sizes.items(), parts, strict=True)
        }


def _slice_or(place: Tensor) -> Tensor | slice:
    """Places that follow one another as a slice, which is many times faster."""
    first, last = int(place[0]), int(place[-1])
    return slice(first, last + 1) if bool((place.diff() == 1).all()) else place
