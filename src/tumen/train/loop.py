"""The training loop with exact resume.

It runs under torchrun's variables, in one process or many. What is written for a step depends on
the step alone, so a killed run that resumes ends in the same bits as one that was never killed.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tumen.core.errors import TrainError
from tumen.core.events import Events
from tumen.core.shape import EncoderShape, Shape
from tumen.data import Loader, Shards, read_shards
from tumen.heartbeat import sender
from tumen.recipe import Train
from tumen.train.checkpoints.checkpoint import Checkpoints, State, whole, write_final
from tumen.train.checkpoints.replicas import Replicas
from tumen.train.encoder_task import EncoderTask
from tumen.train.losses import Extra
from tumen.train.metrics import Clock, Spikes, epochs, guard
from tumen.train.optimizer import ForwardWeights, put, rate_at
from tumen.train.parallel.pipeline_parallel import load_schedules
from tumen.train.parallel.trainer import DistributedTrainer
from tumen.train.single_process import SingleProcessTrainer, Trainer
from tumen.train.weights.lora import Adapter, adapted, write_adapter
from tumen.train.world import World, join, name_of, peers, type_of


@dataclass(frozen=True)
class Method:
    """How a tier learns, beyond the loss on its data.

    Attributes:
        distil: weight of a teacher and its loss; the rest of the weight is on the data.
        start: weights to start from instead of fresh ones.
        adapter: train this adapter beside the weights of `start`, which stay as they are.
        forward_weights: what the network computes with, made from the fp32 weights after every
            step (QAT); for one process.
        encoder: what an encoder learns instead of the next token.
    """

    distil: tuple[float, Extra] | None = None
    start: Mapping[str, Tensor] | None = None
    adapter: Adapter | None = None
    forward_weights: ForwardWeights | None = None
    encoder: EncoderTask | None = None

    def shards(self, dataset: Path, split: str) -> Shards:
        """Return what is read of a split."""
        if self.encoder:
            return self.encoder.shards(split)
        return read_shards(dataset / split)


@dataclass(frozen=True)
class Making:
    """What an artifact is made from and for, and where its making is logged.

    Attributes:
        seed: of weights and order.
        inputs: what the artifact is made for, see core.artifact.
        made_from: digests of the artifact's inputs.
        events: where rank 0 logs.
    """

    seed: int = 0
    inputs: str = ""
    made_from: Sequence[str] = ()
    events: Events | None = None


@peers()
def fit(
    section: Train,
    shape: Shape | EncoderShape,
    dataset: Path,
    out: Path,
    *,
    making: Making = Making(),
    method: Method = Method(),
) -> None:
    """Train `shape` on a dataset artifact and write the checkpoint artifact `out`.

    On SIGTERM it finishes the step, writes a checkpoint and emits the event `stopped` instead of
    writing the artifact.

    Args:
        section: steps, batch size, learning rate, mesh.
        shape: with its vocabulary.
        dataset: folder with the shards `train` and `validation`.
        out: artifact folder. Working checkpoints are in `.<name>.work` beside it until then.
        making: seed, inputs, parents and events.
        method: teacher, initial weights, adapter, quantization.

    Raises:
        PlanError: the mesh does not divide the network or the step.
        TrainError: the loss is NaN, infinite or spikes; ranks are missing; or the initial weights
            have another shape or contain NaN or Inf.
        ArtifactError: shards are missing or damaged.
        DiskError: the disk is full; the last checkpoint is intact.
    """
    world = join(section.mesh.ranks)
    heartbeat = sender.current()
    heartbeat.begin_phase("load")
    seed = making.seed
    inputs = making.inputs
    events = making.events if world.rank == 0 else None
    with world.stop.by_signal():
        prepare_torch(section)
        shards = method.shards(dataset, "train")
        check_vocab(int(np.max(shards.tokens)), shape)
        check_finite(method.start or {})
        trainer = trainer_of(section, shape, world, seed, method)
        run = _Run(section, shape, out, world, trainer, events or Events(None))
        run.load(shards, seed, inputs, None if method.adapter else method.start)
        if not run.train():
            return
        heartbeat.begin_phase("end")
        run.finish_checkpoints()
        validation = method.shards(dataset, "validation")
        facts = run.facts(validate(trainer, validation, section, seed))
        with world.rank_zero() as mine:
            if mine:
                run.write(method.adapter, inputs, list(making.made_from), facts)


class _Run:
    """The state of one training: loader, checkpoints, step."""

    def __init__(
        self,
        section: Train,
        shape: Shape | EncoderShape,
        out: Path,
        world: World,
        trainer: Trainer,
        events: Events,
    ) -> None:
        self.section = section
        self.shape = shape
        self.out = out
        self.work = out.with_name(f".{out.name}.work")
        self.world = world
        self.trainer = trainer
        self.events = events
        self.heartbeat = sender.current()
        self.first_step = 0
        self.step = 0

    def load(
        self, shards: Shards, seed: int, inputs: str, start: Mapping[str, Tensor] | None
    ) -> None:
        """Open the data and restore the newest state, from disk or from memory."""
        section = self.section
        rank = self.trainer.data_rank
        ranks = self.trainer.data_ranks
        self.loader = Loader(shards, section.batch_size, section.seq_len, seed, rank, ranks)
        self.checkpoints = Checkpoints(
            self.work, self.world, inputs, section.keep, self.events, section.async_checkpoint
        )
        self.replicas = Replicas(self.world, inputs, self.events)
        self.first_step = _restore(
            self.checkpoints, self.replicas, self.trainer, self.loader, self.events, start
        )
        self.step = self.first_step

    def train(self) -> bool:
        """Run the steps that are left; return False if a request to stop ended the run early."""
        section = self.section
        trainer = self.trainer
        clock = Clock(self.events, section, self.shape, self.world, self.step, self.out.name)
        self.clock = clock
        spikes = Spikes(section)
        self.heartbeat.begin_phase("train")
        while self.step < section.steps:
            batch = next(self.loader)
            loss = trainer.learn(batch)
            norm = trainer.step(rate_at(section, self.step))
            # A bad loss must stop the run before its state reaches a checkpoint.
            guard(loss, norm, self.step, batch)
            spikes.guard(loss, self.step, batch)
            self.step += 1
            self.heartbeat.finish_step(self.step, loss)
            clock.tick(self.step, loss, norm, trainer, self.loader, batch)
            self.checkpoints.look()
            if self.step == section.steps:
                break
            self.replicas.look(self.step, trainer, self.loader)
            stop = self.world.should_stop()
            if stop or self.step % section.checkpoint_every == 0:
                self._save(clock)
            if stop:
                self._stop()
                return False
        return True

    def _stop(self) -> None:
        self.checkpoints.finish()
        self.events.emit("stopped", tier=self.out.name, step=self.step)

    def _save(self, clock: Clock) -> None:
        self.heartbeat.begin_phase("save")
        self.checkpoints.save(self.trainer, State(self.step, self.loader.state()))
        clock.pause("checkpoint", step=self.step)
        self.heartbeat.begin_phase("train")

    def finish_checkpoints(self) -> None:
        """Write what is spread over ranks to disk, where rank 0 puts it together."""
        if self.world.size > 1 and self.step > self.first_step:
            self.checkpoints.save(self.trainer, State(self.step, self.loader.state()))
        self.checkpoints.finish()

    def facts(self, validation: float) -> dict[str, Any]:
        """Return what the artifact's manifest records."""
        self.validation = validation
        return self.clock.facts() | {
            "validation_loss": round(validation, 6),
            "epochs": round(epochs(self.loader), 2),
            "ranks": self.world.size,
            "seen": self.loader.seen,
            "computed_in": name_of(type_of(self.section, self.world.device)),
        }

    def write(
        self, adapter: Adapter | None, inputs: str, made_from: list[str], facts: dict[str, Any]
    ) -> None:
        """Write the artifact and remove the working checkpoints; for rank 0."""
        self.events.emit("validation", tier=self.out.name, step=self.step, loss=self.validation)
        weights = whole(self.trainer, self.world, self.work / f"step-{self.step:06d}")
        if adapter and isinstance(self.shape, Shape):
            write_adapter(
                self.out, weights, self.shape, adapter, inputs, made_from=made_from, facts=facts
            )
        else:
            write_final(self.out, weights, self.shape, inputs, made_from, facts)
        shutil.rmtree(self.work, ignore_errors=True)


def trainer_of(
    section: Train, shape: Shape | EncoderShape, world: World, seed: int, method: Method = Method()
) -> Trainer:
    """Return the trainer that a mesh asks for: one process, or this rank of many.

    Raises:
        PlanError: the mesh does not divide the network or the step.
        TrainError: an adapter over many ranks, or another combination that is not built.
    """
    if method.encoder:
        return method.encoder.trainer(section, world, seed)
    if isinstance(shape, EncoderShape):
        raise TrainError("an encoder learns labels, which this command does not make")
    section.mesh.check_split(shape, section.batch_size, section.seq_len, world.size)
    in_fp32 = type_of(section, world.device) == torch.float32
    if section.expert_kernel == "grouped" and section.compile and in_fp32:
        raise TrainError(
            "expert_kernel 'grouped' compiles in bf16 only, and this run is fp32: "
            "set compile = false, or expert_kernel = 'padded'"
        )
    if section.mesh.ranks > 1:
        _refuse_distributed(section, method)
        return DistributedTrainer(section, shape, world, seed, method.distil)
    network = None
    if method.adapter:
        compute_type = type_of(section, world.device)
        network = adapted(shape, method.start or {}, method.adapter.start, compute_type, seed)
    return SingleProcessTrainer(
        section,
        shape,
        world,
        seed,
        method.distil,
        forward_weights=None if network else method.forward_weights,
        network=network,
    )


def _refuse_distributed(section: Train, method: Method) -> None:
    """Refuse what is not built for many ranks."""
    if method.adapter:
        raise TrainError(
            "an adapter trains in one process: remove train.mesh, or set init_from.tune to 'full'"
        )
    if method.forward_weights:
        raise TrainError(
            "quantization-aware training is built for one process, the mesh has "
            f"{section.mesh.ranks}; set train.mesh to 1"
        )
    if method.distil and section.mesh.pp > 1:
        raise TrainError("distillation over a pipeline is not built; use dp, ep, cp and tp")


def prepare_torch(section: Train) -> None:
    """Set threads and determinism.

    One environment variable must be set before torch is loaded; the engine sets it
    (cluster/engines/local.py).
    """
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # they share this machine's cores
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(section.threads or max(1, cores // local_ranks))
    torch.use_deterministic_algorithms(True)
    # nothing reads memory that was not written, and filling it costs a fifth of the time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def warm() -> None:
    """Import ahead what a pipelined training imports late; for a process that stands by."""
    load_schedules()


def check_vocab(largest: int, shape: Shape | EncoderShape) -> None:
    """Refuse shards whose tokens the network does not have.

    Raises:
        TrainError: says the largest token and the vocabulary.
    """
    if largest >= shape.vocab_size:
        raise TrainError(
            f"the shards hold token {largest}, the network's vocabulary ends at "
            f"{shape.vocab_size - 1}; encode them again"
        )


def _restore(
    checkpoints: Checkpoints,
    replicas: Replicas,
    trainer: Trainer,
    loader: Loader,
    events: Events,
    start: Mapping[str, Tensor] | None,
) -> int:
    """Restore the newest checkpoint, or a newer replica in memory; return the finished steps."""
    held = replicas.meet()  # the step of the newest replica that all ranks can have
    state = checkpoints.restore(trainer, least=held)
    replica = None
    if state is None and held:
        replica = replicas.restore(trainer)
        # a replica that cannot be read leaves the older checkpoint
        state = replica or checkpoints.restore(trainer)
    if state is None and start is not None:
        _start_from(trainer, start)
    if state is not None:
        loader.restore(state.loader)
        source = "memory" if replica else "checkpoint"
        events.emit("resumed", step=state.step, source=source)
    step = state.step if state else 0
    replicas.begin(step, restored=replica is not None)
    return step


def check_finite(start: Mapping[str, Tensor]) -> None:
    """Refuse initial weights that contain NaN or Inf.

    Every rank checks all of them, so that all ranks refuse.

    Raises:
        TrainError: names the first such weight.
    """
    for name, given in start.items():
        wrong = int((~torch.isfinite(given)).sum())
        if wrong:
            raise TrainError(
                f"the weights to start from hold {wrong} NaN or infinite numbers in {name}; "
                "take another checkpoint"
            )


@torch.no_grad()
def _start_from(trainer: Trainer, start: Mapping[str, Tensor]) -> None:
    """Fill a fresh trainer with given weights, each rank its part."""
    for name, tensor in trainer.tensors().items():
        kind, _, ours = name.partition(".")
        if kind != "weights":
            continue
        if ours not in start or start[ours].shape != tensor.shape:
            raise TrainError(
                f"the weights to start from have no {ours} of shape {tuple(tensor.shape)}; "
                "another architecture?"
            )
        put(tensor, start[ours])
    trainer.restored(0)


def validate(trainer: Trainer, shards: Shards, section: Train, seed: int) -> float:
    """Mean cross-entropy over one pass of the validation shards.

    In nats a token of an action; of an encoder, a sentence.
    """
    rank = trainer.data_rank
    ranks = trainer.data_ranks
    loader = Loader(shards, section.batch_size, section.seq_len, seed, rank, ranks)
    count = math.ceil(loader.rows_per_epoch() / section.batch_size)
    batches = [next(loader) for _ in range(count)]
    return trainer.evaluate(batches, section.model_copy(update={"sentence_weight": 0.0}))
