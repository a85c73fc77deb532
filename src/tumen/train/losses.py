"""The loss of a step: weighted cross-entropy, a teacher's share, balance losses.

Every rank divides its loss by the weights of the *whole step*, so that the ranks' losses and
gradients simply add up.
Shapes: B rows, T tokens, D features, A trained positions, V vocabulary.
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

# The head's rows are padded to a multiple, so that compiled code sees few distinct shapes.
HEAD_ROWS = 128
# A batch as tensors: ids, positions, mask, real and maybe safe.
Inputs = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Targets:
    """What the head is to predict in a batch.

    Attributes:
        rows: (A,) places of hidden states, of B * T.
        tokens: (A,) the tokens to predict.
        weights: (A,) of each loss, 0 for padding.
        answers: (A,) 1 where the token belongs to an action; a teacher's loss counts there alone.
        sources: (A,) places of the tokens in the shard.
    """

    rows: Tensor
    tokens: Tensor
    weights: Tensor
    answers: Tensor
    sources: Tensor


# logits (A, V), what they predict, the batch -> a teacher's loss (A,)
Extra = Callable[[Tensor, Targets, Inputs], Tensor]


def targets_of(batch: Batch, sentence_weight: float) -> Targets:
    """The positions that are trained: actions with weight 1, sentences with `sentence_weight`."""
    targets = batch.targets.reshape(-1)
    answers = batch.answers.reshape(-1).astype(bool)
    trained = answers if sentence_weight == 0 else targets >= 0
    rows = np.flatnonzero(trained)
    # A teacher's loss counts on actions alone.
    inside = answers[rows].astype(np.float32)
    weights = np.where(inside, 1.0, sentence_weight).astype(np.float32)
    padding = (0, -len(rows) % HEAD_ROWS)
    places = np.pad(rows, padding)
    sources = batch.sources.reshape(-1)[places]
    return Targets(
        rows=torch.from_numpy(places),
        tokens=torch.from_numpy(np.maximum(targets[places], 0)),
        weights=torch.from_numpy(np.pad(weights, padding)),
        answers=torch.from_numpy(np.pad(inside, padding)),
        sources=torch.from_numpy(np.maximum(sources, 0)),
    )


def whole_weight(batch: Batch, sentence_weight: float) -> float:
    """The sum of all loss weights of a step, over all ranks."""
    return batch.totals.answers + sentence_weight * batch.totals.sentences


def further(batch: Batch) -> Batch:
    """The same batch for multi-token prediction: position i predicts the token after the next."""

    def shifted(values: np.ndarray, last: int) -> np.ndarray:
        end = np.full_like(values[:, :1], last)
        return np.concatenate((values[:, 1:], end), axis=1)

    # Positions whose next token is in the same document.
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
    """This batch's share of the step's loss.

    Mean weighted cross-entropy, mixed with the teacher's loss if there is one. In training also the
    balance losses and the loss of multi-token prediction.
    """
    ids = torch.from_numpy(batch.ids).to(device)
    documents = torch.from_numpy(batch.documents).to(device)
    positions = torch.from_numpy(batch.positions).to(device)
    inputs = {
        "ids": ids,
        "positions": positions,
        "mask": causal_mask(documents),
        "real": documents > 0,
        "safe": network.safe_rows(ids),
    }
    return loss_of_inputs(network, batch, inputs, section, distil)


def loss_of_inputs(
    network: Transformer,
    batch: Batch,
    inputs: Inputs,
    section: Train,
    distil: tuple[float, Extra] | None,
) -> Tensor:
    """`loss_of` with the network's inputs as tensors."""
    ids = inputs["ids"]
    assert ids is not None
    # Only multi-token prediction needs the next tokens.
    following = None
    if network.training and network.shape.num_nextn_predict_layers:
        following = torch.roll(ids, -1, 1)
    out = network(
        ids,
        inputs["positions"],
        inputs["mask"],
        real=inputs["real"],
        safe=inputs.get("safe"),
        following=following,
    )
    weight = section.sentence_weight
    total = whole_weight(batch, weight)
    loss = cross_entropy(network, out.states, targets_of(batch, weight), inputs, distil) / total
    if network.training:
        share = len(batch.ids) / batch.totals.rows
        loss = loss + out.balance * share
    if out.ahead is not None:
        after = targets_of(further(batch), weight)
        ahead = section.mtp_weight * cross_entropy(network, out.ahead, after, inputs, None)
        loss = loss + ahead / total
    return loss


def cross_entropy(
    network: Transformer,
    states: Tensor,
    targets: Targets,
    inputs: Inputs,
    distil: tuple[float, Extra] | None,
) -> Tensor:
    """Weighted sum over the trained positions, in nats; states (B, T, D)."""
    device = states.device
    rows = targets.rows.to(device)
    logits = network.head(states.flatten(0, 1)[rows]).float()  # (A, V)
    loss = F.cross_entropy(logits, targets.tokens.to(device), reduction="none")
    if distil:
        weight, extra = distil
        share = weight * targets.answers.to(device)
        loss = (1 - share) * loss + share * extra(logits, targets, inputs)
    return (loss * targets.weights.to(device)).sum()


def shares_loss(dataset: Path, vocab: int) -> tuple[float, Extra] | None:
    """Logit adjustment for `Method.distil`; None where the dataset has no offsets.

    Cross-entropy with the dataset's offsets added to the logits. The trained model then fits other
    intent frequencies than those of the rows (data/prepare.py).
    """
    path = dataset / OFFSETS_FILE
    if not path.exists():
        return None
    offsets = torch.zeros(vocab)
    for token, nats in json.loads(path.read_text("utf-8")).items():
        offsets[int(token)] = nats

    def loss(logits: Tensor, targets: Targets, inputs: Inputs) -> Tensor:
        adjusted = logits + offsets.to(logits.device)
        tokens = targets.tokens.to(logits.device)
        return F.cross_entropy(adjusted, tokens, reduction="none")

    return 1.0, loss
