"""Feed-forward layers: dense (SwiGLU, arXiv 2002.05202) and DeepSeekMoE (arXiv 2405.04434).

A mixture's step: `route` chooses experts, `keep` drops what exceeds a device's budget, then a
kernel of model/kernels.py runs the experts.
Shapes: B rows, T tokens, N = B T, D features, E routed experts, K chosen experts, G devices with
experts. Parallel training replaces `enter`, `leave`, `over_sequence` and `dispatcher`
(train/parallel); in one process they do nothing.
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
        self.enter = same
        self.leave = same

    def forward(self, x: Tensor) -> Tensor:
        """Input and output (..., D)."""
        x = self.enter(x)
        inner = F.silu(self.gate(x)) * self.up(x)
        return self.leave(self.down(inner))


class Fed(NamedTuple):
    """Result of a layer or a mixture.

    Attributes:
        out: (B, T, D).
        balance: balance loss, a scalar, mean over rows.
        load: (E + 1,) fp32 without gradient: tokens that chose each expert, then the dropped
            choices.
    """

    out: Tensor
    balance: Tensor
    load: Tensor


class Choice(NamedTuple):
    """The router's choice for every token.

    Attributes:
        expert: (N, K) chosen experts.
        weight: (N, K) their weights in the sum.
        affinity: (N, E) of all experts, fp32.
    """

    expert: Tensor
    weight: Tensor
    affinity: Tensor


class MixtureOfExperts(nn.Module):
    """Shared experts plus the `num_experts_per_tok` best routed ones.

    Routed experts are weighted by their affinity (equations 20-22).
    """

    bias: Tensor | None

    def __init__(self, width: int, shape: Experts) -> None:
        super().__init__()
        if shape.topk_group and not shape.n_group:
            raise InputError(
                f"experts.topk_group {shape.topk_group} needs experts.n_group: "
                "on how many devices do they lie?"
            )
        self.shape = shape
        experts = shape.n_routed_experts
        inner = shape.moe_intermediate_size
        self.router = linear(width, experts)
        self.gate = nn.Parameter(torch.empty(experts, width, inner))
        self.up = nn.Parameter(torch.empty(experts, width, inner))
        self.down = nn.Parameter(torch.empty(experts, inner, width))
        self.shared: FeedForward | None = None
        if shape.n_shared_experts:
            self.shared = FeedForward(width, inner * shape.n_shared_experts)
        bias = torch.zeros(experts) if shape.bias_rate else None
        self.register_buffer("bias", bias)
        self.kernel = padded
        self.enter = same
        self.leave = same
        self.over_sequence = same
        self.dispatcher = TokenDispatcher()

    def forward(self, x: Tensor, real: Tensor | None = None, safe: Tensor | None = None) -> Fed:
        """Run the mixture.

        Args:
            x: (B, T, D).
            real: (B, T) false on padding, which is not routed; None: no padding.
            safe: (B,) rows whose choices are never dropped; None: none.
        """
        rows = x.flatten(0, 1)  # (N, D)
        if real is None:
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        choice = self.route(rows)
        kept = self.keep(choice, real, safe)  # (N, K)
        out = self._routed(rows, choice, kept)  # (N, D)
        if self.shared is not None:
            out = out + self.shared(rows)
        wanted = self._wanted(choice, real)  # (B, T, E)
        tokens = wanted.sum(dim=(0, 1))  # (E,)
        dropped = (real.flatten().unsqueeze(1) & ~kept).sum().unsqueeze(0)  # (1,)
        load = torch.cat((tokens, dropped)).detach()
        return Fed(out.view_as(x), self.balance(choice, wanted, real), load)

    def route(self, rows: Tensor) -> Choice:
        """Choose the experts of every token (section 2.2.2).

        They are the best `num_experts_per_tok` on the best `topk_group` devices; rows (N, D).
        """
        shape = self.shape
        logits = self.router(rows).float()  # (N, E)
        softmax = shape.scoring_func == "softmax"
        affinity = logits.softmax(dim=-1) if softmax else logits.sigmoid()  # (N, E)
        # The choice has no gradient; the weights in the sum have one.
        liking = affinity.detach()
        if self.bias is not None:
            liking = liking + self.bias
        if shape.topk_group:
            liking = self._near(liking, shape.topk_group)
        expert = liking.topk(shape.num_experts_per_tok, dim=-1).indices  # (N, K)
        weight = affinity.gather(1, expert)  # (N, K)
        if shape.norm_topk_prob:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        return Choice(expert, weight * shape.routed_scaling_factor, affinity)

    def _near(self, liking: Tensor, devices: int) -> Tensor:
        """Exclude, with -inf, all experts that are not on a token's best devices; liking (N, E)."""
        shape = self.shape
        grouped = liking.view(len(liking), shape.devices, -1)  # (N, G, E / G)
        # A device is as good as its best expert; in V3 as its best two (arXiv 2412.19437,
        # section 2.1.2).
        best = 1
        if shape.scoring_func != "softmax":
            best = max(1, shape.num_experts_per_tok // devices)
        scores = grouped.topk(best, dim=-1).values.sum(dim=-1)  # (N, G)
        near = scores.topk(devices, dim=-1).indices
        far = torch.ones(grouped.shape[:2], dtype=torch.bool, device=liking.device)
        far = far.scatter(1, near, False)
        return grouped.masked_fill(far.unsqueeze(-1), float("-inf")).flatten(1)

    def keep(self, choice: Choice, real: Tensor, safe: Tensor | None) -> Tensor:
        """Which choices (N, K) are computed.

        In training, each device computes its best choices up to its budget (section 2.2.4).
        """
        shape = self.shape
        wanted = real.flatten().unsqueeze(1).expand_as(choice.expert)
        if not self.training:
            return wanted
        budget = self._budget(len(choice.expert))
        if safe is None:
            safe = torch.zeros_like(real[:, 0])
        safe = safe.unsqueeze(1).expand_as(real)  # (B, T)
        safe = safe.reshape(-1, 1).expand_as(wanted)  # (N, K)
        device = choice.expert // (shape.n_routed_experts // shape.devices)
        # Padding waits at a device that does not exist.
        device = torch.where(wanted, device, shape.devices).flatten()
        affinity = choice.affinity.detach().gather(1, choice.expert)
        # Affinities are below 1, so safe choices come first.
        liking = affinity + 2 * safe
        place = queue_of(device, shape.devices, liking.flatten()).place.view_as(wanted)
        return wanted & ((place < budget) | safe)

    def _budget(self, tokens: int) -> int:
        """Choices that one device computes of `tokens` tokens."""
        choices = self.shape.capacity_factor * tokens * self.shape.num_experts_per_tok
        return rounded(math.ceil(choices / self.shape.devices))

    def _routed(self, rows: Tensor, choice: Choice, kept: Tensor) -> Tensor:
        """The weighted sum of the chosen experts' outputs (N, D); a dropped choice adds nothing."""
        experts = self.shape.n_routed_experts
        # A dropped choice waits for an expert that does not exist.
        expert = torch.where(kept, choice.expert, experts).flatten()
        affinity = choice.affinity.detach().gather(1, choice.expert)
        queue = queue_of(expert, experts, affinity.flatten())
        room = self._room(len(rows), queue)
        weights = (local(self.gate), local(self.up), local(self.down))
        out = self.kernel(self.enter(rows), queue, room, weights, self.dispatcher)  # (N K, D)
        out = out.view(*choice.expert.shape, -1)  # (N, K, D)
        weight = self.enter(choice.weight * kept).to(out.dtype)
        return self.leave((out * weight.unsqueeze(-1)).sum(dim=1))

    def _room(self, tokens: int, queue: Queue) -> int:
        """Rows that an expert's queue is padded to.

        With one expert a device, the device's budget is the expert's, and no queue is measured.
        """
        if self.training and self.shape.devices == self.shape.n_routed_experts:
            return self._budget(tokens)
        longest = int(queue.counts.max())
        return rounded(self.dispatcher.longest_queue(longest))

    def _wanted(self, choice: Choice, real: Tensor) -> Tensor:
        """1 where a token chose an expert, (B, T, E) fp32, dropped choices included."""
        nothing = torch.zeros_like(choice.affinity)
        chosen = nothing.scatter(1, choice.expert, 1.0)
        return chosen.view(*real.shape, -1) * real.unsqueeze(-1)

    def balance(self, choice: Choice, wanted: Tensor, real: Tensor) -> Tensor:
        """The three balance losses (equations 23-31), each row a sequence, averaged over the rows.

        expert: sum of f_i P_i; device: sum of f'_d P'_d; communication: sum of f''_d P''_d. Every
        sum is 1 when the load is even.
        """
        shape = self.shape
        tokens = self.over_sequence(real.sum(dim=1, keepdim=True).float())  # (B, 1)
        tokens = tokens.clamp(min=1)
        affinity = choice.affinity
        if shape.scoring_func == "sigmoid":
            affinity = affinity / affinity.sum(dim=-1, keepdim=True)
        affinity = affinity.view_as(wanted) * real.unsqueeze(-1)  # (B, T, E)
        P = affinity.sum(dim=1) / tokens  # (B, E)
        share = shape.n_routed_experts / shape.num_experts_per_tok
        f = self.over_sequence(wanted.sum(dim=1)) * share / tokens  # (B, E)
        loss = shape.aux_loss_alpha * (f * P).sum(dim=1)
        if shape.balance_devices or shape.balance_communication:
            P_device = self._by_device(P).sum(dim=-1)  # (B, G)
            f_device = self._by_device(f).mean(dim=-1)  # (B, G)
            loss = loss + shape.balance_devices * (f_device * P_device).sum(dim=1)
            sent = self._sent(wanted, tokens)  # (B, G)
            loss = loss + shape.balance_communication * (sent * P_device).sum(dim=1)
        return loss.mean()

    def _by_device(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., G, E / G)."""
        return x.unflatten(-1, (self.shape.devices, -1))

    def _sent(self, wanted: Tensor, tokens: Tensor) -> Tensor:
        """Share of tokens sent to each device (B, G), 1 where all devices get the same."""
        shape = self.shape
        # Most devices that a token is sent to.
        reach = min(shape.topk_group or shape.devices, shape.num_experts_per_tok)
        sent = self._by_device(wanted).amax(dim=-1)  # (B, T, G)
        return self.over_sequence(sent.sum(dim=1)) * (shape.devices / reach) / tokens

    @torch.no_grad()
    def rebalance(self, load: Tensor) -> None:
        """Update the balancing biases after a step (arXiv 2412.19437, equation 16).

        They rise for experts below the mean load (E,) and fall for the others.
        """
        if self.bias is not None:
            self.bias += self.shape.bias_rate * torch.sign(load.mean() - load)
