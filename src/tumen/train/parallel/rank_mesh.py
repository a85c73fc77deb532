"""The ranks as a grid: which part of the network and of the batch this rank holds.

Ranks lie as pp x replicate x shard x cp x ep x tp, the last ones next to each other in a node.
"""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from tumen.recipe import Mesh
from tumen.train.world import World


class RankMesh:
    """Process groups of a mesh.

    Attributes:
        all: by every dimension.
        dense: as weights are sharded, over replicate x (shard x cp x ep).
        sparse: as experts are sharded, over replicate x (shard x cp); each `ep` rank has its own
            experts.
        place: this rank's coordinate in each dimension of `all`.
    """

    def __init__(self, mesh: Mesh, world: World) -> None:
        """Make the process groups; every rank must call this at the same time."""
        kind = world.device.type
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
        self.dense = init_device_mesh(
            kind,
            (mesh.pp, mesh.replicate, spread * mesh.ep, mesh.tp),
            mesh_dim_names=("pp", "replicate", "spread", "tp"),
        )
        self.sparse = init_device_mesh(
            kind,
            (mesh.pp, mesh.replicate, spread, mesh.ep, mesh.tp),
            mesh_dim_names=("pp", "replicate", "spread", "ep", "tp"),
        )
        self.place = dict(zip(sizes, self.all.get_coordinate() or (), strict=True))

    def group(self, name: str) -> dist.ProcessGroup:
        """Return the ranks that differ from this one in one dimension alone."""
        return self.all[name].get_group()

    def data_rank(self) -> int:
        """Return which of the dp ranks this one is."""
        replica = self.place["replicate"] * self.mesh.shard + self.place["shard"]
        return replica * self.mesh.ep + self.place["ep"]
