"""The stages before training: corpus, tokenizer, dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tumen.core.artifact import Manifest
from tumen.data import data_digests, write_corpus, write_dataset, write_tokenizer
from tumen.pipeline.stage import Stage, Work
from tumen.recipe import Data, Tokenizer

CORPUS = "corpus"
TOKENIZER = "tokenizer"
DATASET = "dataset"


@dataclass(frozen=True)
class CorpusStage(Stage):
    """Sentences or texts from the recipe's sources: filtered, split, mixed."""

    kind = "corpus"
    maker = 4
    data: Data
    seed: int

    def settings(self) -> Any:
        """Return the data section without the fields that leave the corpus as it is.

        The content of the files that it names belongs to it.
        """
        later = {"engine", "document_tokens"}  # where it is made; how the dataset is cut
        section = self.data.model_dump(mode="json", exclude=later)
        settings = {"data": section, "seed": self.seed}
        files = data_digests(self.data)
        if files:
            settings["files"] = files
        return settings

    def make(self, work: Work) -> Manifest:
        """Read, filter, split and mix the sources."""
        return write_corpus(self.data, self.seed, work.run / self.name, work.inputs)


@dataclass(frozen=True)
class TokenizerStage(Stage):
    """A tokenizer learned from the corpus, or the vocabulary of a pretrained model."""

    kind = "tokenizer"
    maker = 2
    tokenizer: Tokenizer
    vocabulary_digest: str  # of the pretrained model's; "" for a learned tokenizer

    def settings(self) -> Any:
        """Return the vocabulary's size, or the pretrained model's vocabulary and its cut."""
        section = self.tokenizer
        if not self.vocabulary_digest:
            return {"tokenizer": section.model_dump(include={"vocab_size"})}
        pretrained = {
            "start": self.vocabulary_digest,
            "trim": section.trim,
            "pieces": section.pieces,
        }
        return {"tokenizer": pretrained}

    def make(self, work: Work) -> Manifest:
        """Learn the tokenizer, or take it over."""
        folder = work.run / self.name
        return write_tokenizer(self.tokenizer, work.run / CORPUS, folder, work.inputs)


@dataclass(frozen=True)
class DatasetStage(Stage):
    """The corpus as packed token shards."""

    kind = "dataset"
    maker = 1
    document_tokens: int  # most tokens of a piece of plain text
    engine: Literal["local", "ray"]

    def settings(self) -> Any:
        """Return how long documents are cut; the engine changes no byte."""
        return {"document_tokens": self.document_tokens}

    def make(self, work: Work) -> Manifest:
        """Encode the corpus."""
        return write_dataset(
            work.run / CORPUS,
            work.run / TOKENIZER,
            work.run / self.name,
            work.inputs,
            self.document_tokens,
            engine=self.engine,
        )
