"""The training loop, as in the algorithm box of a paper, with exact resume.

Run under torchrun's variables; sets no engine up. What is written for a step depends on the step alone, so a killed run that
goes on ends in the same bits as one that was never killed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tumen.core import Events, Shape, TrainError
from tumen.core.recipe import Train
from tumen.data import Batch, Loader, read_shards
from tumen.model import Transformer, build, causal_mask
from tumen.train import checkpoint
from tumen.train.optimizer import FlatOptimizer, rate_at

HEAD_ROWS = 128  # the head's rows are padded to a multiple, so that it has few distinct shapes
LOG_EVERY = 10
Extra = Callable[[Tensor, Tensor], Tensor]  # (logits (A, vocab), sources (A,)) -> loss (A,)


@dataclass(frozen=True)
class Targets:
    """What the head is asked in a batch: rows of the hidden states, their targets, loss weights, and places in the shard."""

    rows: Tensor  # (A,) indices into (B * T)
    tokens: Tensor  # (A,)
    weights: Tensor  # (A,), 0 for padding
    answers: Tensor  # (A,) 1 where the target belongs to an action, which is where a teacher has an opinion
    sources: Tensor  # (A,)


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
) -> None:
    """Train `shape` on a dataset artifact and write the checkpoint artifact `out`.

    Args:
        section: steps, rows, rates.
        shape: with its vocabulary.
        dataset: folder with the shards `train` and `validation`.
        out: artifact folder; working checkpoints stand in `.<name>.work` beside it until it is done.
        seed: of weights and order.
        inputs: what the artifact is made for, see core.artifact.
        distil: weight of a teacher and its loss; the rest is on the data.
        start: weights to start from instead of fresh ones.

    Raises:
        TrainError: the loss is not a number, or the weights to start from have another shape.
        ArtifactError: shards are missing or damaged.
        DiskError: no room; the last checkpoint is intact.
    """
    events = events or Events(None)
    prepare_torch(section)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build(shape, seed).to(device)
    optimizer = FlatOptimizer(network, section, torch.bfloat16 if section.precision == "bf16" else torch.float32)
    loader = Loader(read_shards(dataset / "train"), section.rows, section.row_tokens, seed)
    check_vocab(loader, shape)
    work = out.with_name(f".{out.name}.work")
    step = _go_on(work, inputs, optimizer, loader, events, start)
    if section.compile:
        for block in network.blocks:
            block.compile(dynamic=False)
    clock = Clock(events, section, step, out.name)
    network.train()
    while step < section.steps:
        batch = next(loader)
        loss = loss_of(network, batch, section, device, distil)
        loss.backward()
        norm = optimizer.step(rate_at(section, step))
        guard(float(loss.detach()), norm, step, batch)
        step += 1
        clock.tick(step, float(loss.detach()), norm)
        if step % section.checkpoint_every == 0 and step < section.steps:
            state = checkpoint.State(optimizer.named_master(), optimizer.moments(), step, loader.state())
            checkpoint.save(work, state, inputs, section.keep)
            clock.pause("checkpoint", step=step)
    validation = validate(network, dataset, section, device, seed)
    facts = clock.facts() | {"validation_loss": round(validation, 4), "epochs": round(epochs(loader), 2)}
    events.emit("validation", tier=out.name, step=step, loss=validation)
    checkpoint.write_final(out, optimizer.named_master(), shape, inputs, made_from or [], facts)
    _remove(work)


def prepare_torch(section: Train) -> None:
    """Threads and determinism. One environment variable matters before torch is loaded: the engine sets it (cluster/local.py)."""
    torch.set_num_threads(section.threads or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # we read nothing that was not written; filling costs a fifth


def check_vocab(loader: Loader, shape: Shape) -> None:
    """Refuse shards whose tokens the network does not have.

    Raises:
        TrainError: says the largest token and the vocabulary.
    """
    largest = int(np.max(loader.shards.tokens))
    if largest >= shape.vocab:
        raise TrainError(f"the shards hold token {largest}, the network's vocabulary ends at {shape.vocab - 1}; encode them again")


def _go_on(
    work: Path, inputs: str, optimizer: FlatOptimizer, loader: Loader, events: Events, start: Mapping[str, Tensor] | None
) -> int:
    """Restore the newest whole checkpoint; returns the steps that are done."""
    state = checkpoint.newest(work, inputs, events)
    if state is None:
        if start is not None:
            _start_from(optimizer, start)
        return 0
    optimizer.restore(state.weights, state.moments)
    loader.restore(state.loader)
    events.emit("resumed", step=state.step)
    return state.step


@torch.no_grad()
def _start_from(optimizer: FlatOptimizer, start: Mapping[str, Tensor]) -> None:
    for name, master in optimizer.named_master().items():
        if name not in start or start[name].shape != master.shape:
            raise TrainError(f"the weights to start from have no {name} of shape {tuple(master.shape)}; another architecture?")
        master.copy_(start[name])
    if optimizer.weights is not optimizer.master:
        optimizer.weights.copy_(optimizer.master)


def targets_of(batch: Batch, sentence_weight: float) -> Targets:
    """The positions that are learnt: actions with weight 1, the sentence with `sentence_weight`."""
    targets = batch.targets.reshape(-1)
    answers = batch.answers.reshape(-1).astype(bool)
    rows = np.flatnonzero(answers if sentence_weight == 0 else targets >= 0)
    inside = answers[rows].astype(np.float32)
    weights = np.where(inside, 1.0, sentence_weight).astype(np.float32)
    padding = -len(rows) % HEAD_ROWS
    places, weight, acts = (np.pad(part, (0, padding)) for part in (rows, weights, inside))
    tokens = np.maximum(targets[places], 0)
    sources = np.maximum(batch.sources.reshape(-1)[places], 0)
    return Targets(*(torch.from_numpy(part) for part in (places, tokens, weight, acts, sources)))


def loss_of(
    network: Transformer, batch: Batch, section: Train, device: torch.device, distil: tuple[float, Extra] | None = None
) -> Tensor:
    """Mean weighted cross-entropy over the learnt positions, plus balance losses, mixed with the teacher's if there is one."""
    ids, documents, positions = (torch.from_numpy(part).to(device) for part in (batch.ids, batch.documents, batch.positions))
    targets = targets_of(batch, section.sentence_weight)
    states, balance = network(ids, positions, causal_mask(documents))
    logits = network.head(states.flatten(0, 1)[targets.rows.to(device)]).float()
    loss = F.cross_entropy(logits, targets.tokens.to(device), reduction="none")
    if distil:
        weight, extra = distil
        share = weight * targets.answers.to(device)  # the teacher was asked about actions alone
        loss = (1 - share) * loss + share * extra(logits, targets.sources)
    weights = targets.weights.to(device)
    return (loss * weights).sum() / weights.sum() + balance


@torch.no_grad()
def validate(network: Transformer, dataset: Path, section: Train, device: torch.device, seed: int) -> float:
    """Mean cross-entropy in nats per action token over one pass of the validation shards."""
    network.eval()
    shards = read_shards(dataset / "validation")
    loader = Loader(shards, section.rows, section.row_tokens, seed)
    batches = math.ceil(loader.rows_per_epoch() / section.rows)
    only_actions = section.model_copy(update={"sentence_weight": 0.0})
    with torch.compiler.set_stance("force_eager"):  # a few batches do not pay for another compilation
        losses = [float(loss_of(network, next(loader), only_actions, device)) for _ in range(batches)]
    network.train()
    return sum(losses) / len(losses)


def guard(loss: float, norm: float, step: int, batch: Batch) -> None:
    """Stop at a loss or gradient that is not a number, naming the samples.

    Raises:
        TrainError: with the step and its sample ids.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        names = ", ".join(map(str, batch.samples[:8].tolist()))
        raise TrainError(
            f"step {step}: loss {loss}, gradient norm {norm}; samples {names} ... of the training shard. "
            "Lower train.rate, or look at these samples; the last checkpoint is intact"
        )


def epochs(loader: Loader) -> float:
    """Passes over the data so far."""
    return loader.epoch + loader.row / max(1, loader.rows_per_epoch())


class Clock:
    """Progress in events: loss, rate, tokens a second, seconds left."""

    def __init__(self, events: Events, section: Train, step: int, tier: str) -> None:
        self.events, self.section, self.tier = events, section, tier
        self.first, self.start = step, time.perf_counter()
        self.last_step, self.last = step, self.start
        self.seconds: list[float] = []
        events.emit("train", tier=tier, step=step, steps=section.steps)

    def tick(self, step: int, loss: float, norm: float) -> None:
        """After a step."""
        if step % LOG_EVERY and step != self.section.steps:
            return
        now = time.perf_counter()
        step_seconds = (now - self.last) / (step - self.last_step)
        self.seconds.append(step_seconds)
        self.last, self.last_step = now, step
        tokens = self.section.rows * self.section.row_tokens
        self.events.emit(
            "step",
            tier=self.tier,
            step=step,
            steps=self.section.steps,
            loss=round(loss, 4),
            gradient_norm=round(norm, 4),
            rate=rate_at(self.section, step - 1),
            tokens=tokens,
            step_seconds=round(step_seconds, 4),
            tokens_per_second=round(tokens / step_seconds),
            seconds_left=round((self.section.steps - step) * float(np.median(self.seconds[-20:])), 1),
            peak_bytes=peak_bytes(),
        )

    def pause(self, event: str, step: int, **facts: Any) -> None:
        """Something that is not a step: it does not count into the step time."""
        self.events.emit(event, tier=self.tier, step=step, **facts)
        self.last_step, self.last = step, time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        tokens = self.section.rows * self.section.row_tokens
        median = float(np.median(self.seconds)) if self.seconds else 0.0
        return {
            "steps": self.section.steps,
            "tokens": tokens * self.section.steps,
            "seconds_here": round(time.perf_counter() - self.start, 1),
            "tokens_per_second": round(tokens / median) if median else 0,
            "peak_bytes": peak_bytes(),
        }


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes (Linux reports kB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
