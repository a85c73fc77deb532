"""A trainer of one process: flat fp32 weights, compiled blocks.

`DistributedTrainer` in parallel/trainer.py has the same verbs for many ranks.
"""

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
from tumen.train.optimizer import FlatOptimizer, ForwardWeights
from tumen.train.world import World, type_of

# Results of these operations are kept by selective recomputation.
KEPT = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default}


class Trainer(Protocol):
    """A network that takes steps.

    Attributes:
        data_rank: which part of a step's rows this process reads.
        data_ranks: parts of a step's rows.
    """

    data_rank: int
    data_ranks: int

    def learn(self, batch: Batch) -> float:
        """Run forward and backward; return the loss of the whole step, on every rank."""
        ...

    def step(self, rate: float) -> float:
        """Update the weights; return the norm of the gradient before clipping."""
        ...

    def loads(self) -> Tensor | None:
        """Return tokens routed to each expert in the last step, and drops.

        Returns:
            (mixtures, E + 1) over all ranks, or None for a dense network.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint keeps, by name, to be written or filled in place."""
        ...

    def restored(self, step: int) -> None:
        """Continue after `tensors` were filled from a checkpoint of `step` finished steps."""
        ...

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        """Return the mean loss over batches, without balance losses and with nothing dropped."""
        ...


class SingleProcessTrainer:
    """`Trainer` of one process."""

    data_rank = 0
    data_ranks = 1

    def __init__(
        self,
        section: Train,
        shape: Shape,
        world: World,
        seed: int,
        distil: tuple[float, Extra] | None = None,
        *,
        forward_weights: ForwardWeights | None = None,
        network: Transformer | None = None,
    ) -> None:
        """Build the network, or take `network`; weights that want no gradient stay as they are."""
        self.section = section
        self.device = world.device
        self.distil = distil
        network = network or build(shape, seed)
        self.network = prepared(network.to(world.device), section)
        self.optimizer = FlatOptimizer(
            self.network, section, type_of(section, world.device), forward_weights
        )
        self._loads: Tensor | None = None
        if section.compile:
            remove_broken_libraries()
            for block in self.network.every_block():
                block.compile(dynamic=False)

    def learn(self, batch: Batch) -> float:
        """Run forward and backward over the micro-batches of a step; return its loss."""
        parts = batch.split(self.section.mesh.rows_of(len(batch.ids)))
        losses = []
        self._loads = None
        for part in parts:
            loss = loss_of(self.network, part, self.section, self.device, self.distil)
            loss.backward()
            losses.append(loss.detach())
            self._loads = added(self._loads, self.network)
            if part is not parts[-1]:
                self.optimizer.collect()
        return float(torch.stack(losses).sum())

    def step(self, rate: float) -> float:
        """Update the weights; return the norm of the gradient before clipping."""
        norm = self.optimizer.step(rate)
        rebalance(self.network, self._loads)
        return norm

    def loads(self) -> Tensor | None:
        """Return expert loads of the last step, (mixtures, E + 1)."""
        return self._loads

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint keeps, by name."""
        weights = self.optimizer.named_master() | dict(self.network.named_buffers())
        moments = self.optimizer.moments()
        kept = {f"weights.{name}": tensor for name, tensor in weights.items()}
        kept |= {f"moments.{name}": tensor for name, tensor in moments.items()}
        return kept

    def restored(self, step: int) -> None:
        """Continue after `tensors` were filled from a checkpoint of `step` finished steps."""
        self.optimizer.restored(step)

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        """Return the mean loss over batches."""
        self.network.eval()
        # a few batches do not pay for another compilation
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            losses = []
            for batch in batches:
                loss = loss_of(self.network, batch, section, self.device)
                losses.append(float(loss))
        self.network.train()
        return sum(losses) / len(losses)


def remove_broken_libraries() -> None:
    """Remove empty libraries that a process killed while compiling left in torch's cache.

    The next process would fail on them.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    for library in Path(cache_dir()).rglob("*.so"):
        if library.stat().st_size == 0:
            library.unlink(missing_ok=True)


def prepared(network: Transformer, section: Train) -> Transformer:
    """Put a network into training mode, with the section's expert kernel and recomputation."""
    for mixture in network.mixtures():
        mixture.kernel = KERNELS[section.expert_kernel]
    if section.mesh.recompute != "none":
        for block in network.every_block():
            block.forward = recomputed(block.forward, section.mesh.recompute)  # type: ignore[method-assign]
    return network.train()


def recomputed(forward: Any, kind: str) -> Any:
    """Return a forward pass that recomputes activations in the backward pass.

    "full" recomputes all of them, "selective" keeps the results of matrix products.
    """
    if kind == "full":
        return partial(checkpoint, forward, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, keep_matmuls)
    return partial(checkpoint, forward, use_reentrant=False, context_fn=contexts)


def keep_matmuls(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Decide for one operation whether selective recomputation keeps its result."""
    return CheckpointPolicy.MUST_SAVE if op in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def added(loads: Tensor | None, network: Transformer) -> Tensor | None:
    """Add the expert loads of the last forward pass to those so far."""
    if not network.loads:
        return loads
    new = torch.stack(network.loads)
    return new if loads is None else loads + new


def rebalance(network: Transformer, loads: Tensor | None) -> None:
    """Update the balancing biases of a network that has them; loads (mixtures, E + 1)."""
    if loads is None:
        return
    for mixture, load in zip(network.mixtures(), loads, strict=True):
        mixture.rebalance(load[:-1])  # the last column counts drops
