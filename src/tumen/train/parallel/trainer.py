"""One rank of a mesh that trains one network: losses, steps, checkpoints, validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from tumen.core.shape import Shape
from tumen.data import Batch
from tumen.model import Transformer, visible
from tumen.recipe import Train
from tumen.train.losses import Extra, loss_of_inputs, whole_weight
from tumen.train.optimizer import ShardedOptimizer
from tumen.train.parallel.context_parallel import own_columns, sequence_places
from tumen.train.parallel.data_parallel import materialize, sharded_modules, split_network
from tumen.train.parallel.pipeline_parallel import (
    StageModule,
    schedule_of,
    stage_layers,
    stage_rank,
    stages_of,
)
from tumen.train.parallel.rank_mesh import RankMesh
from tumen.train.single_process import added, rebalance
from tumen.train.world import World, type_of


class DistributedTrainer:
    """`Trainer` of one rank of a mesh."""

    def __init__(
        self,
        section: Train,
        shape: Shape,
        world: World,
        seed: int,
        distil: tuple[float, Extra] | None = None,
    ) -> None:
        """Build this rank's part of the network; every rank must call this at the same time."""
        self.section = section
        self.shape = shape
        self.world = world
        self.distil = distil
        self.mesh = section.mesh
        self.ranks = RankMesh(self.mesh, world)
        self.data_rank = self.ranks.data_rank()
        self.data_ranks = self.mesh.dp
        self.stages = stages_of(self.mesh, self.ranks.place["pp"])
        self.roots = [self._build_part(stage, seed) for stage in self.stages]
        self.networks = [
            root.network if isinstance(root, StageModule) else root for root in self.roots
        ]
        self.pipeline: Any = self._schedule() if self.mesh.pp > 1 else None
        named: dict[str, Any] = {}
        for network in self.networks:
            named.update(network.named_parameters())
        self.optimizer = ShardedOptimizer(
            named, section, self._holders(named), self._sum_over_ranks
        )
        self._loads: Tensor | None = None

    # -- building --------------------------------------------------------------------------------

    def _build_part(self, stage: int, seed: int) -> Transformer | StageModule:
        first, after = stage_layers(self.shape.num_hidden_layers, self.mesh.stages, stage)
        with torch.device("meta"):
            network = Transformer(self.shape).cut(first, after)
        root: Transformer | StageModule = network
        if self.mesh.pp > 1:
            root = StageModule(network, self.section)
        split_network(network, root, self.ranks, self.section)
        materialize(network, self.world.device, seed)
        return root.train()

    def _schedule(self) -> Any:
        micro_batches = self._rank_batch_size() // self._micro_batch_size()
        group = self.ranks.group("pp")
        return schedule_of(
            self.mesh, self.roots, self.stages, group, self.world.device, micro_batches
        )

    def _rank_batch_size(self) -> int:
        return self.section.batch_size // self.mesh.dp

    def _micro_batch_size(self) -> int:
        return self.mesh.rows_of(self.section.batch_size)

    def _holders(self, named: dict[str, Any]) -> dict[str, float]:
        """Return how many ranks hold each element of a weight.

        It is the size of all parts on the stage's ranks over the size of the weight.
        """
        held = torch.tensor([float(weight.to_local().numel()) for weight in named.values()])
        for name in ("replicate", "shard", "cp", "ep", "tp"):
            dist.all_reduce(held, group=self.ranks.group(name))
        found = {}
        for (name, weight), count in zip(named.items(), held, strict=True):
            found[name] = float(count) / weight.numel()
        return found

    def _sum_over_ranks(self, square: Tensor) -> Tensor:
        dist.all_reduce(square)
        return square

    # -- learning --------------------------------------------------------------------------------

    def learn(self, batch: Batch) -> float:
        """Run forward and backward; return the loss of the whole step, on every rank."""
        self._loads = None
        loss = self._pipelined(batch) if self.pipeline else self._plain(batch)
        # the request to stop is summed with the loss, so that all ranks learn of it in one step
        both = torch.stack((loss, loss.new_tensor(float(self.world.stop.asked))))
        dist.all_reduce(both)
        total, asked = both.tolist()
        self.world.stop.agreed = asked > 0
        return total / self.mesh.tp  # tensor-parallel ranks have the same loss, all others add up

    def _plain(self, batch: Batch) -> Tensor:
        """Run forward and backward over the micro-batches; return this rank's share of the loss."""
        network = self.networks[0]
        parts = batch.split(self._micro_batch_size())
        losses = []
        for part in parts:
            last = part is parts[-1]
            if isinstance(network, FSDPModule):
                # below ZeRO-2 gradients are reduced with the last micro-batch
                network.set_requires_gradient_sync(self.mesh.zero > 1 or last)
            loss = self._loss(network, part)
            loss.backward()
            losses.append(loss.detach())
            self._loads = added(self._loads, network)
        return torch.stack(losses).sum()

    def _loss(self, network: Transformer, batch: Batch) -> Tensor:
        """Return this rank's share of the step's loss; with context parallelism of its slices."""
        own, inputs = self._network_inputs(batch)
        distil = self.distil if network.training else None
        return loss_of_inputs(network, own, inputs, self.section, distil)

    def _network_inputs(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """Return this rank's columns of a batch and the network's inputs.

        Returns:
            the columns; ids, positions, real (b, T / cp), mask (b, 1, T / cp, T), share (b,) of the
            step, and safe (b,) where the network drops tokens.
        """
        device = self.world.device
        tokens = batch.ids.shape[1]
        ranks = self.mesh.cp
        order = [sequence_places(tokens, ranks, rank) for rank in range(ranks)]
        places = order[self.ranks.place["cp"]]
        keys = np.concatenate(order)  # gathered keys come in rank order
        own = own_columns(batch, places, ranks)
        documents = torch.from_numpy(own.documents).to(device)
        mask = visible(
            documents,
            torch.from_numpy(np.ascontiguousarray(places)).to(device),
            torch.from_numpy(np.ascontiguousarray(batch.documents[:, keys])).to(device),
            torch.from_numpy(np.ascontiguousarray(keys)).to(device),
        )
        inputs = {
            "ids": torch.from_numpy(own.ids).to(device),
            "positions": torch.from_numpy(own.positions).to(device),
            "mask": mask,
            "real": documents > 0,
            "share": torch.full((len(batch.ids),), 1 / batch.totals.rows, device=device),
        }
        safe = self.networks[0].safe_rows(torch.from_numpy(batch.ids).to(device))
        if safe is not None:
            inputs["safe"] = safe
        return own, inputs

    # -- pipeline --------------------------------------------------------------------------------

    def _pipelined(self, batch: Batch) -> Tensor:
        """Run a step through torch's schedule; return the loss on the last stage's rank, else 0."""
        inputs = self.pipeline_inputs(batch)
        ids = inputs.pop("ids")
        micro_batches = len(batch.ids) // self._micro_batch_size()
        nothing = torch.zeros(micro_batches, device=self.world.device)
        losses: list[Tensor] = []
        has_first = 0 in self.stages
        has_last = self.mesh.stages - 1 in self.stages
        self.pipeline.step(
            *((ids, nothing) if has_first else ()),
            target=nothing if has_last else None,
            losses=losses if has_last else None,
            return_outputs=False,
            **inputs,
        )
        for root in self.roots:
            for module in sharded_modules(root):
                module.reshard()
            self._take_loads(root)
        if not losses:
            return nothing.sum()
        return torch.stack([loss.detach() for loss in losses]).sum()

    def _take_loads(self, root: Transformer | StageModule) -> None:
        """Append the expert loads of a stage to those of the step."""
        if not isinstance(root, StageModule) or root.loads is None:
            return
        if self._loads is None:
            self._loads = root.loads
        else:
            self._loads = torch.cat((self._loads, root.loads))
        root.loads = None

    def pipeline_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the inputs of all stages: the network's, targets and loss weights.

        The schedule cuts all of them along the rows.
        """
        own, inputs = self._network_inputs(batch)
        device = self.world.device
        inputs.setdefault("safe", torch.zeros(len(batch.ids), dtype=torch.bool, device=device))
        weight = np.where(own.answers > 0, 1.0, self.section.sentence_weight) * (own.targets >= 0)
        weight = weight / whole_weight(batch, self.section.sentence_weight)
        inputs["weights"] = torch.from_numpy(weight.astype(np.float32)).to(device)
        inputs["targets"] = torch.from_numpy(np.maximum(own.targets, 0)).to(device)
        return inputs

    def _forward_stages(self, batch: Batch) -> Tensor:
        """Run forward alone, stage after stage, as torch's V schedules cannot.

        Returns:
            the loss where the last stage is, 0 elsewhere.
        """
        inputs = self.pipeline_inputs(batch)
        x = inputs.pop("ids")
        nothing = torch.zeros(1, device=self.world.device)
        for stage in range(self.mesh.stages):
            last = stage == self.mesh.stages - 1
            if stage in self.stages:
                out = self.roots[self.stages.index(stage)](x, nothing, **inputs)
                if last:
                    return out
                x = out[0]
            if not last:
                x = self._pass_on(x, stage, inputs["positions"].shape)
        return nothing.sum()

    def _pass_on(self, x: Tensor, stage: int, shape: torch.Size) -> Tensor:
        """Send the states of a stage to the rank of the next one; shape (b, T)."""
        here = stage_rank(self.mesh, stage)
        there = stage_rank(self.mesh, stage + 1)
        if here == there:
            return x
        group = self.ranks.group("pp")
        ranks = dist.get_process_group_ranks(group)
        own = self.ranks.place["pp"]
        if own == here:
            dist.send(x.contiguous(), ranks[there], group=group)
        if own == there:
            device = self.world.device
            dtype = type_of(self.section, device)
            x = torch.empty(*shape, self.shape.hidden_size, dtype=dtype, device=device)
            dist.recv(x, ranks[here], group=group)
        return x

    # -- update ----------------------------------------------------------------------------------

    def step(self, rate: float) -> float:
        """Update the weights; return the norm of the gradient before clipping."""
        norm = self.optimizer.step(rate)
        experts = self.shape.experts
        if experts and experts.bias_rate:
            self._rebalance()
        return norm

    def _rebalance(self) -> None:
        loads = self.loads()
        if loads is None:
            return
        start = 0
        for network in self.networks:
            count = len(network.mixtures())
            rebalance(network, loads[start : start + count])
            start += count

    def loads(self) -> Tensor | None:
        """Return expert loads of the last step, summed over the ranks that saw different tokens."""
        if self._loads is None:
            return None
        loads = self._loads.clone()
        for name in ("replicate", "shard", "cp", "ep"):
            dist.all_reduce(loads, group=self.ranks.group(name))
        return loads

    # -- checkpoints and validation --------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint keeps, by name."""
        weights: dict[str, Tensor] = {**self.optimizer.named_master()}
        for network in self.networks:
            weights.update(network.named_buffers())
        moments = self.optimizer.moments()
        kept = {f"weights.{name}": tensor for name, tensor in weights.items()}
        return kept | {f"moments.{name}": tensor for name, tensor in moments.items()}

    def restored(self, step: int) -> None:
        """Continue after `tensors` were filled from a checkpoint of `step` finished steps."""
        self.optimizer.restored(step)

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        """Return the mean loss over batches, without balance losses and with nothing dropped."""
        kept = self.section
        self.section = section
        losses = []
        with torch.no_grad():
            for network in self.networks:
                network.eval()
            for batch in batches:
                if self.pipeline:
                    loss = self._forward_stages(batch)
                else:
                    loss = self._loss(self.networks[0], batch)
                dist.all_reduce(loss)
                losses.append(float(loss) / self.mesh.tp)
            for network in self.networks:
                network.train()
        self.section = kept
        self._loads = None
        return sum(losses) / len(losses)
