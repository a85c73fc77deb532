"""Run the chosen experts: three kernels with one result, by name (`train.expert_kernel`).

    padded   every expert's queue is padded to the same length, three batched matmuls; few distinct
             shapes, and the form that travels between ranks
    grouped  torch's grouped matmul over queues of any length, for GPUs; on a CPU its shapes change
    at
             every step
    loop     one expert after the other; the plain reference

On a CPU oneDNN compiles a kernel for each new shape, which costs more than the matmuls: hence
`ROOM`.
Shapes: N tokens, K choices a token, M = N K choices, E experts, D features, I inner features of an
expert.
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
    """The next multiple of `ROOM`, at least one."""
    return math.ceil(max(rows, 1) / ROOM) * ROOM


class Queue(NamedTuple):
    """Choices (M,) queued for their experts, the best first.

    Attributes:
        expert: (M,) of each choice; E for choices that are not computed.
        order: (M,) choices sorted by expert.
        place: (M,) of each choice in its expert's queue.
        counts: (E,) lengths of the queues.
    """

    expert: Tensor
    order: Tensor
    place: Tensor
    counts: Tensor


def queue_of(expert: Tensor, experts: int, liking: Tensor) -> Queue:
    """Sort choices into queues: expert (M,) in 0..E, liking (M,) in [0, 4)."""
    # One sort by both keys: liking is less than the distance between two experts.
    order = torch.argsort(expert.double() * 4 - liking.double(), stable=True)
    counts = torch.zeros(experts + 1, dtype=torch.long, device=expert.device)
    counts = counts.scatter_add(0, expert, torch.ones_like(expert))
    first = counts.cumsum(0) - counts  # (E + 1,) where each queue begins in `order`
    rank = _inverse(order)
    return Queue(expert, order, rank - first[expert], counts[:-1])


def _inverse(order: Tensor) -> Tensor:
    """The inverse of a permutation (M,)."""
    numbers = torch.arange(len(order), device=order.device)
    return torch.empty_like(order).scatter(0, order, numbers)


class TokenDispatcher:
    """Sends queues of tokens to their experts' ranks and back; in one process it does nothing.

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
    """Rows of `x` (n, D) in another order.

    Both directions are plain gathers, so the result never depends on threads. `forward_index` (m)
    is a row of x, or n for a row of zeros. `backward_index` (n, k) lists, for each row of x, the k
    rows of the output that read it, or m for none.
    """

    @staticmethod
    def forward(x: Tensor, forward_index: Tensor, backward_index: Tensor) -> Tensor:
        """Gather rows -> (m, D)."""
        return F.pad(x, (0, 0, 0, 1))[forward_index]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the backward index."""
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Sum the gradients of all outputs that read a row -> (n, D)."""
        (index,) = ctx.saved_tensors
        read = F.pad(grads[0], (0, 0, 0, 1))[index]  # (n, k, D)
        return read.sum(dim=1), None, None


def padded(
    rows: Tensor, queue: Queue, room: int, weights: Weights, dispatcher: TokenDispatcher
) -> Tensor:
    """Rows (N, D) -> outputs of every choice (M, D), zeros for choices that are not computed.

    Queues longer than `room` lose their end.
    """
    gate, up, down = weights
    M = len(queue.expert)
    N = len(rows)
    size = len(queue.counts) * room
    here = (queue.place < room) & (queue.expert < len(queue.counts))  # (M,) has a slot
    slot = torch.where(here, queue.expert * room + queue.place, size)  # (M,) choice -> slot
    reader = torch.full((size + 1,), M, dtype=slot.dtype, device=slot.device)
    choices = torch.arange(M, device=slot.device)
    reader = reader.scatter(0, slot, choices)[:size]  # (E room,) slot -> choice
    gathered = Gather.apply(rows, reader // (M // N), slot.view(N, -1))  # (E room, D)
    line = dispatcher.dispatch(gathered.view(-1, room, rows.shape[-1]))  # (E, room, D)
    inner = F.silu(torch.bmm(line, gate)) * torch.bmm(line, up)  # (E, room, I)
    out = dispatcher.combine(torch.bmm(inner, down))
    return Gather.apply(out.flatten(0, 1), slot, reader.unsqueeze(1))


def grouped(
    rows: Tensor, queue: Queue, room: int, weights: Weights, dispatcher: TokenDispatcher
) -> Tensor:
    """As `padded` by `torch.nn.functional.grouped_mm` over queues of any length.

    `room` is not needed.
    """
    gate, up, down = weights
    M = len(queue.expert)
    N = len(rows)
    ends = queue.counts.cumsum(0).int()  # (E,) where each queue ends
    position = _inverse(queue.order)
    # Rows behind the last queue are not computed, so nothing may read them.
    position = torch.where(queue.expert < len(queue.counts), position, M)
    computed = torch.arange(M, device=rows.device) < ends[-1]
    reader = torch.where(computed, queue.order, M)
    line = Gather.apply(rows, queue.order // (M // N), position.view(N, -1))  # (M, D) by expert
    inner = F.silu(F.grouped_mm(line, gate, offs=ends)) * F.grouped_mm(line, up, offs=ends)
    out = F.grouped_mm(inner, down, offs=ends)
    return Gather.apply(out, position, reader.unsqueeze(1))


def loop(
    rows: Tensor, queue: Queue, room: int, weights: Weights, dispatcher: TokenDispatcher
) -> Tensor:
    """As `padded`, expert by expert."""
    gates, ups, downs = weights
    choices = len(queue.expert) // len(rows)
    out = rows.new_zeros(len(queue.expert), rows.shape[-1])
    start = 0
    for e, count in enumerate(queue.counts.tolist()):
        mine = queue.order[start : start + count]
        x = rows[mine // choices]
        inner = F.silu(x @ gates[e]) * (x @ ups[e])  # (rows, I)
        out = out.index_copy(0, mine, inner @ downs[e])
        start += count
    return out


KERNELS = {"padded": padded, "grouped": grouped, "loop": loop}
