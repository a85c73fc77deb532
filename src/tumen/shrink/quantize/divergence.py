"""What a change of the weights does to what is said: KL from the whole model's next-token distributions to the changed one's."""

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


class Reference:
    """A model's distributions at the action tokens of some examples.

    Args:
        weights: fp32, by our names.
        batches: the examples; kept, with A distributions over the vocabulary in memory.
    """

    def __init__(
        self, shape: Shape, weights: Mapping[str, Tensor], batches: Sequence[Batch]
    ) -> None:
        self.network, self.batches = build(shape).eval(), batches
        self.kept = list(self._said(weights))

    def divergence(self, weights: Mapping[str, Tensor]) -> Tensor:
        """KL in nats at every position (A,), fp32, of other weights for the same shape."""
        pairs = zip(self.kept, self._said(weights), strict=True)
        return torch.cat([(p.exp() * (p - q)).sum(dim=-1).clamp(min=0) for p, q in pairs])

    @torch.inference_mode()
    def _said(self, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
        self.network.load_state_dict(dict(weights), strict=False)
        for batch in self.batches:
            yield answers_logp(self.network, batch)


def answers_logp(network: Transformer, batch: Batch) -> Tensor:
    """Log-probabilities (A, vocab) where the next token belongs to an action."""
    ids, documents, positions = (
        torch.from_numpy(part) for part in (batch.ids, batch.documents, batch.positions)
    )
    states, *_ = network(ids, positions, causal_mask(documents), real=documents > 0)
    rows = torch.from_numpy(np.flatnonzero(batch.answers.reshape(-1)))
    return network.head(states.flatten(0, 1)[rows]).float().log_softmax(dim=-1)


def some_batches(folder: Path, examples: int, seed: int) -> list[Batch]:
    """Packed rows of at least so many examples of a split, or all of them, in an order that the seed decides."""
    shards = read_shards(folder)
    loader = Loader(shards, ROWS, max(128, int(shards.lengths.max())), seed)
    found, count = [], 0
    while count < min(examples, len(shards)):
        found.append(next(loader))
        count += len(found[-1].samples)
    return found
