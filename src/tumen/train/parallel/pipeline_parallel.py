"""Pipeline parallel: layers split over ranks, run by torch's schedules.

A stage is the same `Transformer` with fewer layers.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tumen.model import Transformer
from tumen.recipe import Mesh, Train
from tumen.train.single_process import added

# Classes of torch.distributed.pipelining.schedules by the recipe's word.
SCHEDULES = {
    "1f1b": "Schedule1F1B",
    "interleaved": "ScheduleInterleaved1F1B",
    "zero-bubble": "ScheduleInterleavedZeroBubble",
    "dualpipe": "ScheduleDualPipeV",
}


def load_schedules() -> ModuleType:
    """Import torch's pipeline schedules.

    They import torch's compiler, which takes a second; a training without a pipeline does not need
    them.
    """
    return importlib.import_module("torch.distributed.pipelining.schedules")


class StageModule(nn.Module):
    """A pipeline stage: states and balance loss in, the same out; the last one returns the loss.

    Attributes:
        loads: expert loads of the step so far, (mixtures, E + 1), or None.
    """

    def __init__(self, network: Transformer, section: Train) -> None:
        """Wrap the layers of one stage."""
        super().__init__()
        self.network = network
        self.section = section
        self.loads: Tensor | None = None

    def forward(self, x: Tensor, balance: Tensor, **inputs: Tensor) -> Any:
        """Run the stage on one micro-batch.

        Args:
            x: tokens (b, T) in the first stage, states (b, T, D) later.
            balance: balance loss so far, (1,).
            inputs: see `DistributedTrainer.pipeline_inputs`.
        """
        safe = inputs["safe"] if self.network.shape.experts else None
        out = self.network(x, inputs["positions"], inputs["mask"], real=inputs["real"], safe=safe)
        if self.training and torch.is_grad_enabled():
            self.loads = added(self.loads, self.network)
        balance = balance + out.balance * inputs["share"].sum()
        if self.network.norm is None:  # not the last stage
            return out.states, balance
        loss = self._token_loss(out.states, inputs["weights"], inputs["targets"])
        if self.network.training:
            return loss + balance.sum()
        return loss

    def _token_loss(self, states: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted cross-entropy; states (b, T, D), weights and targets (b, T)."""
        places = weights.flatten().nonzero().squeeze(1)  # the head runs only where a weight is
        logits = self.network.head(states.flatten(0, 1)[places]).float()
        losses = nn.functional.cross_entropy(logits, targets.flatten()[places], reduction="none")
        return (losses * weights.flatten()[places]).sum()


def stage_rank(mesh: Mesh, stage: int) -> int:
    """Return the pipeline rank that holds a stage."""
    if mesh.schedule == "dualpipe":  # the two arms of a V lie on one rank
        return min(stage, mesh.stages - 1 - stage) % mesh.pp
    return stage % mesh.pp


def stages_of(mesh: Mesh, rank: int) -> list[int]:
    """Return the stages of a pipeline rank."""
    return [stage for stage in range(mesh.stages) if stage_rank(mesh, stage) == rank]


def stage_layers(layers: int, stages: int, stage: int) -> tuple[int, int]:
    """Return the first layer of a stage and the one after its last.

    Where layers do not divide evenly, the first stages have one more.
    """
    each, rest = divmod(layers, stages)
    first = stage * each + min(stage, rest)
    after = (stage + 1) * each + min(stage + 1, rest)
    return first, after


def schedule_of(
    mesh: Mesh,
    modules: Sequence[nn.Module],
    stages: Sequence[int],
    group: dist.ProcessGroup,
    device: torch.device,
    micro_batches: int,
) -> Any:
    """Return torch's schedule over this rank's stages."""
    schedules = load_schedules()
    stage_class = importlib.import_module("torch.distributed.pipelining").PipelineStage
    built = [
        stage_class(module, stage, mesh.stages, device, group=group)
        for module, stage in zip(modules, stages, strict=True)
    ]
    schedule = getattr(schedules, SCHEDULES[mesh.schedule])
    return schedule(
        built if mesh.virtual_stages > 1 else built[0],
        micro_batches,
        loss_fn=lambda loss, _: loss,  # the last stage returns the loss itself
        scale_grads=False,
    )
