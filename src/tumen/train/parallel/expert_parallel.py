"""Expert parallel: each rank holds some experts, and tokens travel to them by all-to-all.

Queues are padded to one size, so every exchange has the same known shape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp._fully_shard._fsdp_common import (
    FSDPMeshInfo,
    HSDPMeshInfo,
    ShardPlacementResult,
)
from torch.distributed.tensor import Shard

from tumen.model import Block, MixtureOfExperts, TokenDispatcher
from tumen.train.parallel.collectives import AllToAll
from tumen.train.parallel.rank_mesh import RankMesh
from tumen.train.parallel.tensor_parallel import shard_weight

EXPERT_WEIGHTS = ("gate", "up", "down")


class AllToAllDispatcher(TokenDispatcher):
    """Sends queues of tokens between the ranks that share the experts."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        """Use the expert-parallel ranks of `group`."""
        self.group = group
        self.ranks = group.size()

    def dispatch(self, queue: Tensor) -> Tensor:
        """Send queues of all experts to the experts' ranks.

        (E, room, D) -> (E / ranks, ranks * room, D).
        """
        parts = queue.unflatten(0, (self.ranks, -1))  # (ranks, E / ranks, room, D)
        received = AllToAll.apply(parts, self.group)
        return received.transpose(0, 1).flatten(1, 2)

    def combine(self, queue: Tensor) -> Tensor:
        """Send results back to the ranks of their tokens.

        (E / ranks, ranks * room, D) -> (E, room, D).
        """
        parts = queue.unflatten(1, (self.ranks, -1)).transpose(0, 1)  # (ranks, E / ranks, room, D)
        received = AllToAll.apply(parts, self.group)
        return received.flatten(0, 1)

    def longest_queue(self, rows: int) -> int:
        """Return the largest number of rows that any rank queues for one expert."""
        most = torch.tensor(rows)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self.group)
        return int(most)


def split_experts(block: Block, ranks: RankMesh) -> None:
    """Keep this rank's experts of a block and send tokens to the others'."""
    if not isinstance(block.feed, MixtureOfExperts):
        return
    block.feed.dispatcher = AllToAllDispatcher(ranks.group("ep"))
    for name in EXPERT_WEIGHTS:
        shard_weight(block.feed, name, ranks.sparse["ep"], 0)


def expert_placement(
    block: Block, ranks: RankMesh
) -> Callable[[nn.Parameter], ShardPlacementResult | None]:
    """Return where FSDP shards a block's weights: experts over the sparse mesh, others as usual."""
    experts: set[int] = set()
    if isinstance(block.feed, MixtureOfExperts):
        experts = {id(getattr(block.feed, name)) for name in EXPERT_WEIGHTS}
    info: FSDPMeshInfo
    if ranks.mesh.replicate > 1:
        mesh = ranks.sparse["replicate", "spread"]
        info = HSDPMeshInfo(mesh, shard_mesh_dim=1, replicate_mesh_dim=0)
    else:
        info = FSDPMeshInfo(ranks.sparse["spread"], shard_mesh_dim=0)

    def place(weight: nn.Parameter) -> ShardPlacementResult | None:
        if id(weight) in experts:
            return ShardPlacementResult(Shard(0), info)
        return None

    return place
