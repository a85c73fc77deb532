"""Distillation (arXiv 1503.02531): a smaller tier learns from a teacher's distributions, stored once or asked at every step.

    ids.npy     uint16 or uint32 (A, K)  the K likeliest tokens at every action position of the training shard
    logp.npy    float16 (A, K)           their log-probabilities, in nats
Stored are a teacher's most likely tokens; `live` asks for all of its distribution and costs a forward pass more a step.
A position is the place of the target among all action tokens of the shard, in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tumen.core.artifact import verify, writing
from tumen.core.errors import ArtifactError, TrainError
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.data import Batch, Loader, Shards, read_shards
from tumen.model import Transformer, build, causal_mask
from tumen.recipe import Distil, Train
from tumen.train import Extra, Method, Targets, Told, fit, half, join, prepare_torch
from tumen.train.weights import Adapter, read_final

KEPT = 8  # likeliest tokens kept a position: their mass is above 0.999 once a teacher has learnt a grammar


def distil(
    section: Train,
    shape: Shape,
    distilling: Distil,
    teacher: Path,
    dataset: Path,
    out: Path,
    *,
    seed: int,
    inputs: str,
    made_from: list[str],
    events: Events,
    start: Mapping[str, Tensor] | None = None,
    adapter: Adapter | None = None,
) -> None:
    """Train `shape` on a dataset and on a teacher's distributions; writes the checkpoint artifact `out`.

    Raises:
        TrainError, ArtifactError, DiskError: as `train.fit`.
    """
    world = join(section.mesh.ranks)
    if distilling.live:
        if section.mesh.cp > 1:
            raise TrainError(
                "distil.live: a teacher sees whole rows, and mesh.cp cuts them; use stored logits, or cp = 1"
            )
        extra = live_loss(network_of(teacher, shape, world.device), distilling.temperature)
    else:
        kept = out.with_name(f"{teacher.name}-logits")
        with world.rank_zero() as mine:
            if mine:
                write_logits(teacher, dataset, kept, section, events)
        extra = kept_loss(kept, read_shards(dataset / "train"), distilling.temperature)
        made_from = [*made_from, verify(kept, "logits").digest]
    teaching = (distilling.weight, extra)
    common: dict[str, Any] = {
        "seed": seed,
        "inputs": inputs,
        "made_from": made_from,
        "events": events,
    }
    fit(
        section,
        shape,
        dataset,
        out,
        **common,
        method=Method(distil=teaching, start=start, adapter=adapter),
    )


def network_of(teacher: Path, student: Shape, device: torch.device) -> Transformer:
    """A teacher at work, in bf16 where that is fast.

    Raises:
        TrainError: teacher and student have other vocabularies.
    """
    shape, weights = read_final(teacher)
    if shape.vocab_size != student.vocab_size:
        raise TrainError(
            f"the teacher knows {shape.vocab_size} tokens, the student {student.vocab_size}: they need one tokeniser"
        )
    network = build(shape)
    network.load_state_dict(weights)
    return network.to(device, half(device)).eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def write_logits(teacher: Path, dataset: Path, out: Path, section: Train, events: Events) -> None:
    """Run the teacher once over the training shard and keep its likeliest tokens; does nothing if that is done already."""
    parents = [verify(teacher, "checkpoint").digest, verify(dataset, "dataset").digest]
    inputs = "-".join(
        [*parents, str(KEPT), f"{section.batch_size}x{section.seq_len}"]
    )  # bf16 sums differ with the batch
    try:
        if verify(out, "logits").inputs == inputs:
            return
    except ArtifactError:
        pass
    prepare_torch(section)
    network = network_of(teacher, read_final(teacher)[0], torch.device("cpu"))
    shards = read_shards(dataset / "train")
    places = action_places(shards)
    count = int(places[-1]) + 1
    ids, logp = np.zeros((count, KEPT), shards.tokens.dtype), np.zeros((count, KEPT), np.float16)
    loader = Loader(shards, section.batch_size, section.seq_len, 0)
    batches = math.ceil(loader.rows_per_epoch() / section.batch_size)
    for number in range(batches):
        batch = next(loader)
        rows, sources = action_rows(batch)
        states, *_ = network(
            *(torch.from_numpy(a) for a in (batch.ids, batch.positions)),
            causal_mask(torch.from_numpy(batch.documents)),
        )
        best = network.head(states.flatten(0, 1)[rows]).float().log_softmax(dim=-1).topk(KEPT)
        ids[places[sources]], logp[places[sources]] = best.indices.numpy(), best.values.numpy()
        if number % 20 == 0:
            events.emit("logits", tier=teacher.name, step=number, steps=batches)
    with writing(out, "logits", inputs, parents, {"positions": count, "kept": KEPT}) as stage:
        np.save(stage / "ids.npy", ids)
        np.save(stage / "logp.npy", logp)


def action_places(shards: Shards) -> np.ndarray:
    """For every token of a shard, its number among the action tokens (of the last one before it, if it is none)."""
    marks = np.zeros(len(shards.tokens) + 1, np.int64)
    marks[shards.answers] += 1
    marks[shards.starts[1:]] -= 1
    return np.cumsum(np.cumsum(marks[:-1])) - 1


def action_rows(batch: Batch) -> tuple[Tensor, np.ndarray]:
    """Flat positions of a batch that predict an action token, and where in the shard that token lies."""
    rows = np.flatnonzero(batch.answers.reshape(-1))
    return torch.from_numpy(rows), batch.sources.reshape(-1)[rows]


def live_loss(teacher: Transformer, temperature: float) -> Extra:
    """KL of a teacher that reads the same batch to the student, over the whole vocabulary."""

    @torch.no_grad()
    def known(targets: Targets, told: Told) -> Tensor:
        ids, positions, mask = told["ids"], told["positions"], told["mask"]
        states = teacher(ids, positions, mask, real=told["real"]).states
        return teacher.head(states.flatten(0, 1)[targets.rows.to(states.device)]).float()

    def loss(logits: Tensor, targets: Targets, told: Told) -> Tensor:
        wanted = (known(targets, told) / temperature).log_softmax(dim=-1)
        student = (logits / temperature).log_softmax(dim=-1)
        return (wanted.exp() * (wanted - student)).sum(dim=-1) * temperature**2

    return loss


def kept_loss(kept: Path, shards: Shards, temperature: float) -> Extra:
    """KL of teacher to student: the kept tokens, and one bucket for the rest."""
    places = torch.from_numpy(action_places(shards))
    ids = torch.from_numpy(np.load(kept / "ids.npy", allow_pickle=False).astype(np.int64))
    logp = torch.from_numpy(np.load(kept / "logp.npy", allow_pickle=False).astype(np.float32))

    def loss(logits: Tensor, targets: Targets, told: Told) -> Tensor:
        place = places[targets.sources]
        teacher = (logp[place] / temperature).to(logits.device)
        rest = (1 - logp[place].exp().sum(dim=-1, keepdim=True)).clamp_min(1e-6).to(logits.device)
        teacher = torch.cat((teacher, rest.log() / temperature), dim=-1).log_softmax(dim=-1)
        student = logits.log_softmax(dim=-1)
        known = student.gather(1, ids[place].to(logits.device))
        left = (1 - known.exp().sum(dim=-1, keepdim=True)).clamp_min(1e-6).log()
        student = (torch.cat((known, left), dim=-1) / temperature).log_softmax(dim=-1)
        return (teacher.exp() * (teacher - student)).sum(dim=-1) * temperature**2

    return loss
