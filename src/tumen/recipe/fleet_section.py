"""Section `fleet`: the accelerators, the engine that starts processes, and what its site needs."""

from __future__ import annotations

from pydantic import Field, model_validator

from tumen.core import units
from tumen.core.errors import InputError
from tumen.core.shape import Frozen, Positive
from tumen.recipe.field_types import SiteWord


class Slurm(Frozen):
    """What a Slurm site needs in a job script. Fields that are not set are left out of it."""

    # The names are those of sbatch's options.
    account: SiteWord | None = None
    partition: SiteWord | None = None
    qos: SiteWord | None = None
    reservation: SiteWord | None = None
    constraint: SiteWord | None = Field(
        None, description="features a node must have, such as h100&ib"
    )
    gres: SiteWord | None = Field(
        None,
        description="the site's name of an accelerator, such as gpu:h100; default: only "
        "--gpus-per-node is set",
    )
    setup: tuple[str, ...] = Field(
        (), description='lines of shell before the ranks start, such as "module load cuda/12.8"'
    )


class Kubernetes(Frozen):
    """What a Kubernetes cluster needs in a manifest."""

    image: SiteWord | None = Field(
        None, description="container image with tumen[train] in it; must be set to launch"
    )
    namespace: SiteWord | None = Field(None, description="default: the one of the kubeconfig")
    queue: SiteWord | None = Field(
        None, description="Kueue's LocalQueue, which admits all nodes of a job together or none"
    )
    priority: SiteWord | None = Field(None, description="Kueue's WorkloadPriorityClass")
    volumes: dict[SiteWord, SiteWord] = Field(
        {}, description='folder to PersistentVolumeClaim, such as { "/runs" = "runs" }'
    )
    resource: SiteWord = Field("nvidia.com/gpu", description="the cluster's name of an accelerator")
    shared_memory: SiteWord = Field(
        "16Gi", description="size of /dev/shm on a node, which ranks share"
    )
    service_account: SiteWord | None = None
    restarts: int = Field(3, ge=0, description="how often JobSet restarts all nodes of the job")


class Fleet(Frozen):
    """The accelerators that a team has, and the engine that starts processes on them."""

    accelerators: str = Field(
        "cpu:1", description="name:count, such as h800:10000; several with commas"
    )
    engine: str = Field(
        "local", description="local, slurm, kubernetes or your own 'package.module:Class'"
    )
    accelerators_per_node: Positive | None = Field(
        None,
        description="accelerators, and so ranks, of a node; default: from its entry in cards.toml",
    )
    avoid: tuple[SiteWord, ...] = Field((), description="nodes to leave out")
    limit: str | None = Field(
        None, description="time limit of a job, such as 36h; default: the engine's"
    )
    grace: str = Field(
        "5min", description="before the limit: ranks are told to stop, and the job is queued again"
    )
    environment: dict[SiteWord, str] = Field(
        {}, description='variables of every rank, such as { NCCL_SOCKET_IFNAME = "ib" }'
    )
    python: SiteWord | None = Field(
        None, description="interpreter on the nodes; default: this one (kubernetes: python3)"
    )
    # Only the section of the chosen engine is read.
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _durations(self) -> Fleet:
        # Durations stay texts in the recipe, as people read them; here they are only checked.
        for name in ("limit", "grace"):
            try:
                units.seconds(getattr(self, name) or 0)
            except InputError as error:
                raise ValueError(f"{name}: {error}") from None
        return self
