"""Tensor parallel: heads and inner features split over ranks.

After Megatron-LM (arXiv 1909.08053, section 3). Projections into heads or inner features are split
by columns, the ones that lead back by rows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from tumen.model import Block, FeedForward, MixtureOfExperts
from tumen.train.parallel.collectives import SumBackward, SumForward
from tumen.train.parallel.rank_mesh import RankMesh

COLUMNS = ("q", "k", "v", "q_up", "kv_up")  # of attention; a latent's down projections stay whole


def split_features(block: Block, ranks: RankMesh) -> None:
    """Split a block over the tensor-parallel ranks.

    Experts are split here only where expert parallelism does not split them.
    """
    tp = ranks.dense["tp"]
    feeds = _dense_feeds(block)
    attention: Any = block.attention
    for name in COLUMNS:
        if hasattr(attention, name):
            shard_weight(getattr(attention, name), "weight", tp, 0)
    shard_weight(attention.out, "weight", tp, 1)
    for feed in feeds:
        shard_weight(feed.gate, "weight", tp, 0)
        shard_weight(feed.up, "weight", tp, 0)
        shard_weight(feed.down, "weight", tp, 1)
    split: list[Any] = [attention, *feeds]
    if isinstance(block.feed, MixtureOfExperts) and ranks.mesh.ep == 1:
        # stacked experts: gate and up (E, D, F), down (E, F, D)
        shard_weight(block.feed, "gate", tp, 2)
        shard_weight(block.feed, "up", tp, 2)
        shard_weight(block.feed, "down", tp, 1)
        split.append(block.feed)
    _add_exchanges(split, tp)


def _dense_feeds(block: Block) -> list[FeedForward]:
    """Return the feed-forward networks of a block that every token passes."""
    if isinstance(block.feed, FeedForward):
        return [block.feed]
    shared: Any = block.feed.shared
    return [] if shared is None else [shared]


def _add_exchanges(modules: list[Any], tp: DeviceMesh) -> None:
    """Sum gradients where the modules' input enters and results where it leaves."""
    group = tp.get_group()

    def enter(x: Tensor) -> Tensor:
        return SumBackward.apply(x, group)

    def leave(x: Tensor) -> Tensor:
        return SumForward.apply(x, group)

    for module in modules:
        module.enter = enter
        module.leave = leave


def shard_weight(module: nn.Module, name: str, mesh: DeviceMesh, dim: int) -> None:
    """Replace a weight by this rank's part along `dim`; all parts have the same shape."""
    weight = getattr(module, name)
    part = weight.detach().chunk(mesh.size(), dim)[mesh.get_local_rank()].contiguous()
    sharded = DTensor.from_local(part, mesh, [Shard(dim)], run_check=False)
    setattr(module, name, nn.Parameter(sharded))
