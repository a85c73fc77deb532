"""The training loop, as in the algorithm box of a paper, with exact resume.

Run under torchrun's variables, one process or many; sets no engine up. What is written for a step depends on the step alone,
so a killed run that goes on ends in the same bits as one that was never killed.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tumen.core.errors import TrainError
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.data import Loader, read_shards
from tumen.heartbeat import sender
from tumen.recipe import Train, refuse_mesh
from tumen.train.checkpoints.checkpoint import Checkpoints, State, whole, write_final
from tumen.train.checkpoints.replicas import Copies
from tumen.train.losses import Extra
from tumen.train.metrics import Clock, Spikes, epochs, guard
from tumen.train.optimizer import Seen, put, rate_at
from tumen.train.single_process import Alone, Learner
from tumen.train.weights.lora import Adapter, adapted, write_adapter
from tumen.train.world import Team, join, name_of, peers, type_of


@peers()
def fit(
    section: Train,
    shape: Shape,
    dataset: Path,
    out: Path,
    *,
    seed: int = 0,
    inputs: str = "",
    made_from: list[str] | None = None,
    events: Events | None = None,
    distil: tuple[float, Extra] | None = None,
    start: Mapping[str, Tensor] | None = None,
    adapter: Adapter | None = None,
    seen: Seen | None = None,
) -> None:
    """Train `shape` on a dataset artifact and write the checkpoint artifact `out`.

    On SIGTERM it ends after the step at hand, with a checkpoint and the event `stopped` instead of the artifact.

    Args:
        section: steps, rows, rates, mesh.
        shape: with its vocabulary.
        dataset: folder with the shards `train` and `validation`.
        out: artifact folder; working checkpoints stand in `.<name>.work` beside it until it is done.
        seed: of weights and order.
        inputs: what the artifact is made for, see core.artifact.
        distil: weight of a teacher and its loss; the rest is on the data.
        start: weights to start from instead of fresh ones.
        adapter: learn that adapter beside the weights of `start`, which stay as they are.
        seen: what the network computes with, made from the fp32 weights after every step; for one process.

    Raises:
        PlanError: the mesh does not divide the network or the step.
        TrainError: the loss is not a number or leaps, ranks are missing, or the weights to start from have another shape or
            hold what is no number.
        ArtifactError: shards are missing or damaged.
        DiskError: no room; the last checkpoint is intact.
    """
    team, heartbeat = join(section.mesh.ranks), sender.current()
    heartbeat.begin_phase("load")
    events = (events if team.rank == 0 else None) or Events(None)
    with team.stop.by_signal():
        prepare_torch(section)
        shards = read_shards(dataset / "train")
        check_vocab(int(np.max(shards.tokens)), shape)
        check_finite(start or {})
        learner = learner_of(
            section, shape, team, seed, distil, seen, (adapter, start or {}) if adapter else None
        )
        loader = Loader(
            shards, section.batch_size, section.seq_len, seed, learner.data_rank, learner.data_ranks
        )
        work = out.with_name(f".{out.name}.work")
        checkpoints = Checkpoints(
            work, team, inputs, section.keep, events, section.async_checkpoint
        )
        copies = Copies(team, inputs, events)
        step = first = _go_on(
            checkpoints, copies, learner, loader, events, None if adapter else start
        )
        heartbeat.begin_phase("train")
        clock, spikes = Clock(events, section, shape, team, step, out.name), Spikes(section)
        while step < section.steps:
            batch = next(loader)
            loss = learner.learn(batch)
            norm = learner.step(rate_at(section, step))
            guard(loss, norm, step, batch)
            spikes.guard(loss, step, batch)
            step += 1
            heartbeat.finish_step(step, loss)
            clock.tick(step, loss, norm, learner, loader, batch)
            checkpoints.look()
            if step < section.steps:
                copies.look(step, learner, loader)
            stops = team.stops() and step < section.steps
            if stops or (step % section.checkpoint_every == 0 and step < section.steps):
                heartbeat.begin_phase("save")
                checkpoints.save(learner, State(step, loader.state()))
                clock.pause("checkpoint", step=step)
                heartbeat.begin_phase("train")
            if stops:
                checkpoints.finish()
                events.emit("stopped", tier=out.name, step=step)
                return
        heartbeat.begin_phase("end")
        if team.world > 1 and step > first:  # what is spread over ranks is put together from disk
            checkpoints.save(learner, State(step, loader.state()))
        checkpoints.finish()
        validation = validate(learner, dataset, section, seed)
        facts = clock.facts() | {
            "validation_loss": round(validation, 6),
            "epochs": round(epochs(loader), 2),
        }
        facts |= {
            "ranks": team.world,
            "seen": loader.seen,
            "computed_in": name_of(type_of(section, team.device)),
        }
        with team.first() as mine:
            if mine:
                events.emit("validation", tier=out.name, step=step, loss=validation)
                learnt = whole(learner, team, work / f"step-{step:06d}")
                if adapter:
                    write_adapter(out, learnt, shape, adapter, inputs, made_from or [], facts)
                else:
                    write_final(out, learnt, shape, inputs, made_from or [], facts)
                shutil.rmtree(work, ignore_errors=True)


def learner_of(
    section: Train,
    shape: Shape,
    team: Team,
    seed: int,
    distil: tuple[float, Extra] | None = None,
    seen: Seen | None = None,
    adapting: tuple[Adapter, Mapping[str, Tensor]] | None = None,
) -> Learner:
    """The learner a mesh asks for: one process alone, or this rank of many.

    Raises:
        PlanError: the mesh does not divide the network or the step.
        TrainError: an adapter over many ranks, or what else is not built.
    """
    refuse_mesh(section.mesh, shape, section.batch_size, section.seq_len, team.world)
    if (
        section.expert_kernel == "grouped"
        and section.compile
        and type_of(section, team.device) == torch.float32
    ):
        raise TrainError(
            "expert_kernel 'grouped' compiles in bf16 alone, and this is fp32: set compile = false, or 'padded'"
        )
    if adapting and section.mesh.ranks > 1:
        raise TrainError(
            "an adapter learns in one process: leave train.mesh out, or set start.tune to 'full'"
        )
    if adapting:
        adapter, base = adapting
        network = adapted(shape, base, adapter.start, type_of(section, team.device), seed)
        return Alone(section, shape, team, seed, distil, network=network)
    if section.mesh.ranks == 1:
        return Alone(section, shape, team, seed, distil, seen)
    if seen:
        raise TrainError(
            f"training on a grid is built for one process, the mesh has {section.mesh.ranks}; set train.mesh to 1"
        )
    if distil and section.mesh.pp > 1:
        raise TrainError("distillation over a pipeline is not built; use dp, ep, cp and tp")
    from tumen.train.parallel.parallel import (
        Together,
    )  # a second of imports that one process does without

    return Together(section, shape, team, seed, distil)


def prepare_torch(section: Train) -> None:
    """Threads and determinism. One environment variable matters before torch is loaded: the engine sets it (cluster/engines/local.py)."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # ranks that share this machine's cores
    torch.set_num_threads(section.threads or max(1, len(os.sched_getaffinity(0)) // here))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # we read nothing that was not written; filling costs a fifth


def warm() -> None:
    """Load what a training needs, so that its start need not; for a process that stands by."""
    import tumen.train.parallel.parallel  # noqa: F401


def check_vocab(largest: int, shape: Shape) -> None:
    """Refuse shards whose tokens the network does not have.

    Raises:
        TrainError: says the largest token and the vocabulary.
    """
    if largest >= shape.vocab_size:
        raise TrainError(
            f"the shards hold token {largest}, the network's vocabulary ends at {shape.vocab_size - 1}; encode them again"
        )


def _go_on(
    checkpoints: Checkpoints,
    copies: Copies,
    learner: Learner,
    loader: Loader,
    events: Events,
    start: Mapping[str, Tensor] | None,
) -> int:
    """Restore the newest whole checkpoint, or a newer copy in memory; returns the steps that are done."""
    held = copies.meet()
    state = checkpoints.restore(learner, least=held)
    copied = copies.restore(learner) if state is None and held else None
    state = state or copied or (checkpoints.restore(learner) if held else None)
    if state is None and start is not None:
        _start_from(learner, start)
    if state is not None:
        loader.restore(state.loader)
        events.emit("resumed", step=state.step, source="memory" if copied else "checkpoint")
    step = state.step if state else 0
    copies.begin(step, restored=copied is not None)
    return step


def check_finite(start: Mapping[str, Tensor]) -> None:
    """Refuse weights to start from that hold what is no number; every rank looks at all of them, so that all refuse.

    Raises:
        TrainError: says where.
    """
    for name, given in start.items():
        wrong = int((~torch.isfinite(given)).sum())
        if wrong:
            raise TrainError(
                f"the weights to start from hold {wrong} NaN or infinite numbers in {name}; take another checkpoint"
            )


@torch.no_grad()
def _start_from(learner: Learner, start: Mapping[str, Tensor]) -> None:
    """Fill a fresh learner with given weights, each rank its part."""
    for name, tensor in learner.tensors().items():
        kind, _, ours = name.partition(".")
        if kind != "weights":
            continue
        if ours not in start or start[ours].shape != tensor.shape:
            raise TrainError(
                f"the weights to start from have no {ours} of shape {tuple(tensor.shape)}; another architecture?"
            )
        put(tensor, start[ours])
    learner.restored(0)


def validate(learner: Learner, dataset: Path, section: Train, seed: int) -> float:
    """Mean cross-entropy in nats per action token over one pass of the validation shards."""
    shards = read_shards(dataset / "validation")
    loader = Loader(
        shards, section.batch_size, section.seq_len, seed, learner.data_rank, learner.data_ranks
    )
    batches = [next(loader) for _ in range(math.ceil(loader.rows_per_epoch() / section.batch_size))]
    return learner.evaluate(batches, section.model_copy(update={"sentence_weight": 0.0}))
