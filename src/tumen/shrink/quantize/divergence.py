"""Divergence that a change of the weights causes: KL between next-token distributions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tumen.core.shape import Shape
from tumen.data import Batch, Loader, read_shards
from tumen.model import Transformer, build, causal_mask

ROWS = 16
LEAST_LENGTH = 128  # tokens of a packed row


class Reference:
    """A model's distributions at the action tokens of some examples.

    Args:
        shape: of the model.
        weights: fp32, by our names.
        batches: the examples. They stay in memory, with the distributions at their A action tokens.
    """

    def __init__(
        self, shape: Shape, weights: Mapping[str, Tensor], batches: Sequence[Batch]
    ) -> None:
        self.network = build(shape).eval()
        self.batches = batches
        self.kept = list(self._logp(weights))

    def divergence(self, weights: Mapping[str, Tensor]) -> Tensor:
        """KL in nats at every position (A,), fp32, of other weights for the same shape."""
        found = []
        for p, q in zip(self.kept, self._logp(weights), strict=True):
            apart = p.exp() * (p - q)  # (A, vocabulary)
            # Rounding can make a sum slightly negative.
            found.append(apart.sum(dim=-1).clamp(min=0))
        return torch.cat(found)

    @torch.inference_mode()
    def _logp(self, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
        self.network.load_state_dict(dict(weights), strict=False)
        for batch in self.batches:
            yield answers_logp(self.network, batch)


def answers_logp(network: Transformer, batch: Batch) -> Tensor:
    """Log-probabilities (A, vocabulary) where the next token belongs to an action."""
    ids = torch.from_numpy(batch.ids)
    documents = torch.from_numpy(batch.documents)
    positions = torch.from_numpy(batch.positions)
    real = documents > 0
    states, *_ = network(ids, positions, causal_mask(documents), real=real)  # (B, T, D)
    rows = torch.from_numpy(np.flatnonzero(batch.answers.reshape(-1)))
    logits = network.head(states.flatten(0, 1)[rows])
    return logits.float().log_softmax(dim=-1)


def some_batches(folder: Path, examples: int, seed: int) -> list[Batch]:
    """Packed rows with at least `examples` examples of a split, or all, in an order by the seed."""
    shards = read_shards(folder)
    length = max(LEAST_LENGTH, int(shards.lengths.max()))
    loader = Loader(shards, ROWS, length, seed)
    found: list[Batch] = []
    count = 0
    while count < min(examples, len(shards)):
        batch = next(loader)
        found.append(batch)
        count += len(batch.samples)
    return found
