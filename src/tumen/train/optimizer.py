"""AdamW (arXiv 1711.05101) with fp32 master weights over one flat buffer, and the learning rate of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tumen.core.recipe import Train


def rate_at(section: Train, step: int) -> float:
    """Learning rate of a step counted from 0: linear warm-up, plateau, linear decay to zero (WSD, arXiv 2404.06395)."""
    warm = max(1, round(section.warmup * section.steps))
    fall = max(1, round(section.decay * section.steps))
    return section.rate * min(1.0, (step + 1) / warm, (section.steps - step) / fall)


class FlatAdamW:
    """AdamW whose weights, gradients and moments are each one flat tensor: a step is a handful of vector operations.

    The network's parameters become views of `self.weights` (in `dtype`), their gradients views of one buffer; the update runs in
    fp32 on `self.master` and is copied back. Matrices decay, vectors (norms) do not.

    Args:
        network: its parameters are moved into the flat buffer, matrices first.
        section: betas, weight decay, clip.
        dtype: of the weights the network computes with.
    """

    def __init__(self, network: nn.Module, section: Train, dtype: torch.dtype) -> None:
        self.section = section
        named = sorted(network.named_parameters(), key=lambda item: (item[1].dim() < 2, item[0]))
        self.layout = [(name, parameter.shape, parameter.numel()) for name, parameter in named]
        device = named[0][1].device
        self.master = torch.cat([parameter.detach().float().flatten() for _, parameter in named])
        self.weights = self.master.to(dtype) if dtype != torch.float32 else self.master
        self.gradient = torch.zeros_like(self.weights)
        offset = 0
        for _, parameter in named:
            stop = offset + parameter.numel()
            parameter.data = self.weights[offset:stop].view(parameter.shape)
            parameter.grad = self.gradient[offset:stop].view(parameter.shape)
            offset = stop
        matrices = sum(parameter.numel() for _, parameter in named if parameter.dim() >= 2)
        self.parts = [nn.Parameter(self.master[:matrices]), nn.Parameter(self.master[matrices:])]
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

    def step(self, rate: float) -> float:
        """Update with the gradients collected so far, clear them, and return their norm before clipping (may be NaN: no update)."""
        gradient = self.gradient.float()
        norm = float(gradient.norm())
        if norm == norm and norm != float("inf"):
            gradient *= min(1.0, self.section.clip / (norm + 1e-6))
            cut = self.parts[0].numel()
            self.parts[0].grad, self.parts[1].grad = gradient[:cut], gradient[cut:]
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
            if self.weights is not self.master:
                self.weights.copy_(self.master)
        self.gradient.zero_()
        return norm

    def named_master(self) -> dict[str, Tensor]:
        """fp32 weights by the network's names."""
        found, offset = {}, 0
        for name, shape, count in self.layout:
            found[name] = self.master[offset : offset + count].view(shape)
            offset += count
        return found

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state as flat tensors."""
        return {
            f"{index}.{name}": tensor for index, part in enumerate(self.parts) for name, tensor in self.adam.state[part].items()
        }

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Take weights and moments from a checkpoint, bit by bit."""
        for name, master in self.named_master().items():
            master.copy_(weights[name])
        if self.weights is not self.master:
            self.weights.copy_(self.master)
        for name, tensor in self.moments().items():
            tensor.copy_(moments[name])
