"""Many ranks that learn one network: the only file that knows FSDP, HSDP, TP, EP, CP and PP.

    ranks lie as   pp x replicate x shard x cp x ep x tp, the last one next to each other in a node
    FSDP2, HSDP    every block's weights over shard x cp x ep (experts: over shard x cp), fp32, gathered in bf16
    TP             heads and inner features by `enter` / `leave` (Megatron-LM, arXiv 1909.08053, section 3)
    EP             experts by all-to-all of padded queues, so that every exchange has one known size
    CP             a rank holds two slices of every row and gathers the others' latents (keys and values with GQA); the slices of
                   the first and the last part lie together, so that causal work is even
    PP             torch's schedules over stages that are the same `Transformer` with fewer parts

Losses are divided by what the whole step holds before the backward pass, so gradients are summed, never averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.fsdp._fully_shard._fsdp_common import (
    FSDPMeshInfo,
    HSDPMeshInfo,
    ShardPlacementResult,
)
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleDualPipeV,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)
from torch.distributed.tensor import DTensor, Shard

from tumen.core.shape import Shape
from tumen.data import Batch
from tumen.model import Block, FeedForward, MixtureOfExperts, Transformer, Travel, fresh, visible
from tumen.recipe import Mesh, Train
from tumen.train.losses import Extra, told_loss, whole_weight
from tumen.train.optimizer import ShardedOptimizer, put
from tumen.train.single_process import added, prepared, rebalance
from tumen.train.world import Team, type_of

SCHEDULES = {
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero-bubble": ScheduleInterleavedZeroBubble,
    "dualpipe": ScheduleDualPipeV,
}
EXPERTS = ("gate", "up", "down")


class Grid:
    """The ranks as grids: `all` by every dimension, `dense` and `sparse` as weights and experts are spread."""

    def __init__(self, mesh: Mesh, team: Team) -> None:
        kind = team.device.type
        sizes = {
            "pp": mesh.pp,
            "replicate": mesh.replicate,
            "shard": mesh.shard,
            "cp": mesh.cp,
            "ep": mesh.ep,
            "tp": mesh.tp,
        }
        self.mesh = mesh
        self.all = init_device_mesh(kind, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        spread = mesh.shard * mesh.cp
        dense, sparse = (
            (mesh.pp, mesh.replicate, spread * mesh.ep, mesh.tp),
            (mesh.pp, mesh.replicate, spread, mesh.ep, mesh.tp),
        )
        self.dense = init_device_mesh(
            kind, dense, mesh_dim_names=("pp", "replicate", "spread", "tp")
        )
        self.sparse = init_device_mesh(
            kind, sparse, mesh_dim_names=("pp", "replicate", "spread", "ep", "tp")
        )
        self.place = dict(zip(sizes, self.all.get_coordinate() or (), strict=True))

    def group(self, name: str) -> dist.ProcessGroup:
        """The ranks that differ from this one in one dimension alone."""
        return self.all[name].get_group()

    def data_rank(self) -> int:
        """Which of the dp ranks this one is."""
        return (
            self.place["replicate"] * self.mesh.shard + self.place["shard"]
        ) * self.mesh.ep + self.place["ep"]


# -- exchanges between ranks, each with its backward pass --------------------------------------------------------------------


class _Enter(torch.autograd.Function):
    """Megatron's f: nothing forward, the sum over tensor-parallel ranks backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return summed(grads[0], ctx.group), None


class _Leave(torch.autograd.Function):
    """Megatron's g: the sum over tensor-parallel ranks forward, nothing backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return summed(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Whole(torch.autograd.Function):
    """x (B, H, T / c, d) of every context-parallel rank -> (B, H, T, d), in the order of the ranks; backward each takes its sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        out = x.new_empty(group.size() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(out, x.contiguous(), group=group)
        return out.unflatten(0, (group.size(), -1)).movedim(0, 2).flatten(2, 3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        parts = (
            grads[0].unflatten(2, (ctx.group.size(), -1)).movedim(2, 0).contiguous()
        )  # (c, B, H, T / c, d)
        out = torch.empty_like(parts[0])
        dist.reduce_scatter_tensor(out, parts.flatten(0, 1), group=ctx.group)
        return out, None


class _Swap(torch.autograd.Function):
    """x (ranks, ...) -> (ranks, ...): what rank i holds for rank j goes there; the way back is the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return swapped(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return swapped(grads[0], ctx.group), None


def swapped(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """x (ranks, ...), its i-th part sent to rank i; what came from rank i in place i."""
    x = x.contiguous()
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x, group=group)
    return out


def summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum over a group, in a new tensor."""
    out = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, group=group)
    return out


class Journey(Travel):
    """Expert queues between the ranks that share the experts."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.ranks = group, group.size()

    def out(self, queue: Tensor) -> Tensor:
        parts = queue.unflatten(0, (self.ranks, -1))  # (ranks, E / ranks, room, D)
        return _Swap.apply(parts, self.group).transpose(0, 1).flatten(1, 2)

    def home(self, queue: Tensor) -> Tensor:
        parts = queue.unflatten(1, (self.ranks, -1)).transpose(0, 1)
        return _Swap.apply(parts, self.group).flatten(0, 1)

    def widest(self, rows: int) -> int:
        most = torch.tensor(rows)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self.group)
        return int(most)


# -- a network over a grid ---------------------------------------------------------------------------------------------------


def spread(network: Transformer, root: nn.Module, grid: Grid, section: Train) -> None:
    """Split a network that is still on the meta device: seams, tensor and expert parallel parts, then FSDP2 around every block.

    `root` is the network, or the pipeline stage around it: a schedule gathers and reduces by what it runs.
    """
    mesh = section.mesh
    if mesh.cp > 1:
        _join_rows(network, grid.group("cp"))
    for block in network.every_block():
        if mesh.tp > 1:
            _split_features(block, grid, mesh)
        if mesh.ep > 1 and isinstance(block.feed, MixtureOfExperts):
            block.feed.travel = Journey(grid.group("ep"))
            for name in EXPERTS:
                _split(block.feed, name, grid.sparse["ep"], 0)
    prepared(network, section)
    policy = MixedPrecisionPolicy(
        param_dtype=type_of(section, torch.device(grid.all.device_type)), reduce_dtype=torch.float32
    )
    shared = grid.dense["replicate", "spread"] if mesh.replicate > 1 else grid.dense["spread"]
    again = (
        mesh.zero == 3 and mesh.pp == 1
    )  # a pipeline's backward passes want the weights they met forward
    for block in network.every_block():
        place = _experts_placement(block, grid) if mesh.ep > 1 else None
        fully_shard(
            block,
            mesh=shared,
            mp_policy=policy,
            reshard_after_forward=again,
            shard_placement_fn=place,
        )
    fully_shard(root, mesh=shared, mp_policy=policy, reshard_after_forward=False)
    if root is network:
        register_fsdp_forward_method(network, "head")
    for module in gathered(root):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def gathered(root: nn.Module) -> list[FSDPModule]:
    """Every module whose weights FSDP gathers."""
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def _experts_placement(block: Block, grid: Grid) -> Any:
    """FSDP's place of a block's weights: experts lie on the sparse grid, all else as the block."""
    experts = (
        {id(getattr(block.feed, name)) for name in EXPERTS}
        if isinstance(block.feed, MixtureOfExperts)
        else set()
    )
    sparse = (
        grid.sparse["replicate", "spread"] if grid.mesh.replicate > 1 else grid.sparse["spread"]
    )
    info: FSDPMeshInfo = (
        HSDPMeshInfo(sparse, shard_mesh_dim=1, replicate_mesh_dim=0)
        if sparse.ndim == 2
        else FSDPMeshInfo(sparse, shard_mesh_dim=0)
    )
    return lambda weight: ShardPlacementResult(Shard(0), info) if id(weight) in experts else None


def _join_rows(network: Transformer, group: dist.ProcessGroup) -> None:
    """Context parallel seams: latents are gathered, counts over a row are summed."""
    for block in network.every_block():
        block.attention.whole = lambda x: _Whole.apply(x, group)  # type: ignore[assignment]
    for mixture in network.mixtures():
        mixture.over_sequence = partial(summed, group=group)


def _split_features(block: Block, grid: Grid, mesh: Mesh) -> None:
    """Tensor parallel: heads and inner features by columns, what leads back by rows; experts only where EP does not share them."""
    tp = grid.dense["tp"]
    columns = [name for name in ("q", "k", "v", "q_up", "kv_up") if hasattr(block.attention, name)]
    feeds = (
        [block.feed]
        if isinstance(block.feed, FeedForward)
        else [block.feed.shared]
        if block.feed.shared is not None
        else []
    )
    for module, names, dim in [(block.attention, columns, 0), (block.attention, ["out"], 1)] + [
        part for feed in feeds for part in ((feed, ["gate", "up"], 0), (feed, ["down"], 1))
    ]:
        for name in names:
            _split(getattr(module, name), "weight", tp, dim)
    seamed = [block.attention, *feeds]
    if isinstance(block.feed, MixtureOfExperts) and mesh.ep == 1:
        for name, dim in (("gate", 2), ("up", 2), ("down", 1)):
            _split(block.feed, name, tp, dim)
        seamed.append(block.feed)
    group = tp.get_group()
    for module in seamed:
        module.enter = lambda x: _Enter.apply(x, group)
        module.leave = lambda x: _Leave.apply(x, group)


def _split(module: nn.Module, name: str, mesh: DeviceMesh, dim: int) -> None:
    """Replace a weight by its part along `dim`, which is the same on every rank in shape."""
    weight = getattr(module, name)
    part = weight.detach().chunk(mesh.size(), dim)[mesh.get_local_rank()].contiguous()
    setattr(
        module, name, nn.Parameter(DTensor.from_local(part, mesh, [Shard(dim)], run_check=False))
    )


def materialise(network: Transformer, device: torch.device, seed: int) -> None:
    """Fresh weights, one at a time: each rank keeps its part of what the seed gives."""
    network.to_empty(device=device)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            put(weight, fresh(network.shape, name, weight.shape, seed))
        for buffer in network.buffers():
            buffer.zero_()


class Stage(nn.Module):
    """A pipeline stage: states and balance loss in, the same out; the last one gives the loss."""

    def __init__(self, network: Transformer, section: Train) -> None:
        super().__init__()
        self.network, self.section = network, section
        self.loads: Tensor | None = None

    def forward(self, x: Tensor, balance: Tensor, **told: Tensor) -> Any:
        """x: tokens (b, T) in the first stage, states (b, T, D) later; balance (1,) so far. told: see `Together._told`."""
        safe = told["safe"] if self.network.shape.experts else None
        out = self.network(x, told["positions"], told["mask"], real=told["real"], safe=safe)
        if self.training and torch.is_grad_enabled():
            self.loads = added(self.loads, self.network)
        balance = balance + out.balance * told["share"].sum()
        if self.network.norm is None:
            return out.states, balance
        places = told["weights"].flatten().nonzero().squeeze(1)
        logits = self.network.head(out.states.flatten(0, 1)[places]).float()
        losses = nn.functional.cross_entropy(
            logits, told["targets"].flatten()[places], reduction="none"
        )
        loss = (losses * told["weights"].flatten()[places]).sum()
        return loss + balance.sum() if self.network.training else loss


class Together:
    """`Learner` of one rank of a mesh."""

    def __init__(
        self,
        section: Train,
        shape: Shape,
        team: Team,
        seed: int,
        distil: tuple[float, Extra] | None = None,
    ) -> None:
        self.section, self.shape, self.team, self.distil, self.mesh = (
            section,
            shape,
            team,
            distil,
            section.mesh,
        )
        self.grid = Grid(self.mesh, team)
        self.data_rank, self.data_ranks = self.grid.data_rank(), self.mesh.dp
        self.roots = [self._part(first, last, seed) for first, last in self._layers()]
        self.networks = [root.network if isinstance(root, Stage) else root for root in self.roots]
        self.pipeline: Any = self._pipeline() if self.mesh.pp > 1 else None
        named: dict[str, Any] = {
            name: weight for network in self.networks for name, weight in network.named_parameters()
        }
        self.optimizer = ShardedOptimizer(named, section, self._copies(named), self._norm_total)
        self._loads: Tensor | None = None

    # -- building

    def _numbers(self) -> list[int]:
        """Pipeline stages of this rank: r, r + p, ... or, for DualPipe, the two arms of a V."""
        return [
            number
            for number in range(self.mesh.stages)
            if self._rank_of(number) == self.grid.place["pp"]
        ]

    def _layers(self) -> list[tuple[int, int]]:
        """First layer and the one after the last of this rank's stages; spread evenly, the first stages take the rest."""
        each, rest = divmod(self.shape.num_hidden_layers, self.mesh.stages)
        starts = [number * each + min(number, rest) for number in range(self.mesh.stages + 1)]
        return [(starts[number], starts[number + 1]) for number in self._numbers()]

    def _part(self, first: int, last: int, seed: int) -> Transformer | Stage:
        with torch.device("meta"):
            network = Transformer(self.shape).cut(first, last)
        root = Stage(network, self.section) if self.mesh.pp > 1 else network
        spread(network, root, self.grid, self.section)
        materialise(network, self.team.device, seed)
        return root.train()

    def _pipeline(self) -> Any:
        group, device, stages = self.grid.group("pp"), self.team.device, self.mesh.stages
        numbered = zip(self.roots, self._numbers(), strict=True)
        built = [
            PipelineStage(root, number, stages, device, group=group) for root, number in numbered
        ]
        micro = self.section.batch_size // (
            self.mesh.dp * self.mesh.rows_of(self.section.batch_size)
        )
        kind = SCHEDULES[self.mesh.schedule]
        return kind(
            built if self.mesh.virtual_stages > 1 else built[0],
            micro,
            loss_fn=lambda loss, _: loss,
            scale_grads=False,
        )

    def _copies(self, named: dict[str, Any]) -> dict[str, float]:
        """How many ranks hold each element of a weight: its parts over all ranks of this pipeline stage, over its size."""
        held = torch.tensor([float(weight.to_local().numel()) for weight in named.values()])
        for name in ("replicate", "shard", "cp", "ep", "tp"):
            dist.all_reduce(held, group=self.grid.group(name))
        return {
            name: float(count) / weight.numel()
            for (name, weight), count in zip(named.items(), held, strict=True)
        }

    def _norm_total(self, square: Tensor) -> Tensor:
        dist.all_reduce(square)
        return square

    # -- learning

    def learn(self, batch: Batch) -> float:
        self._loads = None
        loss = self._pipelined(batch) if self.pipeline else self._plain(batch)
        said = torch.stack((loss, loss.new_tensor(float(self.team.stop.asked))))
        dist.all_reduce(said)
        total, asked = said.tolist()
        self.team.stop.agreed = asked > 0
        return total / self.mesh.tp  # tensor-parallel ranks have the same loss, all others add up

    def _plain(self, batch: Batch) -> Tensor:
        network, losses = self.networks[0], []
        parts = batch.split(self.mesh.rows_of(self.section.batch_size))
        for part in parts:
            if isinstance(
                network, FSDPModule
            ):  # below ZeRO-2 gradients wait for the last micro-batch
                network.set_requires_gradient_sync(self.mesh.zero > 1 or part is parts[-1])
            loss = self._loss(network, part)
            loss.backward()
            losses.append(loss.detach())
            self._loads = added(self._loads, network)
        return torch.stack(losses).sum()

    def _loss(self, network: Transformer, batch: Batch) -> Tensor:
        """This rank's share of the step's loss; under context parallelism of its slices of the rows."""
        own, told = self._told(batch)
        return told_loss(
            network, own, told, self.section, self.distil if network.training else None
        )

    def _told(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """This rank's columns of a batch, and what the network is told: ids, positions, mask, real, safe, share of the step."""
        T, cp = batch.ids.shape[1], self.mesh.cp
        order = [slices(T, cp, rank) for rank in range(cp)]
        mine, keys = order[self.grid.place["cp"]], np.concatenate(order)
        columns = ("ids", "documents", "positions", "targets", "answers", "sources")
        own = (
            replace(batch, **{name: getattr(batch, name)[:, mine] for name in columns})
            if cp > 1
            else batch
        )
        ids, positions, documents = (
            torch.from_numpy(part).to(self.team.device)
            for part in (own.ids, own.positions, own.documents)
        )
        key_documents, places, key_places = (
            torch.from_numpy(np.ascontiguousarray(part)).to(self.team.device)
            for part in (batch.documents[:, keys], mine, keys)
        )
        rows = len(batch.ids)
        told = {
            "ids": ids,
            "positions": positions,
            "mask": visible(documents, places, key_documents, key_places),
            "real": documents > 0,
            "share": torch.full((rows,), 1 / batch.totals.rows, device=self.team.device),
        }
        safe = self.networks[0].safe_rows(torch.from_numpy(batch.ids).to(self.team.device))
        return own, told | ({} if safe is None else {"safe": safe})

    def _pipelined(self, batch: Batch) -> Tensor:
        """A step through torch's schedule; the loss on the rank that has the last stage, 0 elsewhere."""
        told = self._asked(batch)
        losses: list[Tensor] = []
        first, last = 0 in self._numbers(), self.mesh.stages - 1 in self._numbers()
        nothing = torch.zeros(
            len(batch.ids) // self.mesh.rows_of(self.section.batch_size), device=self.team.device
        )
        ids = told.pop("ids")
        self.pipeline.step(
            *((ids, nothing) if first else ()),
            target=nothing if last else None,
            losses=losses if last else None,
            return_outputs=False,
            **told,
        )
        for root in self.roots:
            for module in gathered(root):
                module.reshard()
            if isinstance(root, Stage) and root.loads is not None:
                self._loads, root.loads = (
                    root.loads if self._loads is None else torch.cat((self._loads, root.loads)),
                    None,
                )
        return torch.stack([loss.detach() for loss in losses]).sum() if losses else nothing.sum()

    def _asked(self, batch: Batch) -> dict[str, Tensor]:
        """What a pipeline's stages are told: also the targets, and their weights in the step's loss; all are cut along the rows."""
        own, told = self._told(batch)
        told.setdefault(
            "safe", torch.zeros(len(batch.ids), dtype=torch.bool, device=self.team.device)
        )
        weight = np.where(own.answers > 0, 1.0, self.section.sentence_weight) * (own.targets >= 0)
        weight = weight / whole_weight(batch, self.section.sentence_weight)
        told["weights"] = torch.from_numpy(weight.astype(np.float32)).to(self.team.device)
        told["targets"] = torch.from_numpy(np.maximum(own.targets, 0)).to(self.team.device)
        return told

    def _passed_on(self, batch: Batch) -> Tensor:
        """Forward alone, stage after stage (torch's V schedules cannot); the loss where the last stage is, 0 elsewhere."""
        told, group = self._asked(batch), self.grid.group("pp")
        x, nothing = told.pop("ids"), torch.zeros(1, device=self.team.device)
        ranks = dist.get_process_group_ranks(group)
        for number in range(self.mesh.stages):
            if number in self._numbers():
                given = self.roots[self._numbers().index(number)](x, nothing, **told)
                if number == self.mesh.stages - 1:
                    return given
                x = given[0]
            if number == self.mesh.stages - 1:
                break
            here, there = self._rank_of(number), self._rank_of(number + 1)
            if here != there and self.grid.place["pp"] == here:
                dist.send(x.contiguous(), ranks[there], group=group)
            if here != there and self.grid.place["pp"] == there:
                x = torch.empty(
                    *told["positions"].shape,
                    self.shape.hidden_size,
                    dtype=type_of(self.section, self.team.device),
                    device=self.team.device,
                )
                dist.recv(x, ranks[here], group=group)
        return nothing.sum()

    def _rank_of(self, number: int) -> int:
        """Pipeline rank that has a stage."""
        pp, stages = self.mesh.pp, self.mesh.stages
        if self.mesh.schedule == "dualpipe":
            return min(number, stages - 1 - number) % pp
        return number % pp

    def step(self, rate: float) -> float:
        norm = self.optimizer.step(rate)
        experts = self.shape.experts
        if experts and experts.bias_rate:
            loads = self._summed_loads()
            if loads is not None:
                start = 0
                for network in self.networks:
                    count = len(network.mixtures())
                    rebalance(network, loads[start : start + count])
                    start += count
        return norm

    def loads(self) -> Tensor | None:
        return self._summed_loads()

    def _summed_loads(self) -> Tensor | None:
        """Over the ranks that saw different tokens."""
        if self._loads is None:
            return None
        loads = self._loads.clone()
        for name in ("replicate", "shard", "cp", "ep"):
            dist.all_reduce(loads, group=self.grid.group(name))
        return loads

    # -- checkpoints and validation

    def tensors(self) -> dict[str, Tensor]:
        buffers = {
            name: buffer for network in self.networks for name, buffer in network.named_buffers()
        }
        weights: dict[str, Tensor] = {**self.optimizer.named_master(), **buffers}
        kept = {f"weights.{name}": tensor for name, tensor in weights.items()}
        return kept | {
            f"moments.{name}": tensor for name, tensor in self.optimizer.moments().items()
        }

    def restored(self, step: int) -> None:
        self.optimizer.restored(step)

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        kept, self.section = self.section, section
        losses = []
        with torch.no_grad():
            for network in self.networks:
                network.eval()
            for batch in batches:
                loss = (
                    self._passed_on(batch) if self.pipeline else self._loss(self.networks[0], batch)
                )
                dist.all_reduce(loss)
                losses.append(float(loss) / self.mesh.tp)
            for network in self.networks:
                network.train()
        self.section, self._loads = kept, None
        return sum(losses) / len(losses)


def slices(tokens: int, ranks: int, rank: int) -> np.ndarray:
    """Places in a row that a context-parallel rank holds: the rank-th slice of 2 x ranks and the rank-th from the end."""
    each = tokens // (2 * ranks)
    first, last = rank * each, tokens - (rank + 1) * each
    places = np.concatenate((np.arange(first, first + each), np.arange(last, last + each)))
    return places if ranks > 1 else np.arange(tokens)
