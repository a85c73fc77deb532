"""Greedy continuation in torch: the reference that exports are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tumen.model.cache import Cache
from tumen.model.transformer import Transformer


@torch.inference_mode()
def greedy(network: Transformer, prompt: Sequence[int], end: int, longest: int = 64) -> list[int]:
    """The most likely continuation of one prompt, token by token with a cache.

    Args:
        network: in evaluation mode.
        prompt: token ids, at least one.
        end: token that stops, not part of the answer.
        longest: most tokens to write.
    """
    caches = [Cache() for _ in range(network.shape.num_hidden_layers)]
    written: list[int] = []
    # Tokens that the caches do not hold yet: first the prompt, then one at a time.
    fresh = list(prompt)
    while len(written) < longest:
        seen = len(caches[0])
        whole = seen + len(fresh)
        ids = torch.tensor([fresh])  # (1, T)
        positions = torch.arange(seen, whole).unsqueeze(0)
        past = torch.arange(whole).unsqueeze(0) <= positions[0].unsqueeze(1)  # (T, S)
        mask = torch.zeros(past.shape).masked_fill_(~past, float("-inf"))
        mask = mask[None, None]  # (1, 1, T, S)
        states, *_ = network(ids, positions, mask, caches)
        token = int(network.head(states[0, -1]).argmax())
        if token == end:
            break
        written.append(token)
        fresh = [token]
    return written
