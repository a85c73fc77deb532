"""What a step minimises: weighted cross-entropy over the learnt positions, a teacher's share of it, the balance losses.

Every rank's loss is divided by what the *whole step* holds, so that the ranks' losses (and gradients) simply add up.
Shapes: B rows, T tokens, A learnt positions, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tumen.data import OFFSETS_FILE, Batch
from tumen.model import Transformer, causal_mask
from tumen.recipe import Train

HEAD_ROWS = 128  # the head's rows are padded to a multiple, so that it has few distinct shapes
Told = Mapping[str, Tensor | None]  # a batch as tensors: ids, positions, mask, real and maybe safe


@dataclass(frozen=True)
class Targets:
    """What the head is asked in a batch: rows of the hidden states, their targets, loss weights, and places in the shard."""

    rows: Tensor  # (A,) indices into (B * T)
    tokens: Tensor  # (A,)
    weights: Tensor  # (A,), 0 for padding
    answers: Tensor  # (A,) 1 where the target belongs to an action, which is where a teacher has an opinion
    sources: Tensor  # (A,)


Extra = Callable[
    [Tensor, Targets, Told], Tensor
]  # logits (A, V) and what they are of -> a teacher's loss (A,)


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


def whole_weight(batch: Batch, sentence_weight: float) -> float:
    """The sum of all loss weights of a step, over all ranks."""
    return batch.totals.answers + sentence_weight * batch.totals.sentences


def further(batch: Batch) -> Batch:
    """The same batch asked one token further (multi-token prediction): position i is to know the token after the next."""

    def shifted(values: np.ndarray, last: int) -> np.ndarray:
        return np.concatenate((values[:, 1:], np.full_like(values[:, :1], last)), axis=1)

    here = shifted(batch.documents, 0) == batch.documents
    return replace(
        batch,
        targets=np.where(here, shifted(batch.targets, -1), -1),
        answers=np.where(here, shifted(batch.answers, 0), 0),
        sources=np.where(here, shifted(batch.sources, -1), -1),
    )


def loss_of(
    network: Transformer,
    batch: Batch,
    section: Train,
    device: torch.device,
    distil: tuple[float, Extra] | None = None,
) -> Tensor:
    """This batch's share of the step's loss: mean weighted cross-entropy, mixed with the teacher's if any; plus, in training,
    the balance losses and that of the token after the next.
    """
    ids, documents, positions = (
        torch.from_numpy(part).to(device) for part in (batch.ids, batch.documents, batch.positions)
    )
    told = {
        "ids": ids,
        "positions": positions,
        "mask": causal_mask(documents),
        "real": documents > 0,
        "safe": network.safe_rows(ids),
    }
    return told_loss(network, batch, told, section, distil)


def told_loss(
    network: Transformer,
    batch: Batch,
    told: Told,
    section: Train,
    distil: tuple[float, Extra] | None,
) -> Tensor:
    """`loss_of` for a network that is told its batch as tensors."""
    ids = told["ids"]
    positions = told["positions"]
    mask = told["mask"]
    assert ids is not None
    assert positions is not None
    assert mask is not None
    if network.training and network.shape.num_nextn_predict_layers:
        following = torch.roll(ids, -1, 1)
    else:
        following = None
    out = network(
        ids, positions, mask, real=told["real"], safe=told.get("safe"), following=following
    )
    total = whole_weight(batch, section.sentence_weight)
    loss = (
        cross_entropy(network, out.states, targets_of(batch, section.sentence_weight), told, distil)
        / total
    )
    if network.training:
        loss = loss + out.balance * (len(batch.ids) / batch.totals.rows)
    if out.ahead is not None:
        after = targets_of(further(batch), section.sentence_weight)
        loss = (
            loss + section.mtp_weight * cross_entropy(network, out.ahead, after, told, None) / total
        )
    return loss


def cross_entropy(
    network: Transformer,
    states: Tensor,
    targets: Targets,
    told: Told,
    distil: tuple[float, Extra] | None,
) -> Tensor:
    """Weighted sum over the learnt positions, in nats; states (B, T, D)."""
    device = states.device
    logits = network.head(states.flatten(0, 1)[targets.rows.to(device)]).float()
    loss = F.cross_entropy(logits, targets.tokens.to(device), reduction="none")
    if distil:
        weight, extra = distil
        share = weight * targets.answers.to(device)  # the teacher was asked about actions alone
        loss = (1 - share) * loss + share * extra(logits, targets, told)
    return (loss * targets.weights.to(device)).sum()


def shares_loss(dataset: Path, vocab: int) -> tuple[float, Extra] | None:
    """For `fit(distil=...)`: cross-entropy with the dataset's offsets added to the logits; None where it has none.

    What is learnt with them is right for other shares of the intents than the rows have (data/prepare.py).
    """
    if not (dataset / OFFSETS_FILE).exists():
        return None
    offsets = torch.zeros(vocab)
    for token, nats in json.loads((dataset / OFFSETS_FILE).read_text("utf-8")).items():
        offsets[int(token)] = nats

    def loss(logits: Tensor, targets: Targets, told: Told) -> Tensor:
        return F.cross_entropy(
            logits + offsets.to(logits.device), targets.tokens.to(logits.device), reduction="none"
        )

    return 1.0, loss
