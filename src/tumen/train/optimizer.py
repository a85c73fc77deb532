"""AdamW (arXiv 1711.05101) and Muon (arXiv 2502.16982) with fp32 master weights, and the rate of a step.

`FlatOptimizer` holds one process's weights in one buffer; `ShardedOptimizer` updates each rank's part of weights that are
spread over a mesh. Both keep the same moments under the same names, so a checkpoint of one goes on in the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from tumen.recipe import Train
from tumen.train.world import half

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
Seen = Callable[
    [Mapping[str, Tensor]], Mapping[str, Tensor]
]  # fp32 weights by name -> what is computed with
ROOT_MEAN_SQUARE = 0.2  # of an AdamW update in practice; Muon's is scaled to it, so that both share one rate and decay


def rate_at(section: Train, step: int) -> float:
    """Learning rate of a step counted from 0: linear warm-up, plateau, linear decay to zero (WSD, arXiv 2404.06395)."""
    warm = max(1, round(section.warmup * section.steps))
    fall = max(1, round(section.decay * section.steps))
    return section.learning_rate * min(1.0, (step + 1) / warm, (section.steps - step) / fall)


def orthogonal(update: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1: five Newton-Schulz steps, in bf16 where that is fast.

    update: (n, rows, columns)
    """
    a, b, c = NEWTON_SCHULZ
    x = update.to(half(update.device))
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.transpose(1, 2) if tall else x).float()


def zone(name: str, parameter: Tensor, section: Train) -> int:
    """0: Muon, 1: AdamW with decay, 2: AdamW without.

    Muon turns the matrices inside the blocks; embeddings, head, routers and the many small experts (whose turn would cost more
    than the step itself) are always AdamW's. Matrices decay, vectors (norms) do not.
    """
    if parameter.dim() < 2:
        return 2
    inside = name.startswith(("blocks.", "mtp.")) and "router" not in name and parameter.dim() == 2
    return 0 if inside and section.optimizer == "muon" else 1


class FlatOptimizer:
    """One optimiser whose weights, gradients and moments are each one flat tensor: a step is a handful of vector operations.

    The network's parameters become views of `self.weights` (in `dtype`), their gradients views of one buffer; the update runs in
    fp32 on `self.master` and is copied back. Muon turns all matrices of one shape in one batch.

    Args:
        network: those of its parameters that want a gradient are moved into the flat buffer.
        section: optimizer, betas, weight decay, clip.
        dtype: of the weights the network computes with.
        seen: makes what the network computes with from the fp32 weights; the gradient is theirs all the same (straight-through).
    """

    def __init__(
        self, network: nn.Module, section: Train, dtype: torch.dtype, seen: Seen | None = None
    ) -> None:
        self.section = section
        self.seen = seen
        learnt = [
            (name, parameter)
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        ]
        named = sorted(
            learnt, key=lambda item: (zone(item[0], item[1], section), _matrix(item[1]), item[0])
        )
        self.layout = [(name, parameter.shape, parameter.numel()) for name, parameter in named]
        device = named[0][1].device
        self.master = torch.cat([parameter.detach().float().flatten() for _, parameter in named])
        if dtype == torch.float32 and seen is None:
            self.weights = self.master
        else:
            self.weights = self.master.to(dtype, copy=True)
        self.gradient = torch.zeros_like(self.weights)
        self.summed: Tensor | None = None
        offset = 0
        sizes = [0, 0, 0]
        for name, parameter in named:
            stop = offset + parameter.numel()
            sizes[zone(name, parameter, section)] += parameter.numel()
            parameter.data = self.weights[offset:stop].view(parameter.shape)
            parameter.grad = self.gradient[offset:stop].view(parameter.shape)
            offset = stop
        self.cuts = (sizes[0], sizes[0] + sizes[1])
        turned = [
            _matrix(parameter) for name, parameter in named if zone(name, parameter, section) == 0
        ]
        self.batches = [
            (shape, shape[0] * shape[1] * len(list(group))) for shape, group in groupby(turned)
        ]
        self.momentum = torch.zeros(sizes[0], device=device)
        self.parts = [
            nn.Parameter(self.master[self.cuts[0] : self.cuts[1]]),
            nn.Parameter(self.master[self.cuts[1] :]),
        ]
        groups = [
            {"params": [self.parts[0]], "weight_decay": section.weight_decay},
            {"params": [self.parts[1]], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            groups,
            lr=section.learning_rate,
            betas=section.betas,
            fused=device.type in ("cpu", "cuda"),
        )
        for part in self.parts:
            self.adam.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(part),
                "exp_avg_sq": torch.zeros_like(part),
            }

    def step(self, rate: float) -> float:
        """Update with the gradients collected so far, clear them, and return their norm before clipping (may be NaN: no update)."""
        if self.summed is None:
            gradient = self.gradient.float()
        else:
            gradient = self.summed.add_(self.gradient)
        norm = float(gradient.norm())
        if math.isfinite(norm):
            gradient *= min(1.0, self.section.grad_clip / (norm + 1e-6))
            self._muon(gradient[: self.cuts[0]], rate)
            self.parts[0].grad = gradient[self.cuts[0] : self.cuts[1]]
            self.parts[1].grad = gradient[self.cuts[1] :]
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
            self._show()
        self.gradient.zero_()
        self.summed = None
        return norm

    def collect(self) -> None:
        """Between the micro-batches of a step: bf16 gradients are added up in fp32."""
        if self.summed is None:
            self.summed = torch.zeros_like(self.gradient, dtype=torch.float32)
        else:
            self.summed = self.summed
        self.summed.add_(self.gradient)
        self.gradient.zero_()

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

    @torch.no_grad()
    def _show(self) -> None:
        """Give the network the weights it computes with."""
        if self.weights is not self.master:
            self.weights.copy_(self.master)
        if self.seen:
            mine = self._named(self.weights)
            for name, weight in self.seen(self.named_master()).items():
                mine[name].copy_(weight)

    def named_master(self) -> dict[str, Tensor]:
        """fp32 weights by the network's names."""
        return self._named(self.master)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([count for _, _, count in self.layout])
        return {
            name: part.view(shape)
            for (name, shape, _), part in zip(self.layout, parts, strict=True)
        }

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state by kind and the network's names, views of its flat tensors."""
        found: dict[str, Tensor] = {}
        offset = 0
        for name, shape, count in self.layout:
            if offset < self.cuts[0]:
                part = 0
            elif offset < self.cuts[1]:
                part = 1
            else:
                part = 2
            start = offset - (0, *self.cuts)[part]
            if part == 0:
                flats = {"momentum": self.momentum}
            else:
                state = self.adam.state[self.parts[part - 1]]
                flats = {kind: state[kind] for kind in ("exp_avg", "exp_avg_sq")}
            found |= {
                f"{kind}.{name}": flat[start : start + count].view(shape)
                for kind, flat in flats.items()
            }
            offset += count
        return found

    @torch.no_grad()
    def restored(self, step: int) -> None:
        """Go on after `named_master` and `moments` were filled from a checkpoint of `step` finished steps."""
        self._show()
        for part in self.parts:
            self.adam.state[part]["step"].fill_(step)


class ShardedOptimizer:
    """The same updates on this rank's parts of weights spread over a mesh (fp32 DTensors of FSDP2).

    Args:
        named: the network's parameters by name.
        section: optimizer, betas, weight decay, clip.
        copies: for each name, how many ranks hold each element of it.
        total: sums a number over all ranks.
    """

    def __init__(
        self,
        named: Mapping[str, DTensor],
        section: Train,
        copies: Mapping[str, float],
        total: Callable[[Tensor], Tensor],
    ) -> None:
        self.section = section
        self.named = dict(named)
        self.copies = copies
        self.total = total
        self.local = {
            name: nn.Parameter(weight.to_local().detach()) for name, weight in named.items()
        }
        zones = {name: zone(name, weight, section) for name, weight in named.items()}
        self.turned = [name for name in named if zones[name] == 0]
        self.momentum = {name: torch.zeros_like(self.local[name].data) for name in self.turned}
        decayed, plain = (
            [self.local[name] for name in named if zones[name] == kind] for kind in (1, 2)
        )
        groups = [
            {"params": decayed, "weight_decay": section.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.adam = torch.optim.AdamW(
            groups, lr=section.learning_rate, betas=section.betas, fused=True
        )
        for part in (*decayed, *plain):
            self.adam.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=part.device),
                "exp_avg": torch.zeros_like(part.data),
                "exp_avg_sq": torch.zeros_like(part.data),
            }

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """As `FlatOptimizer.step`; the norm is that of the whole network's gradient."""
        given: dict[str, Any] = {
            name: weight.grad for name, weight in self.named.items() if weight.grad is not None
        }
        gradients: dict[str, Tensor] = {
            name: gradient.to_local() for name, gradient in given.items()
        }
        squares = [
            gradient.float().square().sum() / self.copies[name]
            for name, gradient in gradients.items()
        ]
        norm = float(self.total(torch.stack(squares).sum() if squares else torch.zeros(()))) ** 0.5
        if math.isfinite(norm):
            scale = min(1.0, self.section.grad_clip / (norm + 1e-6))
            for name, gradient in gradients.items():
                gradient *= scale
                if name in self.momentum:
                    self._turn(name, gradient, rate)
                else:
                    self.local[name].grad = gradient
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
        for weight in (*self.named.values(), *self.local.values()):
            weight.grad = None
        return norm

    def _turn(self, name: str, gradient: Tensor, rate: float) -> None:
        """Muon on one matrix: gathered whole, turned by every rank, of which each keeps its part."""
        weight = self.named[name]
        momentum = self.momentum[name]
        momentum.mul_(MOMENTUM).add_(gradient)
        part = gradient.add(momentum, alpha=MOMENTUM)
        turned = orthogonal(self._spread(name, part).full_tensor().unsqueeze(0))[0]
        scale = ROOT_MEAN_SQUARE * math.sqrt(max(weight.shape))
        self.local[name].data.mul_(1 - rate * self.section.weight_decay).sub_(
            part_of(turned, weight), alpha=rate * scale
        )

    def named_master(self) -> dict[str, DTensor]:
        """fp32 weights by the network's names, spread."""
        detached: dict[str, Any] = {name: weight.detach() for name, weight in self.named.items()}
        return detached

    def moments(self) -> dict[str, DTensor]:
        """The optimiser's state by kind and the network's names, spread like the weights."""
        found = {
            f"momentum.{name}": self._spread(name, momentum)
            for name, momentum in self.momentum.items()
        }
        for name, part in self.local.items():
            if name not in self.momentum:
                state = self.adam.state[part]
                found |= {
                    f"{kind}.{name}": self._spread(name, state[kind])
                    for kind in ("exp_avg", "exp_avg_sq")
                }
        return found

    def _spread(self, name: str, part: Tensor) -> DTensor:
        weight = self.named[name]
        return DTensor.from_local(
            part,
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )

    def restored(self, step: int) -> None:
        """As `FlatOptimizer.restored`."""
        for state in self.adam.state.values():
            state["step"].fill_(step)


def put(tensor: Tensor, whole: Tensor) -> None:
    """Fill a tensor, or this rank's part of one, from a whole one."""
    if isinstance(tensor, DTensor):
        tensor.to_local().copy_(part_of(whole, tensor))
    else:
        tensor.copy_(whole)


def part_of(whole: Tensor, like: DTensor) -> Tensor:
    """The part of a whole tensor that this rank holds of `like`."""
    size, offset = compute_local_shape_and_global_offset(
        like.shape, like.device_mesh, like.placements
    )
    return whole[
        tuple(slice(start, start + length) for start, length in zip(offset, size, strict=True))
    ]


def _matrix(parameter: Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix or of a stack of them; (0, 0) of a vector."""
    if parameter.dim() >= 2:
        return (parameter.shape[-2], parameter.shape[-1])
    return (0, 0)
