"""How the chosen experts are run: one result, three ways, by name (`train.expert_kernel`).

    padded   every expert's queue gets the same room, three batched matmuls; few distinct shapes, and what travels between ranks
    grouped  torch's grouped matmul over queues of any length; a GPU's choice, on a CPU its shapes change at every step
    loop     one expert after the other; the plain reference

On a CPU oneDNN compiles a kernel for each new shape, which used to cost more than the matmuls: hence `ROOM`.
Shapes: N tokens, K choices a token, M = N K choices, E experts, D model width, I an expert's inner width.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROOM = 32  # rows of one expert are a multiple of this
Weights = tuple[Tensor, Tensor, Tensor]  # gate (E, D, I), up (E, D, I), down (E, I, D)


def rounded(rows: int) -> int:
    """The next multiple of `ROOM`."""
    return math.ceil(max(rows, 1) / ROOM) * ROOM


class Queue(NamedTuple):
    """Choices (M,) in line before their experts, the most liked first; expert E is for those nobody computes.

    `order` (M,): choices by expert. `place` (M,): a choice's position in its line. `counts` (E,): lengths of the lines.
    """

    expert: Tensor
    order: Tensor
    place: Tensor
    counts: Tensor


def queue_of(expert: Tensor, experts: int, liking: Tensor) -> Queue:
    """Line up choices: expert (M,) in 0..E, liking (M,) in [0, 4)."""
    order = torch.argsort(expert.double() * 4 - liking.double(), stable=True)
    counts = torch.zeros(experts + 1, dtype=torch.long, device=expert.device)
    counts = counts.scatter_add(0, expert, torch.ones_like(expert))
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return Queue(expert, order, rank - first[expert], counts[:-1])


class TokenDispatcher:
    """Sends queues of tokens to the ranks of their experts and back. In one process it does nothing.

    E experts, `room` places in each queue, D features.
    """

    ranks = 1

    def dispatch(self, queue: Tensor) -> Tensor:
        """Send queues (E, room, D) to the experts' ranks -> (E / ranks, ranks * room, D)."""
        return queue

    def combine(self, queue: Tensor) -> Tensor:
        """Send results (E / ranks, ranks * room, D) back -> (E, room, D)."""
        return queue

    def longest_queue(self, rows: int) -> int:
        """Return the largest `rows` of all ranks."""
        return rows


class Gather(torch.autograd.Function):
    """Rows of `x` (n, D) in another order; both directions are plain gathers, so the result never depends on threads.

    `forward_index` (m) names a row of x, or n for a row of zeros; `backward_index` (n, k) names, for each row of x, the k
    rows of the output that read it, or m for none.
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


def padded(
    rows: Tensor, queue: Queue, room: int, weights: Weights, dispatcher: TokenDispatcher
) -> Tensor:
    """Rows (N, D) -> outputs of every choice (M, D), zeros where there is none; lines longer than `room` lose their end."""
    gate, up, down = weights
    M = len(queue.expert)
    size = len(queue.counts) * room
    here = (queue.place < room) & (queue.expert < len(queue.counts))
    slot = torch.where(here, queue.expert * room + queue.place, size)  # (M,)
    reader = torch.full((size + 1,), M, dtype=slot.dtype, device=slot.device)
    reader = reader.scatter(0, slot, torch.arange(M, device=slot.device))[:size]  # slot -> choice
    gathered = Gather.apply(
        rows, reader // (M // len(rows)), slot.view(len(rows), -1)
    )  # (E * room, D)
    line = dispatcher.dispatch(gathered.view(-1, room, rows.shape[-1]))
    out = torch.bmm(F.silu(torch.bmm(line, gate)) * torch.bmm(line, up), down)
    return Gather.apply(dispatcher.combine(out).flatten(0, 1), slot, reader.unsqueeze(1))


def grouped(
    rows: Tensor, queue: Queue, room: int, weights: Weights, dispatcher: TokenDispatcher
) -> Tensor:
    """The same by `torch.nn.functional.grouped_mm` over lines of any length; `room` is not needed."""
    gate, up, down = weights
    M = len(queue.expert)
    N = len(rows)
    ends = queue.counts.cumsum(0).int()
    position = torch.empty_like(queue.order).scatter(
        0, queue.order, torch.arange(M, device=rows.device)
    )
    position = torch.where(
        queue.expert < len(queue.counts), position, M
    )  # what lies behind the last line is never read
    reader = torch.where(torch.arange(M, device=rows.device) < ends[-1], queue.order, M)
    line = Gather.apply(rows, queue.order // (M // N), position.view(N, -1))  # (M, D) by expert
    inner = F.silu(F.grouped_mm(line, gate, offs=ends)) * F.grouped_mm(line, up, offs=ends)
    return Gather.apply(F.grouped_mm(inner, down, offs=ends), position, reader.unsqueeze(1))


def loop(
    rows: Tensor, queue: Queue, room: int, weights: Weights, dispatcher: TokenDispatcher
) -> Tensor:
    """The same, expert by expert."""
    choices = len(queue.expert) // len(rows)
    out = rows.new_zeros(len(queue.expert), rows.shape[-1])
    start = 0
    for e, count in enumerate(queue.counts.tolist()):
        mine = queue.order[start : start + count]
        x = rows[mine // choices]
        gate, up, down = (weight[e] for weight in weights)
        out = out.index_copy(0, mine, (F.silu(x @ gate) * (x @ up)) @ down)
        start += count
    return out


KERNELS = {"padded": padded, "grouped": grouped, "loop": loop}
