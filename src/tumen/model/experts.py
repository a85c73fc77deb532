"""Feed-forward layers: the gated dense one (SwiGLU, arXiv 2002.05202) and DeepSeekMoE (arXiv 2405.04434, section 2.2).

In training every expert gets the same room (`capacity` x an even share), so that all matmuls keep one shape: on a CPU oneDNN
compiles a kernel for each new shape, which used to cost more than the matmuls. What overflows is dropped, never at evaluation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core import Experts
from tumen.model.attention import linear

ROOM = 32  # rows of one expert are a multiple of this


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = linear(width, inner), linear(width, inner), linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class _Gather(torch.autograd.Function):
    """Rows of `x` (N, D) in another order; both directions are plain gathers, so the result never depends on threads.

    `forward_index` (M) names a row of x or N for a row of zeros; `backward_index` (N, k) names, for each row of x, the k
    rows of the output that read it, or M for none.
    """

    @staticmethod
    def forward(x: Tensor, forward_index: Tensor, backward_index: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 1))[forward_index]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return F.pad(grads[0], (0, 0, 0, 1))[index].sum(dim=1), None, None


class MixtureOfExperts(nn.Module):
    """Shared experts plus the `top_k` best of the routed ones, weighted by their softmax affinity (equations 20-22)."""

    def __init__(self, width: int, shape: Experts) -> None:
        super().__init__()
        self.shape = shape
        self.router = linear(width, shape.routed)
        self.gate = nn.Parameter(torch.empty(shape.routed, width, shape.width))
        self.up = nn.Parameter(torch.empty(shape.routed, width, shape.width))
        self.down = nn.Parameter(torch.empty(shape.routed, shape.width, width))
        self.shared = FeedForward(width, shape.width * shape.shared) if shape.shared else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> output (B, T, D) and the balance loss, a scalar already times its factor."""
        shape = self.shape
        rows = x.flatten(0, 1)  # (N, D)
        affinity = self.router(rows).float().softmax(dim=-1)  # (N, E)
        weight, choice = affinity.topk(shape.top_k, dim=-1)  # (N, k)
        if shape.normalise:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        chosen = F.one_hot(choice.flatten(), shape.routed)  # (N * k, E)
        out = self._routed(rows, choice, chosen)  # (N, k, D)
        mixed = (out * (weight * shape.scale).unsqueeze(-1).to(out.dtype)).sum(dim=1)
        if self.shared is not None:
            mixed = mixed + self.shared(rows)
        return mixed.view_as(x), self._balance(affinity, chosen)

    def _balance(self, affinity: Tensor, chosen: Tensor) -> Tensor:
        """Expert-level balance loss (equations 23-25): factor * sum over experts of f_i P_i, 1 times the factor when even."""
        load = chosen.float().mean(dim=0) * self.shape.routed
        return self.shape.balance * (load * affinity.mean(dim=0)).sum()

    def _routed(self, rows: Tensor, choice: Tensor, chosen: Tensor) -> Tensor:
        """The chosen experts' outputs (N, k, D); a dropped choice gives zeros."""
        shape, N = self.shape, rows.shape[0]
        room = self._room(N, chosen)
        expert = choice.flatten()  # (N * k,)
        place = (chosen.cumsum(dim=0) - 1).gather(1, expert.unsqueeze(1)).squeeze(1)  # queue position in the expert
        size = shape.routed * room
        slot = torch.where(place < room, expert * room + place, size)  # (N * k,), `size` is dropped
        reader = torch.full((size + 1,), N * shape.top_k, dtype=slot.dtype, device=slot.device)
        reader = reader.scatter(0, slot, torch.arange(N * shape.top_k, device=slot.device))[:size]  # slot -> choice
        gathered = _Gather.apply(rows, reader // shape.top_k, slot.view(N, shape.top_k))  # (E * room, D)
        queue = gathered.view(shape.routed, room, -1)
        inner = F.silu(torch.bmm(queue, self.gate)) * torch.bmm(queue, self.up)
        out = torch.bmm(inner, self.down).flatten(0, 1)
        return _Gather.apply(out, slot, reader.unsqueeze(1)).view(N, shape.top_k, -1)

    def _room(self, tokens: int, chosen: Tensor) -> int:
        """Rows kept for each expert: a fixed share in training, the fullest queue at evaluation, where nothing is dropped."""
        if self.training:
            wanted = math.ceil(self.shape.capacity * tokens * self.shape.top_k / self.shape.routed)
        else:
            wanted = int(chosen.sum(dim=0).max())
        return math.ceil(max(wanted, 1) / ROOM) * ROOM
