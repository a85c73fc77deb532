"""The key-value cache of one layer. MLA keeps (latent, rotary key), GQA keeps (keys, values)."""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Grows along the token dimension. Both tensors are (B, heads or 1, S, features)."""

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.first is None else self.first.shape[2]

    def extend(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Append T tokens and return everything kept so far."""
        if self.first is not None and self.second is not None:
            first = torch.cat((self.first, first), dim=2)
            second = torch.cat((self.second, second), dim=2)
        self.first = first
        self.second = second
        return first, second

    def elements(self) -> int:
        """Elements kept per token of one row; equals `shape.attention.cache_elements()`."""
        total = 0
        for part in (self.first, self.second):
            if part is not None:
                _, heads, _, features = part.shape
                total += heads * features
        return total
