"""AdamW (arXiv 1711.05101) and Muon (arXiv 2502.16982) with fp32 master weights, and a step's rate.

`FlatOptimizer` holds one process's weights in one buffer; `ShardedOptimizer` updates each rank's
part of weights that are sharded over a mesh. Both keep the same moments under the same names, so
either reads the other's checkpoints.
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

# Muon's polynomial and iterations (arXiv 2502.16982, section 2).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
# Root mean square of an AdamW update in practice. Muon's updates are scaled to it, so that both
# share one learning rate and weight decay.
ROOT_MEAN_SQUARE = 0.2
# Kinds of weights: updated by Muon, by AdamW with weight decay, by AdamW without.
MUON = 0
DECAYED = 1
PLAIN = 2
MOMENTS = ("exp_avg", "exp_avg_sq")

# fp32 weights by name -> the weights that the network computes with
ForwardWeights = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def rate_at(section: Train, step: int) -> float:
    """Learning rate of a step counted from 0.

    Linear warm-up, plateau, linear decay to zero (WSD, arXiv 2404.06395).
    """
    warm_steps = max(1, round(section.warmup * section.steps))
    decay_steps = max(1, round(section.decay * section.steps))
    warm = (step + 1) / warm_steps
    decay = (section.steps - step) / decay_steps
    return section.learning_rate * min(1.0, warm, decay)


def orthogonal(update: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1.

    Five Newton-Schulz iterations, in bf16 where that is fast.

    Args:
        update: (n, rows, columns).
    """
    a, b, c = NEWTON_SCHULZ
    x = update.to(half(update.device))
    # The smaller side first, which makes the squares small.
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    norm = x.float().norm(dim=(1, 2), keepdim=True)  # (n, 1, 1)
    x = x / (norm + 1e-7).to(x.dtype)
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    if tall:
        x = x.transpose(1, 2)
    return x.float()


def zone(name: str, parameter: Tensor, section: Train) -> int:
    """Kind of a weight: MUON, DECAYED or PLAIN.

    Muon updates the matrices inside the blocks. AdamW updates embeddings, head, routers and the
    many small experts, whose Newton-Schulz iterations would cost more than the step itself.
    Matrices decay, vectors (norms) do not.
    """
    if parameter.dim() < 2:
        return PLAIN
    in_block = name.startswith(("blocks.", "mtp.")) and "router" not in name
    if section.optimizer == "muon" and in_block and parameter.dim() == 2:
        return MUON
    return DECAYED


def _adam(groups: list[dict[str, Any]], section: Train, *, fused: bool) -> torch.optim.AdamW:
    """AdamW whose moments exist from the start, so that a checkpoint can fill them."""
    adam = torch.optim.AdamW(groups, lr=section.learning_rate, betas=section.betas, fused=fused)
    for group in groups:
        for part in group["params"]:
            adam.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=part.device),
                "exp_avg": torch.zeros_like(part.data),
                "exp_avg_sq": torch.zeros_like(part.data),
            }
    return adam


def _set_rate(adam: torch.optim.AdamW, rate: float) -> None:
    for group in adam.param_groups:
        group["lr"] = rate


class FlatOptimizer:
    """An optimizer whose weights, gradients and moments are one flat tensor each.

    A step is a handful of vector operations. The network's parameters become views of
    `self.weights` (in `dtype`), their gradients views of one buffer; the update runs in fp32 on
    `self.master` and is copied back. Muon updates all matrices of one shape in one batch.

    Args:
        network: its parameters that require a gradient move into the flat buffer.
        section: optimizer, betas, weight decay, clip.
        dtype: of the weights that the network computes with.
        forward_weights: makes the weights that the network computes with from the fp32 weights;
            their gradient is used for the fp32 weights (straight-through).
    """

    def __init__(
        self,
        network: nn.Module,
        section: Train,
        dtype: torch.dtype,
        forward_weights: ForwardWeights | None = None,
    ) -> None:
        self.section = section
        self.forward_weights = forward_weights
        named = _ordered(network, section)
        # Name, shape and number of elements of each weight, in the order of the flat buffer.
        self.layout = [(name, parameter.shape, parameter.numel()) for name, parameter in named]
        self.master = torch.cat([parameter.detach().float().flatten() for _, parameter in named])
        device = self.master.device
        # Without rounding, the network computes with the master weights themselves.
        if dtype == torch.float32 and forward_weights is None:
            self.weights = self.master
        else:
            self.weights = self.master.to(dtype, copy=True)
        self.gradient = torch.zeros_like(self.weights)
        self.summed: Tensor | None = None
        sizes = self._move_in(named)
        # Where AdamW's weights with decay begin, and those without.
        self.cuts = (sizes[MUON], sizes[MUON] + sizes[DECAYED])
        self.batches = _batches(named, section)
        self.momentum = torch.zeros(sizes[MUON], device=device)
        first, second = self.cuts
        decayed = nn.Parameter(self.master[first:second])
        plain = nn.Parameter(self.master[second:])
        self.parts = [decayed, plain]
        groups = [
            {"params": [decayed], "weight_decay": section.weight_decay},
            {"params": [plain], "weight_decay": 0.0},
        ]
        self.adam = _adam(groups, section, fused=device.type in ("cpu", "cuda"))

    def _move_in(self, named: list[tuple[str, nn.Parameter]]) -> list[int]:
        """Make the parameters views of the flat buffers; return the size of each zone."""
        offset = 0
        sizes = [0, 0, 0]
        for name, parameter in named:
            count = parameter.numel()
            place = slice(offset, offset + count)
            sizes[zone(name, parameter, self.section)] += count
            parameter.data = self.weights[place].view(parameter.shape)
            parameter.grad = self.gradient[place].view(parameter.shape)
            offset += count
        return sizes

    def step(self, rate: float) -> float:
        """Update with the gradients collected so far and clear them.

        Returns:
            The gradient's norm before clipping. Where it is not finite, nothing is updated.
        """
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
            _set_rate(self.adam, rate)
            self.adam.step()
            self._show()
        self.gradient.zero_()
        self.summed = None
        return norm

    def collect(self) -> None:
        """Add up bf16 gradients in fp32, between the micro-batches of a step."""
        if self.summed is None:
            self.summed = torch.zeros_like(self.gradient, dtype=torch.float32)
        self.summed.add_(self.gradient)
        self.gradient.zero_()

    @torch.no_grad()
    def _muon(self, gradient: Tensor, rate: float) -> None:
        """Orthogonalized momentum, for all matrices of one shape at once.

        arXiv 2502.16982, equation 4 and section 2.2.
        """
        if not self.batches:
            return
        self.momentum.mul_(MOMENTUM).add_(gradient)
        # Nesterov momentum
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
        """Copy the master weights to those that the network computes with."""
        # In fp32 both are one tensor.
        if self.weights is not self.master:
            self.weights.copy_(self.master)
        if self.forward_weights:
            mine = self._named(self.weights)
            for name, weight in self.forward_weights(self.named_master()).items():
                mine[name].copy_(weight)

    def named_master(self) -> dict[str, Tensor]:
        """fp32 weights by the network's names."""
        return self._named(self.master)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([count for _, _, count in self.layout])
        found = {}
        for (name, shape, _), part in zip(self.layout, parts, strict=True):
            found[name] = part.view(shape)
        return found

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state by kind and the network's names, as views of its flat tensors."""
        found: dict[str, Tensor] = {}
        offset = 0
        for name, shape, count in self.layout:
            begin, flats = self._state_at(offset)
            start = offset - begin
            for kind, flat in flats.items():
                found[f"{kind}.{name}"] = flat[start : start + count].view(shape)
            offset += count
        return found

    def _state_at(self, offset: int) -> tuple[int, dict[str, Tensor]]:
        """Where the zone of a place begins, and the zone's flat moments by kind."""
        first, second = self.cuts
        if offset < first:
            return 0, {"momentum": self.momentum}
        if offset < second:
            state = self.adam.state[self.parts[0]]
            return first, {kind: state[kind] for kind in MOMENTS}
        state = self.adam.state[self.parts[1]]
        return second, {kind: state[kind] for kind in MOMENTS}

    @torch.no_grad()
    def restored(self, step: int) -> None:
        """Continue from a checkpoint of `step` finished steps, read into weights and moments."""
        self._show()
        for part in self.parts:
            self.adam.state[part]["step"].fill_(step)


def _ordered(network: nn.Module, section: Train) -> list[tuple[str, nn.Parameter]]:
    """Parameters that are trained, by zone, shape and name, so that equal ones are neighbours."""
    trained = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            trained.append((name, parameter))

    def place(item: tuple[str, nn.Parameter]) -> tuple[int, tuple[int, int], str]:
        name, parameter = item
        return zone(name, parameter, section), _matrix(parameter), name

    return sorted(trained, key=place)


def _batches(
    named: list[tuple[str, nn.Parameter]], section: Train
) -> list[tuple[tuple[int, int], int]]:
    """Shapes of Muon's matrices in their order, and the elements of all that have it."""
    shapes = []
    for name, parameter in named:
        if zone(name, parameter, section) == MUON:
            shapes.append(_matrix(parameter))
    found = []
    for shape, group in groupby(shapes):
        rows, columns = shape
        found.append((shape, rows * columns * len(list(group))))
    return found


class ShardedOptimizer:
    """The same updates on this rank's parts of sharded weights (fp32 DTensors of FSDP2).

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
        self.local = {}
        self.momentum = {}
        parts: dict[int, list[nn.Parameter]] = {DECAYED: [], PLAIN: []}
        for name, weight in named.items():
            local = nn.Parameter(weight.to_local().detach())
            self.local[name] = local
            kind = zone(name, weight, section)
            if kind == MUON:
                self.momentum[name] = torch.zeros_like(local.data)
            else:
                parts[kind].append(local)
        groups: list[dict[str, Any]] = [
            {"params": parts[DECAYED], "weight_decay": section.weight_decay},
            {"params": parts[PLAIN], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.adam = _adam(groups, section, fused=True)

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """As `FlatOptimizer.step`; the norm is that of the whole network's gradient."""
        gradients = self._gradients()
        norm = self._norm(gradients)
        if math.isfinite(norm):
            scale = min(1.0, self.section.grad_clip / (norm + 1e-6))
            for name, gradient in gradients.items():
                gradient *= scale
                if name in self.momentum:
                    self._turn(name, gradient, rate)
                else:
                    self.local[name].grad = gradient
            _set_rate(self.adam, rate)
            self.adam.step()
        for weight in (*self.named.values(), *self.local.values()):
            weight.grad = None
        return norm

    def _gradients(self) -> dict[str, Tensor]:
        """This rank's parts of the gradients."""
        found = {}
        for name, weight in self.named.items():
            gradient: Any = weight.grad
            if gradient is not None:
                found[name] = gradient.to_local()
        return found

    def _norm(self, gradients: Mapping[str, Tensor]) -> float:
        """Norm over all ranks; an element that several ranks hold counts once."""
        squares = []
        for name, gradient in gradients.items():
            square = gradient.float().square().sum()
            squares.append(square / self.copies[name])
        own = torch.stack(squares).sum() if squares else torch.zeros(())
        return float(self.total(own)) ** 0.5

    def _turn(self, name: str, gradient: Tensor, rate: float) -> None:
        """Muon on one matrix: every rank gathers and updates all of it and keeps its part."""
        weight = self.named[name]
        momentum = self.momentum[name]
        momentum.mul_(MOMENTUM).add_(gradient)
        # Nesterov momentum
        part = gradient.add(momentum, alpha=MOMENTUM)
        whole = self._spread(name, part).full_tensor()
        turned = orthogonal(whole.unsqueeze(0))[0]
        scale = ROOT_MEAN_SQUARE * math.sqrt(max(weight.shape))
        local = self.local[name].data
        local.mul_(1 - rate * self.section.weight_decay)
        local.sub_(part_of(turned, weight), alpha=rate * scale)

    def named_master(self) -> dict[str, DTensor]:
        """fp32 weights by the network's names, sharded."""
        detached: dict[str, Any] = {name: weight.detach() for name, weight in self.named.items()}
        return detached

    def moments(self) -> dict[str, DTensor]:
        """The optimizer's state by kind and the network's names, sharded like the weights."""
        found = {}
        for name, momentum in self.momentum.items():
            found[f"momentum.{name}"] = self._spread(name, momentum)
        for name, part in self.local.items():
            if name not in self.momentum:
                state = self.adam.state[part]
                for kind in MOMENTS:
                    found[f"{kind}.{name}"] = self._spread(name, state[kind])
        return found

    def _spread(self, name: str, part: Tensor) -> DTensor:
        """This rank's part as a part of a tensor sharded like the weight."""
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
    pairs = zip(offset, size, strict=True)
    places = tuple(slice(start, start + length) for start, length in pairs)
    return whole[places]


def _matrix(parameter: Tensor) -> tuple[int, int]:
    """Rows and columns of a matrix or of a stack of them; (0, 0) for a vector."""
    if parameter.dim() < 2:
        return (0, 0)
    return (parameter.shape[-2], parameter.shape[-1])
