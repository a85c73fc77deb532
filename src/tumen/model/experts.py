"""Feed-forward layers: the gated dense one (SwiGLU, arXiv 2002.05202) and DeepSeekMoE (arXiv 2405.04434, section 2.2).

A mixture's step: `route` (who is wanted), `keep` (who has room), then a kernel of model/kernels.py runs the experts.
Shapes: B rows, T tokens, N = B T, D model width, E routed experts, K chosen ones, G devices the experts lie on.
`enter`, `leave`, `over_sequence` and `dispatcher` are the seams of parallel training: they do nothing in one process
(train/parallel).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumen.core.errors import InputError
from tumen.core.shape import Experts
from tumen.model.attention import linear, local, same
from tumen.model.kernels import Queue, TokenDispatcher, padded, queue_of, rounded


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = linear(width, inner)
        self.up = linear(width, inner)
        self.down = linear(inner, width)
        self.enter = self.leave = same

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(self.down(F.silu(self.gate(x)) * self.up(x)))


class Fed(NamedTuple):
    """What a mixture gives: its output (B, T, D), the balance loss (a scalar, mean over rows), and what happened to the tokens.

    `load` (E + 1,) fp32, no gradient: tokens that wanted each expert, and last the choices that were dropped.
    """

    out: Tensor
    balance: Tensor
    load: Tensor


class Choice(NamedTuple):
    """Of every token: `expert` (N, K) chosen, their `weight` (N, K) in the sum, and all `affinity` (N, E), fp32."""

    expert: Tensor
    weight: Tensor
    affinity: Tensor


class MixtureOfExperts(nn.Module):
    """Shared experts plus the `num_experts_per_tok` best of the routed ones, weighted by their affinity (equations 20-22)."""

    bias: Tensor | None

    def __init__(self, width: int, shape: Experts) -> None:
        super().__init__()
        if shape.topk_group and not shape.n_group:
            raise InputError(
                f"experts.topk_group {shape.topk_group} needs experts.n_group: on how many devices do they lie?"
            )
        self.shape = shape
        self.router = linear(width, shape.n_routed_experts)
        self.gate = nn.Parameter(
            torch.empty(shape.n_routed_experts, width, shape.moe_intermediate_size)
        )
        self.up = nn.Parameter(
            torch.empty(shape.n_routed_experts, width, shape.moe_intermediate_size)
        )
        self.down = nn.Parameter(
            torch.empty(shape.n_routed_experts, shape.moe_intermediate_size, width)
        )
        self.shared: FeedForward | None = None
        if shape.n_shared_experts:
            self.shared = FeedForward(width, shape.moe_intermediate_size * shape.n_shared_experts)
        self.register_buffer(
            "bias", torch.zeros(shape.n_routed_experts) if shape.bias_rate else None
        )
        self.kernel = padded
        self.enter = self.leave = self.over_sequence = same
        self.dispatcher = TokenDispatcher()

    def forward(self, x: Tensor, real: Tensor | None = None, safe: Tensor | None = None) -> Fed:
        """x (B, T, D), real (B, T) false where a row is padded (padding is not routed), safe (B,) rows that lose no token."""
        rows = x.flatten(0, 1)
        if real is None:
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        else:
            real = real
        choice = self.route(rows)
        kept = self.keep(choice, real, safe)
        out = self._routed(rows, choice, kept)
        if self.shared is not None:
            out = out + self.shared(rows)
        wanted = self._wanted(choice, real)
        load = torch.cat(
            (wanted.sum(dim=(0, 1)), (real.flatten().unsqueeze(1) & ~kept).sum().unsqueeze(0))
        ).detach()
        return Fed(out.view_as(x), self.balance(choice, wanted, real), load)

    def route(self, rows: Tensor) -> Choice:
        """The experts of every token: the best `num_experts_per_tok` on the best `topk_group` devices (section 2.2.2)."""
        shape = self.shape
        logits = self.router(rows).float()
        if shape.scoring_func == "softmax":
            affinity = logits.softmax(dim=-1)
        else:
            affinity = logits.sigmoid()
        if self.bias is None:
            liking = affinity.detach()
        else:
            liking = affinity.detach() + self.bias
        if shape.topk_group:
            # a device is as good as its best expert; in V3 as its best two (arXiv 2412.19437, section 2.1.2)
            grouped = liking.view(len(rows), shape.devices, -1)
            if shape.scoring_func == "softmax":
                best = 1
            else:
                best = max(1, shape.num_experts_per_tok // shape.topk_group)
            device = (
                grouped.topk(best, dim=-1).values.sum(dim=-1).topk(shape.topk_group, dim=-1).indices
            )
            far = torch.ones(grouped.shape[:2], dtype=torch.bool, device=rows.device).scatter(
                1, device, False
            )
            liking = grouped.masked_fill(far.unsqueeze(-1), float("-inf")).flatten(1)
        expert = liking.topk(shape.num_experts_per_tok, dim=-1).indices
        weight = affinity.gather(1, expert)
        if shape.norm_topk_prob:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        return Choice(expert, weight * shape.routed_scaling_factor, affinity)

    def keep(self, choice: Choice, real: Tensor, safe: Tensor | None) -> Tensor:
        """Which choices (N, K) are computed: in training each device's best up to its budget (section 2.2.4)."""
        shape = self.shape
        wanted = real.flatten().unsqueeze(1).expand_as(choice.expert)
        if not self.training:
            return wanted
        budget = self._budget(len(choice.expert))
        if safe is None:
            safe = torch.zeros_like(real[:, 0])
        else:
            safe = safe
        safe = safe.unsqueeze(1).expand_as(real).reshape(-1, 1).expand_as(wanted)
        device = torch.where(
            wanted, choice.expert // (shape.n_routed_experts // shape.devices), shape.devices
        ).flatten()
        liking = (
            choice.affinity.detach().gather(1, choice.expert) + 2 * safe
        )  # below 1, protected ones above 2
        place = queue_of(device, shape.devices, liking.flatten()).place.view_as(wanted)
        return wanted & ((place < budget) | safe)

    def _budget(self, tokens: int) -> int:
        """Choices one device computes of `tokens` tokens."""
        return rounded(
            math.ceil(
                self.shape.capacity_factor
                * tokens
                * self.shape.num_experts_per_tok
                / self.shape.devices
            )
        )

    def _routed(self, rows: Tensor, choice: Choice, kept: Tensor) -> Tensor:
        """The weighted sum of the chosen experts' outputs (N, D); a dropped choice adds nothing."""
        shape = self.shape
        expert = torch.where(kept, choice.expert, shape.n_routed_experts).flatten()
        queue = queue_of(
            expert,
            shape.n_routed_experts,
            choice.affinity.detach().gather(1, choice.expert).flatten(),
        )
        room = self._room(len(rows), queue)
        weights = (local(self.gate), local(self.up), local(self.down))
        out = self.kernel(self.enter(rows), queue, room, weights, self.dispatcher)  # (N * K, D)
        weight = self.enter(choice.weight * kept).to(out.dtype)
        return self.leave((out.view(*choice.expert.shape, -1) * weight.unsqueeze(-1)).sum(dim=1))

    def _room(self, tokens: int, queue: Queue) -> int:
        """Rows an expert's queue is padded to; where the budget is a device's own, an expert's share is known by counting alone."""
        if self.training and self.shape.devices == self.shape.n_routed_experts:
            return self._budget(tokens)
        return rounded(self.dispatcher.longest_queue(int(queue.counts.max())))

    def _wanted(self, choice: Choice, real: Tensor) -> Tensor:
        """1 where a token chose an expert, (B, T, E) fp32, drops not yet taken off."""
        chosen = torch.zeros_like(choice.affinity).scatter(1, choice.expert, 1.0)
        return chosen.view(*real.shape, -1) * real.unsqueeze(-1)

    def balance(self, choice: Choice, wanted: Tensor, real: Tensor) -> Tensor:
        """The three balance losses (equations 23-31), each row a sequence, averaged over the rows.

        expert: sum of f_i P_i; device: sum of f'_d P'_d; communication: sum of f''_d P''_d. Every sum is 1 when even.
        """
        shape = self.shape
        tokens = self.over_sequence(real.sum(dim=1, keepdim=True).float()).clamp(min=1)  # (B, 1)
        affinity = choice.affinity
        if shape.scoring_func == "sigmoid":
            affinity = affinity / affinity.sum(dim=-1, keepdim=True)
        P = (affinity.view_as(wanted) * real.unsqueeze(-1)).sum(dim=1) / tokens  # (B, E)
        f = (
            self.over_sequence(wanted.sum(dim=1))
            * (shape.n_routed_experts / shape.num_experts_per_tok)
            / tokens
        )
        loss = shape.aux_loss_alpha * (f * P).sum(dim=1)
        if shape.balance_devices or shape.balance_communication:
            P_device = P.unflatten(1, (shape.devices, -1)).sum(dim=-1)  # (B, G)
            f_device = f.unflatten(1, (shape.devices, -1)).mean(dim=-1)
            reach = min(shape.topk_group or shape.devices, shape.num_experts_per_tok)
            sent = wanted.unflatten(2, (shape.devices, -1)).amax(dim=-1)  # (B, T, G)
            f_sent = self.over_sequence(sent.sum(dim=1)) * (shape.devices / reach) / tokens
            loss = loss + shape.balance_devices * (f_device * P_device).sum(dim=1)
            loss = loss + shape.balance_communication * (f_sent * P_device).sum(dim=1)
        return loss.mean()

    @torch.no_grad()
    def rebalance(self, load: Tensor) -> None:
        """After a step: experts with less than the mean load (E,) are liked more, the others less (arXiv 2412.19437, eq. 16)."""
        if self.bias is not None:
            self.bias += self.shape.bias_rate * torch.sign(load.mean() - load)
