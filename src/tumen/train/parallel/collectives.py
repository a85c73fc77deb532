"""Exchanges between ranks, each with its backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def all_to_all(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Send part i of x (ranks, ...) to rank i; return what each rank sent here, in rank order."""
    x = x.contiguous()
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x, group=group)
    return out


def all_reduced(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return the sum over a group in a new tensor."""
    out = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, group=group)
    return out


class SumBackward(torch.autograd.Function):
    """Identity forward, sum over the group backward.

    The f of Megatron-LM (arXiv 1909.08053, section 3).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Return x as it is."""
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Sum the gradients over the group."""
        return all_reduced(grads[0], ctx.group), None


class SumForward(torch.autograd.Function):
    """Sum over the group forward, identity backward.

    The g of Megatron-LM (arXiv 1909.08053, section 3).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Sum x over the group."""
        return all_reduced(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient as it is."""
        return grads[0], None


class GatherSequence(torch.autograd.Function):
    """Gather the parts of a sequence in rank order.

    x (B, H, T / c, d) of c ranks -> (B, H, T, d).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Gather from all ranks of the group."""
        ctx.group = group
        ranks = group.size()
        out = x.new_empty(ranks * len(x), *x.shape[1:])  # (c B, H, T / c, d)
        dist.all_gather_into_tensor(out, x.contiguous(), group=group)
        return out.unflatten(0, (ranks, -1)).movedim(0, 2).flatten(2, 3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Sum each rank's part of the gradient over the group."""
        ranks = ctx.group.size()
        # (B, H, T, d) -> (c, B, H, T / c, d)
        parts = grads[0].unflatten(2, (ranks, -1)).movedim(2, 0).contiguous()
        out = torch.empty_like(parts[0])
        dist.reduce_scatter_tensor(out, parts.flatten(0, 1), group=ctx.group)
        return out, None


class AllToAll(torch.autograd.Function):
    """`all_to_all`, whose backward pass is another all-to-all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Exchange x (ranks, ...)."""
        ctx.group = group
        return all_to_all(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Exchange the gradient the same way."""
        return all_to_all(grads[0], ctx.group), None
