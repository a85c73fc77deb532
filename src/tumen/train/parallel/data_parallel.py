"""Data parallel: FSDP2 or HSDP around every block, and the whole network split over a mesh.

Weights are sharded in fp32 and gathered in the compute type. Losses are divided by what the whole
step holds before the backward pass, so gradients are summed, never averaged.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from tumen.model import Transformer, fresh
from tumen.recipe import Train
from tumen.train.optimizer import put
from tumen.train.parallel.context_parallel import join_sequences
from tumen.train.parallel.expert_parallel import expert_placement, split_experts
from tumen.train.parallel.rank_mesh import RankMesh
from tumen.train.parallel.tensor_parallel import split_features
from tumen.train.single_process import prepared
from tumen.train.world import type_of


def split_network(network: Transformer, root: nn.Module, ranks: RankMesh, section: Train) -> None:
    """Split a network that is still on the meta device over a mesh.

    Args:
        network: its blocks are changed in place.
        root: the network, or the pipeline stage around it; FSDP gathers and reduces by what runs.
        ranks: the mesh.
        section: expert kernel, recomputation and precision.
    """
    mesh = section.mesh
    if mesh.cp > 1:
        join_sequences(network, ranks.group("cp"))
    for block in network.every_block():
        if mesh.tp > 1:
            split_features(block, ranks)
        if mesh.ep > 1:
            split_experts(block, ranks)
    prepared(network, section)
    _shard(network, root, ranks, section)


def _shard(network: Transformer, root: nn.Module, ranks: RankMesh, section: Train) -> None:
    mesh = section.mesh
    compute_type = type_of(section, torch.device(ranks.all.device_type))
    policy = MixedPrecisionPolicy(param_dtype=compute_type, reduce_dtype=torch.float32)
    dense = ranks.dense["spread"]
    if mesh.replicate > 1:
        dense = ranks.dense["replicate", "spread"]
    # the backward passes of a pipeline need the weights that its forward passes gathered
    gather_again = mesh.zero == 3 and mesh.pp == 1
    for block in network.every_block():
        fully_shard(
            block,
            mesh=dense,
            mp_policy=policy,
            reshard_after_forward=gather_again,
            shard_placement_fn=expert_placement(block, ranks) if mesh.ep > 1 else None,
        )
    fully_shard(root, mesh=dense, mp_policy=policy, reshard_after_forward=False)
    if root is network:
        register_fsdp_forward_method(network, "head")
    for module in sharded_modules(root):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def sharded_modules(root: nn.Module) -> list[FSDPModule]:
    """Return every module whose weights FSDP gathers."""
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def materialize(network: Transformer, device: torch.device, seed: int) -> None:
    """Fill a meta network with fresh weights, one at a time; each rank keeps its part."""
    network.to_empty(device=device)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            put(weight, fresh(network.shape, name, weight.shape, seed))
        for buffer in network.buffers():
            buffer.zero_()
