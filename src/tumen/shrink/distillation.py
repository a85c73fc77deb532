"""Distillation (arXiv 1503.02531): train a smaller tier on a teacher's distributions.

They are stored once, as the likeliest tokens, or computed at every step (`live`: all of the
distribution, for one forward pass more a step).

    ids.npy     uint16 or uint32 (A, K)  the K likeliest tokens at every action position
    logp.npy    float16 (A, K)           their log-probabilities, in nats

A is the number of action tokens of the training shard; row a belongs to the a-th of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

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
from tumen.train import Extra, Inputs, Making, Method, Targets, fit, half, join, prepare_torch
from tumen.train.weights import read_final

# Tokens kept for each position: their mass is above 0.999 once a teacher has learned a grammar.
KEPT = 8
# Least probability of the bucket for all other tokens, so that its logarithm is finite.
LEAST_REST = 1e-6


def distil(
    section: Train,
    shape: Shape,
    distilling: Distil,
    teacher: Path,
    dataset: Path,
    out: Path,
    *,
    making: Making,
    method: Method | None = None,
) -> None:
    """Train on a dataset and a teacher's distributions; write the checkpoint artifact `out`.

    Args:
        section: steps, batch size, learning rate, mesh.
        shape: of the student, with its vocabulary.
        distilling: weight, temperature, live or stored.
        teacher: the teacher's checkpoint artifact.
        dataset: dataset artifact.
        out: the new artifact; stored logits lie beside it.
        making: seed, inputs, parents and events.
        method: initial weights and adapter; its `distil` is replaced.

    Raises:
        TrainError, ArtifactError, DiskError: as `train.fit`.
    """
    world = join(section.mesh.ranks)
    if distilling.live:
        if section.mesh.cp > 1:
            raise TrainError(
                "distil.live: a teacher sees whole rows, and mesh.cp cuts them; "
                "use stored logits, or cp = 1"
            )
        network = network_of(teacher, shape, world.device)
        extra = live_loss(network, distilling.temperature)
    else:
        kept = out.with_name(f"{teacher.name}-logits")
        with world.rank_zero() as mine:
            if mine:
                write_logits(teacher, dataset, kept, section, making.events or Events(None))
        shards = read_shards(dataset / "train")
        extra = kept_loss(kept, shards, distilling.temperature)
        stored = verify(kept, "logits").digest
        making = replace(making, made_from=[*making.made_from, stored])
    method = replace(method or Method(), distil=(distilling.weight, extra))
    fit(section, shape, dataset, out, making=making, method=method)


def network_of(teacher: Path, student: Shape, device: torch.device) -> Transformer:
    """Load a teacher for inference, in bf16 where that is fast.

    Raises:
        TrainError: teacher and student have different vocabularies.
    """
    shape, weights = read_final(teacher)
    if shape.vocab_size != student.vocab_size:
        raise TrainError(
            f"the teacher knows {shape.vocab_size} tokens, the student {student.vocab_size}: "
            "they need one tokenizer"
        )
    network = build(shape)
    network.load_state_dict(weights)
    network = network.to(device, half(device)).eval()
    return network.requires_grad_(requires_grad=False)


@torch.inference_mode()
def write_logits(teacher: Path, dataset: Path, out: Path, section: Train, events: Events) -> None:
    """Run the teacher once over the training shard and store its likeliest tokens.

    Returns at once where `out` holds them already.
    """
    parents = [verify(teacher, "checkpoint").digest, verify(dataset, "dataset").digest]
    # The batch is part of the inputs: sums in bf16 differ with it.
    batch_shape = f"{section.batch_size}x{section.seq_len}"
    inputs = "-".join([*parents, str(KEPT), batch_shape])
    if _stored(out, inputs):
        return
    prepare_torch(section)
    network = network_of(teacher, read_final(teacher)[0], torch.device("cpu"))
    shards = read_shards(dataset / "train")
    ids, logp = _likeliest(network, shards, section, events, teacher.name)
    facts = {"positions": len(ids), "kept": KEPT}
    with writing(out, "logits", inputs, parents, facts) as stage:
        np.save(stage / "ids.npy", ids)
        np.save(stage / "logp.npy", logp)


def _likeliest(
    network: Transformer, shards: Shards, section: Train, events: Events, tier: str
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens (A, K) of a teacher and their log-probabilities, over one epoch."""
    places = action_places(shards)
    count = int(places[-1]) + 1
    ids = np.zeros((count, KEPT), shards.tokens.dtype)
    logp = np.zeros((count, KEPT), np.float16)
    loader = Loader(shards, section.batch_size, section.seq_len, 0)
    batches = math.ceil(loader.rows_per_epoch() / section.batch_size)
    for number in range(batches):
        batch = next(loader)
        rows, sources = action_rows(batch)
        likely = _logp(network, batch, rows).topk(KEPT)
        where = places[sources]
        ids[where] = likely.indices.numpy()
        logp[where] = likely.values.numpy()
        if number % 20 == 0:
            events.emit("logits", tier=tier, step=number, steps=batches)
    return ids, logp


def _stored(folder: Path, inputs: str) -> bool:
    try:
        return verify(folder, "logits").inputs == inputs
    except ArtifactError:
        return False


def _logp(network: Transformer, batch: Batch, rows: Tensor) -> Tensor:
    """Log-probabilities (N, vocabulary) at flat positions `rows` (N,) of a batch."""
    ids = torch.from_numpy(batch.ids)
    positions = torch.from_numpy(batch.positions)
    mask = causal_mask(torch.from_numpy(batch.documents))
    states, *_ = network(ids, positions, mask)  # (B, T, D)
    logits = network.head(states.flatten(0, 1)[rows])  # (N, vocabulary)
    return logits.float().log_softmax(dim=-1)


def action_places(shards: Shards) -> np.ndarray:
    """For every token of a shard, its number among the action tokens.

    A token that is none has the number of the last action token before it.
    """
    # +1 where an action begins and -1 behind its end: the running sum is 1 inside actions.
    marks = np.zeros(len(shards.tokens) + 1, np.int64)
    marks[shards.answers] += 1
    marks[shards.starts[1:]] -= 1
    inside = np.cumsum(marks[:-1])
    return np.cumsum(inside) - 1


def action_rows(batch: Batch) -> tuple[Tensor, np.ndarray]:
    """Flat positions of a batch that predict an action token, and the token's place in the data."""
    rows = np.flatnonzero(batch.answers.reshape(-1))
    sources = batch.sources.reshape(-1)
    return torch.from_numpy(rows), sources[rows]


def live_loss(teacher: Transformer, temperature: float) -> Extra:
    """KL of student to teacher over the whole vocabulary; the teacher reads the same batch."""

    @torch.no_grad()
    def known(targets: Targets, inputs: Inputs) -> Tensor:
        out = teacher(inputs["ids"], inputs["positions"], inputs["mask"], real=inputs["real"])
        states = out.states  # (B, T, D)
        rows = targets.rows.to(states.device)
        return teacher.head(states.flatten(0, 1)[rows]).float()

    def loss(logits: Tensor, targets: Targets, inputs: Inputs) -> Tensor:
        wanted = (known(targets, inputs) / temperature).log_softmax(dim=-1)  # (N, vocabulary)
        student = (logits / temperature).log_softmax(dim=-1)
        return _divergence(wanted, student, temperature)

    return loss


def kept_loss(kept: Path, shards: Shards, temperature: float) -> Extra:
    """KL of student to teacher over the kept tokens and one bucket for all others."""
    places = torch.from_numpy(action_places(shards))
    stored_ids = np.load(kept / "ids.npy", allow_pickle=False)
    stored_logp = np.load(kept / "logp.npy", allow_pickle=False)
    ids = torch.from_numpy(stored_ids.astype(np.int64))
    logp = torch.from_numpy(stored_logp.astype(np.float32))

    def loss(logits: Tensor, targets: Targets, inputs: Inputs) -> Tensor:
        place = places[targets.sources]
        teacher = (logp[place] / temperature).to(logits.device)  # (N, K)
        rest = _rest(logp[place]).to(logits.device)  # (N, 1)
        teacher = torch.cat((teacher, rest.log() / temperature), dim=-1)
        teacher = teacher.log_softmax(dim=-1)
        student = logits.log_softmax(dim=-1)  # (N, vocabulary)
        known = student.gather(1, ids[place].to(logits.device))  # (N, K)
        left = _rest(known).log()  # (N, 1)
        student = torch.cat((known, left), dim=-1) / temperature
        student = student.log_softmax(dim=-1)  # (N, K + 1)
        return _divergence(teacher, student, temperature)

    return loss


def _rest(logp: Tensor) -> Tensor:
    """Probability (N, 1) of all tokens but those of `logp` (N, K)."""
    mass = logp.exp().sum(dim=-1, keepdim=True)
    return (1 - mass).clamp_min(LEAST_REST)


def _divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL (N,) of log-probabilities (N, K), times T^2 so that gradients keep their scale."""
    apart = teacher.exp() * (teacher - student)
    return apart.sum(dim=-1) * temperature**2
