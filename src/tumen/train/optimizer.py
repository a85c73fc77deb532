"""AdamW (arXiv 1711.05101) and Muon (arXiv 2502.16982) with fp32 master weights over one flat buffer, and the rate of a step."""

from __future__ import annotations

import math
from itertools import groupby

import torch
from torch import Tensor, nn

from tumen.core.recipe import Train

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
ROOT_MEAN_SQUARE = 0.2  # of an AdamW update in practice; Muon's is scaled to it, so that both share one rate and decay


def rate_at(section: Train, step: int) -> float:
    """Learning rate of a step counted from 0: linear warm-up, plateau, linear decay to zero (WSD, arXiv 2404.06395)."""
    warm = max(1, round(section.warmup * section.steps))
    fall = max(1, round(section.decay * section.steps))
    return section.rate * min(1.0, (step + 1) / warm, (section.steps - step) / fall)


def orthogonal(update: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1 (Newton-Schulz, five steps in bf16). update: (n, rows, columns)."""
    a, b, c = NEWTON_SCHULZ
    x = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.transpose(1, 2) if tall else x).float()


class FlatOptimizer:
    """One optimiser whose weights, gradients and moments are each one flat tensor: a step is a handful of vector operations.

    The network's parameters become views of `self.weights` (in `dtype`), their gradients views of one buffer; the update runs in
    fp32 on `self.master` and is copied back. With `optimizer = "muon"` the matrices inside the blocks are updated by Muon, those
    of one shape in one batch; embeddings, head, routers and the many small experts (whose turn would cost more than the step
    itself) always by AdamW. Matrices decay, vectors (norms) do not.

    Args:
        network: its parameters are moved into the flat buffer.
        section: optimizer, betas, weight decay, clip.
        dtype: of the weights the network computes with.
    """

    def __init__(self, network: nn.Module, section: Train, dtype: torch.dtype) -> None:
        self.section = section
        named = sorted(network.named_parameters(), key=lambda item: (self._zone(*item), _matrix(item[1]), item[0]))
        self.layout = [(name, parameter.shape, parameter.numel()) for name, parameter in named]
        device = named[0][1].device
        self.master = torch.cat([parameter.detach().float().flatten() for _, parameter in named])
        self.weights = self.master.to(dtype) if dtype != torch.float32 else self.master
        self.gradient = torch.zeros_like(self.weights)
        offset, sizes = 0, [0, 0, 0]
        for name, parameter in named:
            stop = offset + parameter.numel()
            sizes[self._zone(name, parameter)] += parameter.numel()
            parameter.data = self.weights[offset:stop].view(parameter.shape)
            parameter.grad = self.gradient[offset:stop].view(parameter.shape)
            offset = stop
        self.cuts = (sizes[0], sizes[0] + sizes[1])
        self.batches = [
            (shape, sum(p.numel() for _, p in group))
            for shape, group in groupby((item for item in named if self._zone(*item) == 0), key=lambda item: _matrix(item[1]))
        ]
        self.momentum = torch.zeros(sizes[0], device=device)
        self.parts = [nn.Parameter(self.master[self.cuts[0] : self.cuts[1]]), nn.Parameter(self.master[self.cuts[1] :])]
        groups = [
            {"params": [self.parts[0]], "weight_decay": section.weight_decay},
            {"params": [self.parts[1]], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=section.rate, betas=section.betas, fused=device.type in ("cpu", "cuda"))
        for part in self.parts:
            self.adam.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(part),
                "exp_avg_sq": torch.zeros_like(part),
            }

    def _zone(self, name: str, parameter: Tensor) -> int:
        """0: Muon, 1: AdamW with decay, 2: AdamW without."""
        if parameter.dim() < 2:
            return 2
        inside = name.startswith("blocks.") and "router" not in name and parameter.dim() == 2
        return 0 if inside and self.section.optimizer == "muon" else 1

    def step(self, rate: float) -> float:
        """Update with the gradients collected so far, clear them, and return their norm before clipping (may be NaN: no update)."""
        gradient = self.gradient.float()
        norm = float(gradient.norm())
        if math.isfinite(norm):
            gradient *= min(1.0, self.section.clip / (norm + 1e-6))
            self._muon(gradient[: self.cuts[0]], rate)
            self.parts[0].grad, self.parts[1].grad = gradient[self.cuts[0] : self.cuts[1]], gradient[self.cuts[1] :]
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
            if self.weights is not self.master:
                self.weights.copy_(self.master)
        self.gradient.zero_()
        return norm

    @torch.no_grad()
    def _muon(self, gradient: Tensor, rate: float) -> None:
        """Momentum, made orthogonal, on all matrices of one shape at once (arXiv 2502.16982, equation 4 and section 2.2)."""
        if not self.batches:
            return
        self.momentum.mul_(MOMENTUM).add_(gradient)
        update = gradient.add(self.momentum, alpha=MOMENTUM)
        self.master[: self.cuts[0]].mul_(1 - rate * self.section.weight_decay)
        offset = 0
        for (rows, columns), count in self.batches:
            part = slice(offset, offset + count)
            scale = ROOT_MEAN_SQUARE * math.sqrt(max(rows, columns))
            turned = orthogonal(update[part].view(-1, rows, columns))
            self.master[part].sub_(turned.flatten(), alpha=rate * scale)
            offset += count

    def named_master(self) -> dict[str, Tensor]:
        """fp32 weights by the network's names."""
        found, offset = {}, 0
        for name, shape, count in self.layout:
            found[name] = self.master[offset : offset + count].view(shape)
            offset += count
        return found

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state as flat tensors."""
        adam = {
            f"{index}.{name}": tensor for index, part in enumerate(self.parts) for name, tensor in self.adam.state[part].items()
        }
        return adam | ({"momentum": self.momentum} if self.batches else {})

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Take weights and moments from a checkpoint, bit by bit."""
        for name, master in self.named_master().items():
            master.copy_(weights[name])
        if self.weights is not self.master:
            self.weights.copy_(self.master)
        for name, tensor in self.moments().items():
            tensor.copy_(moments[name])


def _matrix(parameter: Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix or of a stack of them; (0, 0) of a vector."""
    return (parameter.shape[-2], parameter.shape[-1]) if parameter.dim() >= 2 else (0, 0)
