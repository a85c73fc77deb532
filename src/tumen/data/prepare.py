"""Three makers of artifacts: source -> corpus -> tokeniser -> dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tumen.core.action import parse
from tumen.core.artifact import Manifest, verify, writing
from tumen.core.recipe import Data, Tokenizer
from tumen.data.shards import write_shards
from tumen.data.source import Corpus, source_of
from tumen.data.templates import Example
from tumen.data.tokenizer import Codec, train_tokenizer

SPLITS = ("train", "validation", "exam")


def write_corpus(section: Data, seed: int, folder: Path, inputs: str) -> Manifest:
    """Sentences with their actions, split; exam homes; the lexicon of values."""
    corpus = source_of(section.source).corpus(section, seed)
    with writing(folder, "corpus", inputs, [], _facts(corpus)) as stage:
        for split in SPLITS:
            rows = getattr(corpus, split)
            with open(stage / f"{split}.jsonl", "w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(_row(example), ensure_ascii=False) + "\n" for example in rows)
        (stage / "homes.json").write_text(json.dumps(corpus.homes, ensure_ascii=False), "utf-8")
        (stage / "values.json").write_text(json.dumps(corpus.values, ensure_ascii=False, indent=1), "utf-8")
    return verify(folder, "corpus")


def _row(example: Example) -> dict[str, Any]:
    return {
        "sentence": example.sentence,
        "action": json.loads(example.action.json()),
        "template": example.template,
        "home": example.home,
    }


def _facts(corpus: Corpus) -> dict[str, Any]:
    facts: dict[str, Any] = {split: len(getattr(corpus, split)) for split in SPLITS}
    for split in ("train", "exam"):
        rows = getattr(corpus, split)
        facts[f"{split}_languages"] = dict(Counter(example.action.lang for example in rows))
        facts[f"{split}_templates"] = len({example.template for example in rows})
    return facts


def read_corpus(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split: sentence, action (dict), template, home."""
    with open(folder / f"{split}.jsonl", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_tokenizer(section: Tokenizer, corpus: Path, folder: Path, inputs: str) -> Manifest:
    """A tokeniser learnt from the training sentences."""
    parent = verify(corpus, "corpus")
    texts = [str(row["sentence"]) for row in read_corpus(corpus, "train")]
    codec = Codec(train_tokenizer(texts, section.vocab))
    with writing(folder, "tokenizer", inputs, [parent.digest], {"vocab": codec.vocab}) as stage:
        codec.save(stage)
    return verify(folder, "tokenizer")


def write_dataset(corpus: Path, tokenizer: Path, folder: Path, inputs: str) -> Manifest:
    """Packed shards of the training and validation split."""
    parents = [verify(corpus, "corpus").digest, verify(tokenizer, "tokenizer").digest]
    codec = Codec.load(tokenizer)
    facts: dict[str, Any] = {}
    with writing(folder, "dataset", inputs, parents, facts) as stage:
        for split in ("train", "validation"):
            pairs = (_encoded(codec, row) for row in read_corpus(corpus, split))
            facts[f"{split}_tokens"] = write_shards(stage / split, pairs, codec.vocab)
    return verify(folder, "dataset")


def _encoded(codec: Codec, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    action = parse(json.dumps(row["action"]))
    return codec.prompt(row["sentence"]), codec.answer(action)
