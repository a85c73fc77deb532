"""Context parallel: each rank holds two slices of every sequence.

A rank gathers the others' latents (MLA) or keys and values (GQA). The first and the last slice lie
together, so causal attention is the same work on every rank.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor

from tumen.data import Batch
from tumen.model import Transformer
from tumen.train.parallel.collectives import GatherSequence, all_reduced

COLUMNS = ("ids", "documents", "positions", "targets", "answers", "sources")


def join_sequences(network: Transformer, group: dist.ProcessGroup) -> None:
    """Gather keys over the group in attention, and sum expert loads over whole sequences."""

    def gather(x: Tensor) -> Tensor:
        return GatherSequence.apply(x, group)

    for block in network.every_block():
        attention: Any = block.attention
        attention.whole = gather
    for mixture in network.mixtures():
        mixture.over_sequence = partial(all_reduced, group=group)


def sequence_places(tokens: int, ranks: int, rank: int) -> np.ndarray:
    """Return the places in a sequence that a rank holds.

    They are slice `rank` of 2 x ranks slices, and the same slice counted from the end.
    """
    if ranks == 1:
        return np.arange(tokens)
    each = tokens // (2 * ranks)
    first = rank * each
    last = tokens - (rank + 1) * each
    head = np.arange(first, first + each)
    tail = np.arange(last, last + each)
    return np.concatenate((head, tail))


def own_columns(batch: Batch, places: np.ndarray, ranks: int) -> Batch:
    """Return the columns of a batch at `places`; the whole batch where one rank holds all."""
    if ranks == 1:
        return batch
    own = {name: getattr(batch, name)[:, places] for name in COLUMNS}
    return replace(batch, **own)
