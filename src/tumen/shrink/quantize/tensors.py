"""Map the tensors of a GGUF file back to our weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tumen.core.shape import Shape
from tumen.shrink.gguf_writer import tensors_of


class Places:
    """Where each weight of ours lies in the file's tensors.

    Every tensor of the file is a slice or permutation of ours, so we write numbers instead of
    weights once and read off which number lies where. A weight that the file holds twice (a tied
    embedding and the head) must be equal in both.

    Args:
        shape: of the network.
        weights: by our names; only their sizes are read.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor]) -> None:
        self.sizes = {name: weight.shape for name, weight in weights.items()}
        counts = [weight.numel() for weight in weights.values()]
        numbers = torch.arange(sum(counts)).split(counts)
        numbered = self._shaped(numbers)
        self.places = {}
        for name, place in tensors_of(shape, numbered).items():
            self.places[name] = _slice_or(place.flatten())

    def back(
        self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Our weights with the values of `tensors`, unchanged where `tensors` has none."""
        flat = torch.cat([weights[name].flatten() for name in self.sizes])
        for name, tensor in tensors.items():
            flat[self.places[name]] = tensor.flatten()
        counts = [size.numel() for size in self.sizes.values()]
        return self._shaped(flat.split(counts))

    def _shaped(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Flat tensors, one a weight, by our names and in our sizes."""
        found = {}
        for (name, size), part in zip(self.sizes.items(), parts, strict=True):
            found[name] = part.view(size)
        return found


def _slice_or(place: Tensor) -> Tensor | slice:
    """Consecutive places as a slice, which is many times faster than an index."""
    first = int(place[0])
    last = int(place[-1])
    consecutive = bool((place.diff() == 1).all())
    return slice(first, last + 1) if consecutive else place
