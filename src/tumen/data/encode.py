"""Make the artifacts tokenizer and dataset from a corpus.

dataset    rows -> tokens, in many processes -> shards; a plain text is cut into pieces that fit a
           row of training
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tumen.core.artifact import Manifest, verify, writing
from tumen.data import on_ray
from tumen.data.filters import text_key
from tumen.data.prepare import OFFSETS_FILE, Engine, Row, read_corpus, row_text
from tumen.data.shards import PackedExamples, pack_examples, write_packed
from tumen.data.tokenizer import (
    Codec,
    PretrainedCodec,
    UnigramCodec,
    UnigramVocabulary,
    Vocabulary,
    read_vocabulary,
    shifted_piece,
    train_tokenizer,
)
from tumen.data.workers import chunks, core_count, map_in_order
from tumen.formats import vocabulary_digest
from tumen.language import Ontology, parse, units
from tumen.recipe import Tokenizer

SAMPLE_BYTES = 50_000_000  # of a corpus are enough to train a tokenizer on


def write_tokenizer(section: Tokenizer, corpus: Path, folder: Path, inputs: str) -> Manifest:
    """Train a tokenizer on the training rows, or take that of a pretrained model.

    Of a corpus above `SAMPLE_BYTES`, hashes pick a share of the rows. A pretrained vocabulary
    (`section.init_from`) loses the tokens that no row needs, if it is trimmed.

    Raises:
        InputError: the pretrained model's vocabulary cannot be read.
    """
    parents = [verify(corpus, "corpus").digest]
    ontology = Ontology.load(corpus)
    if section.init_from:
        vocabulary = _vocabulary(section, corpus, ontology)
        codec: Codec
        if isinstance(vocabulary, UnigramVocabulary):
            codec = UnigramCodec(vocabulary, ontology)
        else:
            codec = PretrainedCodec(vocabulary, ontology)
        parents.append(vocabulary_digest(Path(section.init_from)))
    else:
        texts = list(_sample(corpus))
        codec = Codec(train_tokenizer(texts, section.vocab_size, ontology), ontology)
    with writing(folder, "tokenizer", inputs, parents, {"vocab": codec.vocab}) as stage:
        codec.save(stage)
    return verify(folder, "tokenizer")


def _sample(corpus: Path) -> Iterator[str]:
    """Yield the texts that a tokenizer is trained on."""
    share = SAMPLE_BYTES / max(1, (corpus / "train.jsonl").stat().st_size)
    for row in read_corpus(corpus, "train"):
        text = row_text(row)
        if share >= 1 or text_key(text) < share * 2**64:
            yield text


def _vocabulary(
    section: Tokenizer, corpus: Path, ontology: Ontology
) -> Vocabulary | UnigramVocabulary:
    """Return a pretrained model's vocabulary for the rows.

    It is trimmed to what the rows need, and gets own tokens for pieces of actions, if the section
    says so.
    """
    found = read_vocabulary(Path(section.init_from or ""))
    structure = ontology.structure_tokens()
    if section.trim is not None:
        rows = chain(read_corpus(corpus, "train"), read_corpus(corpus, "validation"))
        cuts = chain.from_iterable(map(_cut, rows))
        needed = chain(structure, map(shifted_piece, structure), cuts)
        found = found.trimmed(needed, section.trim)
    # An encoder writes no action, so its vocabulary has no words to write one with.
    needs_tokens = section.pieces or isinstance(found, UnigramVocabulary)
    return found.with_tokens(structure) if needs_tokens else found


def _cut(row: Row) -> list[str]:
    """Return the parts of a row that are encoded apart.

    They are a whole text, or the units of a sentence; an action copies no other units.
    """
    return [row["text"]] if "text" in row else units(row["sentence"])


def write_dataset(
    corpus: Path,
    tokenizer: Path,
    folder: Path,
    inputs: str,
    document_tokens: int = 512,
    *,
    engine: Engine = "local",
    workers: int = 0,
) -> Manifest:
    """Write shards of the training and validation split.

    The bytes are the same for any engine and number of workers.

    Args:
        corpus: corpus artifact.
        tokenizer: tokenizer artifact.
        folder: the new artifact.
        inputs: what it is made for, see core.artifact.
        document_tokens: most tokens of a piece of plain text.
        engine: where rows are encoded.
        workers: processes that encode; 0: one for each core.
    """
    parents = [verify(corpus, "corpus").digest, verify(tokenizer, "tokenizer").digest]
    encoder = Encoder(tokenizer, document_tokens)
    facts: dict[str, Any] = {}
    with writing(folder, "dataset", inputs, parents, facts) as stage:
        for split in ("train", "validation"):
            encoded = _encoded(encoder, corpus / f"{split}.jsonl", engine, workers)
            facts[f"{split}_tokens"] = write_packed(stage / split, encoded)
        if (corpus / OFFSETS_FILE).exists():
            offsets = json.loads((corpus / OFFSETS_FILE).read_text("utf-8"))
            tokens = {encoder.codec.intent(name): nats for name, nats in offsets.items()}
            (stage / OFFSETS_FILE).write_text(json.dumps(tokens, indent=1), "utf-8")
    return verify(folder, "dataset")


def _encoded(
    encoder: Encoder, path: Path, engine: Engine, workers: int
) -> Iterator[PackedExamples]:
    if engine == "ray":
        yield from on_ray.encode_lines(path, encoder)
        return
    with open(path, encoding="utf-8") as lines:
        pairs = ((None, some) for some in chunks(lines))
        for _, part in map_in_order(encoder, pairs, workers or core_count()):
            yield part


class Encoder:
    """Encodes lines of a corpus to tokens.

    It can be sent to other processes; each reads the tokenizer once.

    Args:
        tokenizer: tokenizer artifact.
        document_tokens: most tokens of a piece of plain text.
    """

    def __init__(self, tokenizer: Path, document_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.document_tokens = document_tokens
        self.codec = Codec.load(tokenizer)

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Path, int]]:
        return Encoder, (self.tokenizer, self.document_tokens)

    def __call__(self, lines: Sequence[str]) -> PackedExamples:
        """Return the examples of some lines."""
        pairs = (pair for line in lines for pair in self.pairs(json.loads(line)))
        return pack_examples(pairs, self.codec.vocab)

    def pairs(self, row: Row) -> Iterator[tuple[list[int], list[int]]]:
        """Yield (prompt, answer) of a sentence, or of each piece of a text.

        A piece has the begin token as its prompt, so that all of it is trained on.
        """
        codec = self.codec
        if "text" not in row:
            action = parse(json.dumps(row["action"]), codec.ontology)
            yield codec.prompt(row["sentence"]), codec.answer(action)
            return
        ids = codec.document(row["text"])
        # One token is the prompt's.
        room = self.document_tokens - 1
        for at in range(0, len(ids), room):
            yield [codec.begin], ids[at : at + room]
