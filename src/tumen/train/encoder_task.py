"""The training of an encoder: its loss is minus the logarithm of the whole reading's probability.

A reading is the language, the intent, a value for each closed slot of the intent, and a tag for
each word among those of the intent's copied slots. Everything after the intent is conditioned on
it, so no head learns, or later says, what the intent has no slot for.
Shapes: B rows, T tokens, N sentences, L learned tokens, S sentence outputs, K tags, C closed
slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tumen.core.errors import TrainError
from tumen.core.shape import EncoderShape
from tumen.data import Batch, Codec, Shards, read_shards
from tumen.language import Ontology
from tumen.model import SentenceEncoder, build_encoder, sentence_mask
from tumen.recipe import Train
from tumen.train.encoder_labels import IGNORED, LabelledSentences, labelled
from tumen.train.optimizer import FlatOptimizer
from tumen.train.single_process import remove_broken_libraries
from tumen.train.world import World, type_of

SMOOTHING = 0.05  # of the intent's distribution: public sets label like sentences differently
NEVER = -1e4  # logit of a tag that the intent does not have


class EncoderTask:
    """Shards and trainer of an encoder, for `tumen.train.fit`.

    Args:
        dataset: artifact folder.
        codec: of the run's tokenizer.
        shape: with vocabulary and labels.

    Raises:
        TrainError: see `labelled`.
    """

    def __init__(self, dataset: Path, codec: Codec, shape: EncoderShape) -> None:
        self.shape = shape
        self.ontology = codec.ontology
        self.splits = {
            split: labelled(read_shards(dataset / split), codec)
            for split in ("train", "validation")
        }

    def shards(self, split: str) -> Shards:
        """Return the sentences of a split."""
        return self.splits[split].prompts

    def trainer(self, section: Train, world: World, seed: int) -> EncoderTrainer:
        """Return a trainer with a fresh network.

        Raises:
            TrainError: there are several ranks.
        """
        if world.size > 1:
            raise TrainError("an encoder trains in one process: remove train.mesh")
        losses = EncoderLoss(self.splits, self.ontology)
        return EncoderTrainer(section, build_encoder(self.shape, seed), losses, world, seed)


class EncoderTrainer:
    """`Trainer` of an encoder in one process."""

    data_rank = 0
    data_ranks = 1

    def __init__(
        self, section: Train, network: SentenceEncoder, losses: EncoderLoss, world: World, seed: int
    ) -> None:
        self.section = section
        self.device = world.device
        self.losses = losses
        self.seed = seed
        self.steps = 0
        self.network = network.to(world.device).train()
        self.optimizer = FlatOptimizer(self.network, section, type_of(section, world.device))
        if section.compile:
            remove_broken_libraries()
            for block in self.network.every_block():
                block.compile(dynamic=False)

    def learn(self, batch: Batch) -> float:
        """Run forward and backward over the micro-batches of a step; return its loss."""
        # Dropout depends on the step alone, so a resumed run drops the same.
        torch.manual_seed(self.seed * 1_000_003 + self.steps)
        parts = batch.split(self.section.mesh.rows_of(len(batch.ids)))
        total = 0.0
        for part in parts:
            loss = self.losses.of(self.network, part, "train", self.device)
            loss.backward()
            total += float(loss.detach())
            if part is not parts[-1]:
                self.optimizer.collect()
        return total

    def step(self, rate: float) -> float:
        """Update the weights; return the norm of the gradient before clipping."""
        self.steps += 1
        return self.optimizer.step(rate)

    def loads(self) -> Tensor | None:
        """Return nothing: an encoder has no experts."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """Return everything a checkpoint keeps, by name."""
        weights = self.optimizer.named_master()
        kept = {f"weights.{name}": tensor for name, tensor in weights.items()}
        for name, tensor in self.optimizer.moments().items():
            kept[f"moments.{name}"] = tensor
        return kept

    def restored(self, step: int) -> None:
        """Continue after `tensors` were filled from a checkpoint of `step` finished steps."""
        self.steps = step
        self.optimizer.restored(step)

    def evaluate(self, batches: Sequence[Batch], section: Train) -> float:
        """Return the mean loss over batches of the validation split."""
        self.network.eval()
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            losses = [
                float(self.losses.of(self.network, batch, "validation", self.device))
                for batch in batches
            ]
        self.network.train()
        return sum(losses) / len(losses)


class EncoderLoss:
    """Minus the logarithm of the probability of the right readings, a sentence.

    Args:
        splits: sentences and labels by split.
        ontology: says which slots an intent has.
    """

    def __init__(self, splits: dict[str, LabelledSentences], ontology: Ontology) -> None:
        self.splits = splits
        labels = ontology.labels
        self.languages = len(labels.languages)
        self.intents = len(labels.intents)
        self.choices = list(labels.choices.values())
        self.allowed = allowed_tags(ontology)

    def of(
        self, network: SentenceEncoder, batch: Batch, split: str, device: torch.device
    ) -> Tensor:
        """Return the share of these rows in the mean loss of the step's sentences."""
        rows = _Rows.of(batch, self.splits[split], device)
        states = network.states(rows.ids, rows.positions, sentence_mask(rows.documents))
        found = network.labels(states, rows.sentences, rows.firsts)
        loss = self._sentences(found.sentence.float(), rows)
        of_sentence = rows.sentences[rows.learned]
        logits = found.tags.flatten(0, 1)[rows.learned].float()  # (L, K)
        by_intent = network.intent_bias(rows.intents).float()
        by_intent = by_intent + self.allowed.to(device)[rows.intents]  # (N, K)
        logits = logits + by_intent[of_sentence]
        loss = loss + F.cross_entropy(logits, rows.tags, reduction="sum")
        return loss / len(batch.samples)

    def _sentences(self, logits: Tensor, rows: _Rows) -> Tensor:
        """Return the summed loss of languages, intents and closed slots; logits (N, S)."""
        end = self.languages + self.intents
        said = logits[:, : self.languages]
        meant = logits[:, self.languages : end]
        loss = F.cross_entropy(said, rows.languages, reduction="sum")
        loss = loss + F.cross_entropy(
            meant, rows.intents, reduction="sum", label_smoothing=SMOOTHING
        )
        for slot, (start, values) in enumerate(self.choices):
            outputs = logits[:, start : start + 1 + len(values)]
            loss = loss + F.cross_entropy(
                outputs, rows.closed[:, slot], reduction="sum", ignore_index=IGNORED
            )
        return loss


@dataclass(frozen=True)
class _Rows:
    """Packed rows as tensors, and the labels of their N sentences and L learned tokens.

    Attributes:
        ids, positions, documents: (B, T), as in `Batch`.
        sentences: number of the sentence of each token, from 0; N for padding, (B * T,).
        firsts: place of the first token of each sentence, of B * T, (N,).
        languages, intents: (N,).
        closed: (N, C), -1 where the intent has no such slot.
        learned: places of tokens that begin a word, of B * T, (L,).
        tags: of these, (L,).
    """

    ids: Tensor
    positions: Tensor
    documents: Tensor
    sentences: Tensor
    firsts: Tensor
    languages: Tensor
    intents: Tensor
    closed: Tensor
    learned: Tensor
    tags: Tensor

    @classmethod
    def of(cls, batch: Batch, data: LabelledSentences, device: torch.device) -> _Rows:
        """Look up the labels of a batch."""
        documents = batch.documents.reshape(-1)
        positions = batch.positions.reshape(-1)
        inside = documents > 0
        firsts = np.flatnonzero(inside & (positions == 0))
        # Rows begin with a sentence, so counting firsts numbers the sentences.
        sentences = np.searchsorted(firsts, np.arange(len(documents)), side="right") - 1
        sentences[~inside] = len(firsts)
        # The source of a sentence's first target is its second token.
        starts = batch.sources.reshape(-1)[firsts] - 1
        examples = np.searchsorted(data.prompts.starts, starts)
        tags = np.full(len(documents), IGNORED, np.int64)
        tags[inside] = data.tags[starts[sentences[inside]] + positions[inside]]
        learned = np.flatnonzero(tags != IGNORED)
        arrays = {
            "ids": batch.ids,
            "positions": batch.positions,
            "documents": batch.documents,
            "sentences": sentences,
            "firsts": firsts,
            "languages": data.languages[examples],
            "intents": data.intents[examples],
            "closed": data.closed[examples],
            "learned": learned,
            "tags": tags[learned],
        }
        return cls(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})


def allowed_tags(ontology: Ontology) -> Tensor:
    """What is added to the tags of a sentence of each intent: 0, or `NEVER`, (intents, K)."""
    labels = ontology.labels
    _, tags, intents = labels.counts
    allowed = torch.full((intents, tags), NEVER)
    allowed[:, 0] = 0.0
    for number, slots in enumerate(labels.intents.values()):
        for slot in slots:
            if slot in labels.tags:
                begin = labels.tags[slot]
                allowed[number, begin : begin + 2] = 0.0
    return allowed
