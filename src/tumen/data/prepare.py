"""Three makers of artifacts: sources -> corpus -> tokeniser -> dataset. All of them stream, but for sources that hold sentences.

corpus     rows of every source -> filters -> split -> mix -> train.jsonl, validation.jsonl, exam.jsonl; homes.json, values.json;
           offsets.json if people ask some intents more often than the rows do
dataset    rows -> tokens, in many processes -> shards; a plain text is cut into pieces that fit a row of training
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from tumen.core.artifact import Manifest, verify, writing
from tumen.core.errors import InputError
from tumen.data import on_ray
from tumen.data.filters import RowFilter, eval_keys, filter_rows, folded, text_key
from tumen.data.mix import interleave
from tumen.data.shards import PackedExamples, pack_examples, write_packed
from tumen.data.sources.generated_homes import is_held
from tumen.data.sources.read import missing_file, read_sentences
from tumen.data.sources.source import Corpus, source_of
from tumen.data.sources.templates import Example
from tumen.data.swap import swapped
from tumen.data.tokenizer import (
    Codec,
    PretrainedCodec,
    Vocabulary,
    read_vocabulary,
    shifted_piece,
    train_tokenizer,
)
from tumen.data.workers import chunks, core_count, map_in_order
from tumen.formats import vocabulary_digest
from tumen.language import Ontology, parse, units
from tumen.recipe import Data, Part, Tokenizer

SPLITS = ("train", "validation", "exam")
HELD_TEXTS = 0.05  # share of plain texts kept for validation, at most data.validation of them
OFFSETS_FILE = "offsets.json"
LEARNT_BYTES = 50_000_000  # of a corpus are enough to learn a tokeniser from
Row = Mapping[str, Any]
Engine = Literal["local", "ray"]


def write_corpus(section: Data, seed: int, folder: Path, inputs: str) -> Manifest:
    """Rows of all sources, filtered, split and interleave; exam homes; the lexicon of values; the ontology.

    The facts say how many rows each filter removed.

    Raises:
        InputError: a source, row or exam that cannot be read; or nothing is left to train on.
    """
    parts = section.parts()
    corpora = [_corpus(section, part, seed) for part in parts]
    ontology = _joined(corpora, parts)
    exam = [_row(example, corpus) for corpus in corpora for example in corpus.exam]
    removed: Counter[str] = Counter()
    row_filter = RowFilter(
        section.passed(),
        eval_keys(chain(map(_text, exam), *map(read_sentences, map(Path, section.held_out)))),
    )
    facts: dict[str, Any] = {}
    with writing(folder, "corpus", inputs, [], facts) as stage:
        rows = (
            _on_ray(section, row_filter, removed)
            if section.engine == "ray"
            else _local(corpora, row_filter, removed)
        )
        swapper = partial(swapped, ontology=ontology, seed=seed, row_filter=row_filter)
        told, intents = _write_splits(rows, exam, parts, section.validation, stage, swapper)
        if not told["train"].rows:
            raise InputError(
                f"{_names(parts)}: no training rows left; removed: {dict(removed) or 'none'}"
            )
        facts |= _facts(told) | (
            {"removed": dict(sorted(removed.items()))} if removed or row_filter.filters else {}
        )
        homes = [home for corpus in corpora for home in corpus.homes]
        (stage / "homes.json").write_text(json.dumps(homes, ensure_ascii=False), "utf-8")
        values = {lang: slots for corpus in corpora for lang, slots in corpus.values.items()}
        (stage / "values.json").write_text(
            json.dumps(values, ensure_ascii=False, indent=1), "utf-8"
        )
        ontology.save(stage)
        if any(part.class_priors for part in parts):
            offsets = {
                name: nats
                for part, had in zip(parts, intents, strict=True)
                for name, nats in _offsets(part, had).items()
            }
            (stage / OFFSETS_FILE).write_text(json.dumps(offsets, indent=1), "utf-8")
    return verify(folder, "corpus")


def _corpus(section: Data, part: Part, seed: int) -> Corpus:
    """What one source of the section gives."""
    alone = section.model_copy(update={"mix": (), **part.own()})
    corpus = source_of(part.source).corpus(alone, seed)
    if part.exclude_intents:
        corpus.leave_out(part.exclude_intents)
    if part.relabel_none:
        corpus.mean_nothing(part.relabel_none)
    return corpus


def _joined(corpora: Sequence[Corpus], parts: Sequence[Part]) -> Ontology:
    try:
        return Ontology.joined(corpus.ontology for corpus in corpora)
    except ValueError as error:
        raise InputError(f"{_names(parts)}: {error}") from None


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(part.path or part.source for part in parts)


def _row(example: Example, corpus: Corpus) -> dict[str, Any]:
    return {
        "sentence": example.sentence,
        "action": json.loads(example.action.json(corpus.ontology)),
        "template": example.template,
        "home": example.home,
    }


def _text(row: Row) -> str:
    return str(row["text"] if "text" in row else row["sentence"])


Swapper = Callable[..., Iterator[Row]]
Placed = tuple[
    int, str, Row
]  # (number of the source, split or "" when the text's hash decides, row)


def _local(
    corpora: Sequence[Corpus], row_filter: RowFilter, removed: Counter[str]
) -> Iterator[Placed]:
    """What passes, source by source."""
    return filter_rows(
        chain.from_iterable(map(_placed, range(len(corpora)), corpora)),
        lambda one: _text(one[2]),
        row_filter,
        removed,
        core_count(),
    )


def _placed(part: int, corpus: Corpus) -> Iterator[Placed]:
    """Validation goes first, so that a training row that repeats it is the one to go."""
    for split, examples in (("validation", corpus.validation), ("train", corpus.train)):
        yield from ((part, split, _row(example, corpus)) for example in examples)
    yield from ((part, "", {"text": text}) for text in corpus.texts)


def _on_ray(section: Data, row_filter: RowFilter, removed: Counter[str]) -> Iterator[Placed]:
    paths = [part.path or "" for part in section.parts()]
    return (
        (part, "", {"text": text}) for part, text in on_ray.filter_texts(paths, row_filter, removed)
    )


def _offsets(part: Part, had: Counter[str]) -> dict[str, float]:
    """What a source's rows say too often of an intent: ln of its share of them over its share of `part.class_priors`; one row is
    added to each on both sides, so that what nobody asked there is rare and not impossible.

    Added to the intents' logits in the loss alone, it leaves a model whose own logits have the other shares (logit adjustment:
    Menon et al. 2021, arXiv:2007.07314, equation 10, here from one prior to another instead of to a flat one).
    """
    if not part.class_priors:
        return {}
    source = source_of(part.source)
    read = getattr(source, "read", None)
    if read is None:
        raise InputError(
            f"data.mix.class_priors: source {part.source!r} reads no labelled file; leave it out"
        )
    if not Path(part.class_priors).exists():
        raise missing_file(
            part.class_priors, "data.mix.class_priors", getattr(source, "origin", "")
        )
    asked = Counter(row.intent for row in read(part.class_priors) if row.intent in had)
    if not asked:
        raise InputError(
            f"{part.class_priors}: has no intent of {part.path or part.source}; data.mix.class_priors needs the same labels"
        )
    return {
        name: round(math.log(_share(name, had, had) / _share(name, asked, had)), 4) for name in had
    }


def _share(name: str, counts: Counter[str], among: Sized) -> float:
    return (counts[name] + 1) / (counts.total() + len(among))


class _Lines:
    """A JSONL file that is being written, and what is told of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.characters = path, 0, 0
        self.languages: Counter[str] = Counter()
        self.intents: Counter[str] = Counter()
        self.templates: set[str] = set()

    def __enter__(self) -> _Lines:
        self.file = open(self.path, "w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, row: Row) -> None:
        """One row more."""
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows += 1
        self.characters += len(_text(row))
        if "action" in row:
            self.languages[row["action"]["lang"]] += 1
            self.intents[row["action"]["intent"]] += 1
            self.templates.add(row["template"])


def _write_splits(
    rows: Iterable[Placed],
    exam: Iterable[Row],
    parts: Sequence[Part],
    most: int,
    stage: Path,
    swapper: Swapper,
) -> tuple[dict[str, _Lines], list[Counter[str]]]:
    """Write every split; the training rows of several sources, or of several passes, are written apart first, then interleave.

    Returns what was written of every split, and how often each source's own training rows have each intent.
    """
    told = {split: _Lines(stage / f"{split}.jsonl") for split in SPLITS}
    mix = len(parts) > 1 or parts[0].epochs > 1
    apart = (
        [_Lines(stage / f"{number}.jsonl") for number in range(len(parts))]
        if mix
        else [told["train"]]
    )
    with ExitStack() as files:
        for lines in {*told.values(), *apart} - ({told["train"]} if mix else set()):
            files.enter_context(lines)
        for row in exam:
            told["exam"].add(row)
        for part, split, row in rows:
            held = split == "validation" or (
                not split and told["validation"].rows < most and _is_validation(_text(row))
            )
            (told["validation"] if held else apart[part]).add(row)
    if mix:
        _mix(apart, parts, told["train"], swapper)
    return told, [lines.intents for lines in apart]


def _is_validation(text: str) -> bool:
    """By the hash of the folded text, so that no copy stands on the other side."""
    return is_held(f"validation {folded(text)}", HELD_TEXTS)


def _mix(apart: Sequence[_Lines], parts: Sequence[Part], train: _Lines, swapper: Swapper) -> None:
    for lines, part in zip(apart, parts, strict=True):
        if not lines.rows:
            raise InputError(
                f"data.mix: {part.path or part.source} has no training rows left; leave it out, or see data.filters"
            )
    streams = [
        partial(_pass, lines.path, part.slot_swap, swapper)
        for lines, part in zip(apart, parts, strict=True)
    ]
    with train:
        for row in interleave(
            streams,
            [part.weight for part in parts],
            [part.epochs for part in parts],
            lambda row: len(_text(row)),
        ):
            train.add(row)
    for lines in apart:
        lines.path.unlink()


def _pass(path: Path, share: float, swapper: Swapper, number: int) -> Iterator[Row]:
    """One pass over a source's rows; from the second on, a share of them with other words."""
    return swapper(_read(path), number=number, share=share) if share and number else _read(path)


def _facts(told: Mapping[str, _Lines]) -> dict[str, Any]:
    facts: dict[str, Any] = {split: told[split].rows for split in SPLITS}
    facts["train_characters"] = told["train"].characters
    for split in ("train", "exam"):
        facts[f"{split}_languages"] = dict(told[split].languages)
        facts[f"{split}_templates"] = len(told[split].templates)
    return facts


def read_corpus(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split: sentence, action (dict), template, home; or text alone."""
    return _read(folder / f"{split}.jsonl")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_tokenizer(section: Tokenizer, corpus: Path, folder: Path, inputs: str) -> Manifest:
    """A tokeniser learnt from the training rows; of more than `LEARNT_BYTES`, from a share of them that their hashes pick.

    Or that of an outside model (`section.init_from`), without the tokens that no row needs if it is trimmed.

    Raises:
        InputError: the outside model has no vocabulary that is read here.
    """
    parents, ontology = [verify(corpus, "corpus").digest], Ontology.load(corpus)
    if section.init_from:
        codec: Codec = PretrainedCodec(_vocabulary(section, corpus, ontology), ontology)
        parents.append(vocabulary_digest(Path(section.init_from)))
    else:
        share = LEARNT_BYTES / max(1, (corpus / "train.jsonl").stat().st_size)
        texts = (_text(row) for row in read_corpus(corpus, "train"))
        learnt = [text for text in texts if share >= 1 or text_key(text) < share * 2**64]
        codec = Codec(train_tokenizer(learnt, section.vocab_size, ontology), ontology)
    with writing(folder, "tokenizer", inputs, parents, {"vocab": codec.vocab}) as stage:
        codec.save(stage)
    return verify(folder, "tokenizer")


def _vocabulary(section: Tokenizer, corpus: Path, ontology: Ontology) -> Vocabulary:
    """The vocabulary of an outside model, trimmed to what the rows need, with tokens of our own for pieces of actions."""
    found, structure = read_vocabulary(Path(section.init_from or "")), ontology.structure_tokens()
    if section.trim is not None:
        rows = chain(read_corpus(corpus, "train"), read_corpus(corpus, "validation"))
        found = found.trimmed(
            chain(structure, map(shifted_piece, structure), chain.from_iterable(map(_cut, rows))),
            section.trim,
        )
    return found.with_tokens(structure) if section.pieces else found


def _cut(row: Row) -> list[str]:
    """What of a row is encoded at once: a whole text, or the units of a sentence (an action copies no others)."""
    return [row["text"]] if "text" in row else units(row["sentence"])


def write_dataset(
    corpus: Path, tokenizer: Path, folder: Path, inputs: str,
    document_tokens: int = 512, engine: Engine = "local", workers: int = 0,
) -> Manifest:  # fmt: skip
    """PackedExamples shards of the training and validation split: the same bytes for any engine and number of workers.

    Args:
        document_tokens: most tokens of a piece of plain text.
        workers: processes that encode; 0: as many as there are core_count.
    """
    parents = [verify(corpus, "corpus").digest, verify(tokenizer, "tokenizer").digest]
    encoder = Encoder(tokenizer, document_tokens)
    facts: dict[str, Any] = {}
    with writing(folder, "dataset", inputs, parents, facts) as stage:
        for split in ("train", "validation"):
            facts[f"{split}_tokens"] = write_packed(
                stage / split, _encoded(encoder, corpus / f"{split}.jsonl", engine, workers)
            )
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
        yield from (
            part
            for _, part in map_in_order(
                encoder, ((None, some) for some in chunks(lines)), workers or core_count()
            )
        )


class Encoder:
    """Lines of a corpus to pack_examples tokens; can be sent to other processes, where it reads the tokeniser once.

    Args:
        tokenizer: an artifact.
        document_tokens: most tokens of a piece of plain text.
    """

    def __init__(self, tokenizer: Path, document_tokens: int) -> None:
        self.tokenizer, self.document_tokens = tokenizer, document_tokens
        self.codec = Codec.load(tokenizer)

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Path, int]]:
        return Encoder, (self.tokenizer, self.document_tokens)

    def __call__(self, lines: Sequence[str]) -> PackedExamples:
        """The examples of some lines."""
        return pack_examples(
            (pair for line in lines for pair in self.pairs(json.loads(line))), self.codec.vocab
        )

    def pairs(self, row: Row) -> Iterator[tuple[list[int], list[int]]]:
        """(prompt, answer) of a sentence; of a text one pair a piece, with the begin token as its prompt, so that all is learnt."""
        if "text" not in row:
            yield (
                self.codec.prompt(row["sentence"]),
                self.codec.answer(parse(json.dumps(row["action"]), self.codec.ontology)),
            )
            return
        ids, room = self.codec.document(row["text"]), self.document_tokens - 1
        yield from (([self.codec.begin], ids[at : at + room]) for at in range(0, len(ids), room))
