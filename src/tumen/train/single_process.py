"""One process that learns: flat fp32 weights, compiled blocks. `Together` in parallel.py has the same verbs for many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from tumen.core.shape import Shape
from tumen.data import Batch
from tumen.model import KERNELS, Transformer, build
from tumen.recipe import Train
from tumen.train.losses import Extra, loss_of
from tumen.train.optimizer import FlatOptimizer, Seen
from tumen.train.world import Team, type_of

KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.addmm.default,
}  # not computed again when selective


class Learner(Protocol):
    """A network that takes steps. `data_rank` of `data_ranks` says which rows of a step are this process's."""

    data_rank: int
    data_ranks: int

    def learn(self, batch: Batch) -> float:
        """Forward and backward over a step; the loss of the whole step, on every rank."""
        ...

    def step(self, rate: float) -> float:
        """Update, and return the norm of the gradient before clipping."""
        ...

    def loads(self) -> Tensor | None:
        """Tokens that wanted each expert in the last step, and drops: (mixtures, E + 1) over all ranks."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint keeps, by name, to be written or to be filled in place."""
        ...

    def restored(self, step: int) -> None:
        """Go on after `tensors` were filled from a checkpoint of `step` finished steps."""
        ...

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        """Mean over batches of the loss without balance losses, nothing dropped."""
        ...


class Alone:
    """`Learner` of one process. It takes `network` instead of a fresh one; what of it wants no gradient stays as it is."""

    data_rank, data_ranks = 0, 1

    def __init__(
        self,
        section: Train,
        shape: Shape,
        team: Team,
        seed: int,
        distil: tuple[float, Extra] | None = None,
        seen: Seen | None = None,
        network: Transformer | None = None,
    ) -> None:
        self.section, self.device, self.distil = section, team.device, distil
        self.network = prepared((network or build(shape, seed)).to(team.device), section)
        self.optimizer = FlatOptimizer(self.network, section, type_of(section, team.device), seen)
        self._loads: Tensor | None = None
        if section.compile:
            remove_broken_libraries()
            for block in self.network.every_block():
                block.compile(dynamic=False)

    def learn(self, batch: Batch) -> float:
        parts, losses, self._loads = (
            batch.split(self.section.mesh.rows_of(len(batch.ids))),
            [],
            None,
        )
        for part in parts:
            loss = loss_of(self.network, part, self.section, self.device, self.distil)
            loss.backward()
            losses.append(loss.detach())
            self._loads = added(self._loads, self.network)
            if part is not parts[-1]:
                self.optimizer.collect()
        return float(torch.stack(losses).sum())

    def step(self, rate: float) -> float:
        norm = self.optimizer.step(rate)
        rebalance(self.network, self._loads)
        return norm

    def loads(self) -> Tensor | None:
        return self._loads

    def tensors(self) -> dict[str, Tensor]:
        weights = self.optimizer.named_master() | dict(self.network.named_buffers())
        kept = {f"weights.{name}": tensor for name, tensor in weights.items()}
        return kept | {
            f"moments.{name}": tensor for name, tensor in self.optimizer.moments().items()
        }

    def restored(self, step: int) -> None:
        self.optimizer.restored(step)

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        with (
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),
        ):  # a few batches do not pay for another compilation
            self.network.eval()
            losses = [
                float(loss_of(self.network, batch, section, self.device)) for batch in batches
            ]
            self.network.train()
        return sum(losses) / len(losses)


def remove_broken_libraries() -> None:
    """A process killed while it compiled leaves empty libraries in torch's cache, on which the next one would fail."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    for library in Path(cache_dir()).rglob("*.so"):
        if library.stat().st_size == 0:
            library.unlink(missing_ok=True)


def prepared(network: Transformer, section: Train) -> Transformer:
    """The network in training mode, with the section's expert kernel and recomputation."""
    for mixture in network.mixtures():
        mixture.kernel = KERNELS[section.expert_kernel]
    if section.mesh.recompute != "none":
        for block in network.every_block():
            block.forward = recomputed(block.forward, section.mesh.recompute)  # type: ignore[method-assign]
    return network.train()


def recomputed(forward: Any, kind: str) -> Any:
    """A block's forward whose activations are made again in the backward pass; "selective" keeps the matmuls' results."""
    if kind == "full":
        return partial(checkpoint, forward, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, keep_matmuls)
    return partial(checkpoint, forward, use_reentrant=False, context_fn=contexts)


def keep_matmuls(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """What selective recomputation keeps."""
    return CheckpointPolicy.MUST_SAVE if op in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def added(loads: Tensor | None, network: Transformer) -> Tensor | None:
    """The loads so far and those of the last forward pass."""
    if not network.loads:
        return loads
    new = torch.stack(network.loads)
    return new if loads is None else loads + new


def rebalance(network: Transformer, loads: Tensor | None) -> None:
    """Move the balancing biases, where the shape has them."""
    if loads is not None:
        for mixture, load in zip(network.mixtures(), loads, strict=True):
            mixture.rebalance(load[:-1])
