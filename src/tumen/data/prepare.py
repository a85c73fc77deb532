"""Make the artifact corpus from the sources of a recipe.

Rows stream, except those of sources that hold sentences in memory.

corpus     rows of every source -> filters -> split -> mix -> train.jsonl, validation.jsonl,
           eval.jsonl; homes.json, values.json; offsets.json if intents have other frequencies in
           use than in the rows
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
from tumen.data.filters import RowFilter, eval_keys, filter_rows, folded
from tumen.data.mix import interleave
from tumen.data.sources.generated_homes import is_held
from tumen.data.sources.read import missing_file, read_sentences
from tumen.data.sources.source import Corpus, source_of
from tumen.data.sources.templates import Example
from tumen.data.swap import swapped
from tumen.data.workers import core_count
from tumen.language import Ontology
from tumen.recipe import Data, Part

SPLITS = ("train", "validation", "eval")
HELD_TEXTS = 0.05  # share of plain texts kept for validation, at most data.validation of them
OFFSETS_FILE = "offsets.json"
Row = Mapping[str, Any]
Engine = Literal["local", "ray"]
Swapper = Callable[..., Iterator[Row]]
# (number of the source, split or "" when the text's hash decides, row)
Placed = tuple[int, str, Row]


def write_corpus(section: Data, seed: int, folder: Path, inputs: str) -> Manifest:
    """Write the corpus: rows of all sources, filtered, split and mixed.

    With it go the homes of the eval suite, the lexicon of values and the ontology. The facts count
    the rows that each filter removed.

    Raises:
        InputError: a source, row or eval file cannot be read; or no training row is left.
    """
    parts = section.parts()
    corpora = [_corpus(section, part, seed) for part in parts]
    ontology = _joined(corpora, parts)
    eval_rows = [_row(example, corpus) for corpus in corpora for example in corpus.eval]
    row_filter = _row_filter(section, eval_rows)
    removed: Counter[str] = Counter()
    facts: dict[str, Any] = {}
    with writing(folder, "corpus", inputs, [], facts) as stage:
        if section.engine == "ray":
            rows = _on_ray(section, row_filter, removed)
        else:
            rows = _local(corpora, row_filter, removed)
        swapper = partial(swapped, ontology=ontology, seed=seed, row_filter=row_filter)
        splits = _Splits(parts, section.validation, stage)
        intents = splits.write(rows, eval_rows, swapper)
        if not splits.lines["train"].rows:
            counts = dict(removed) or "none"
            raise InputError(f"{_names(parts)}: no training rows left; removed: {counts}")
        facts |= splits.facts()
        if removed or row_filter.filters:
            facts["removed"] = dict(sorted(removed.items()))
        skipped = sum(corpus.skipped for corpus in corpora)
        if skipped:
            facts["skipped"] = skipped
        _write_lexicon(stage, corpora)
        ontology.save(stage)
        if any(part.class_priors for part in parts):
            _write_offsets(stage, parts, intents)
    return verify(folder, "corpus")


def _write_offsets(stage: Path, parts: Sequence[Part], intents: Sequence[Counter[str]]) -> None:
    """Write the logit adjustments of all sources."""
    offsets: dict[str, float] = {}
    for part, had in zip(parts, intents, strict=True):
        offsets |= _offsets(part, had)
    (stage / OFFSETS_FILE).write_text(json.dumps(offsets, indent=1), "utf-8")


def _row_filter(section: Data, eval_rows: Iterable[Row]) -> RowFilter:
    """Return the filter of training rows, which drops what overlaps with evaluation texts."""
    held_out = [read_sentences(Path(path)) for path in section.held_out]
    evaluated = chain(map(row_text, eval_rows), *held_out)
    return RowFilter(section.passed(), eval_keys(evaluated))


def _write_lexicon(stage: Path, corpora: Sequence[Corpus]) -> None:
    """Write the homes of the eval suite and the values of copied words."""
    homes = [home for corpus in corpora for home in corpus.homes]
    (stage / "homes.json").write_text(json.dumps(homes, ensure_ascii=False), "utf-8")
    values: dict[str, Any] = {}
    for corpus in corpora:
        values |= corpus.values
    text = json.dumps(values, ensure_ascii=False, indent=1)
    (stage / "values.json").write_text(text, "utf-8")


def _corpus(section: Data, part: Part, seed: int) -> Corpus:
    """Return the corpus of one source of the section."""
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


def _name(part: Part) -> str:
    return part.path or part.source


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(_name(part) for part in parts)


def _row(example: Example, corpus: Corpus) -> dict[str, Any]:
    return {
        "sentence": example.sentence,
        "action": json.loads(example.action.json(corpus.ontology)),
        "template": example.template,
        "home": example.home,
    }


def row_text(row: Row) -> str:
    """Return the text of a row, or its sentence."""
    return str(row["text"] if "text" in row else row["sentence"])


def _local(
    corpora: Sequence[Corpus], row_filter: RowFilter, removed: Counter[str]
) -> Iterator[Placed]:
    """Yield the rows that pass, source by source."""

    def text(placed: Placed) -> str:
        _, _, row = placed
        return row_text(row)

    rows = chain.from_iterable(_placed(part, corpus) for part, corpus in enumerate(corpora))
    return filter_rows(rows, text, row_filter, removed, core_count())


def _placed(part: int, corpus: Corpus) -> Iterator[Placed]:
    """Yield validation rows first, so that of two copies the training row is dropped."""
    for split, examples in (("validation", corpus.validation), ("train", corpus.train)):
        for example in examples:
            yield part, split, _row(example, corpus)
    for text in corpus.texts:
        yield part, "", {"text": text}


def _on_ray(section: Data, row_filter: RowFilter, removed: Counter[str]) -> Iterator[Placed]:
    paths = [part.path or "" for part in section.parts()]
    for part, text in on_ray.filter_texts(paths, row_filter, removed):
        yield part, "", {"text": text}


def _offsets(part: Part, had: Counter[str]) -> dict[str, float]:
    """Return the logit adjustment of each intent of a source.

    It is ln of the intent's share of the source's rows over its share of `part.class_priors`. One
    row is added to each count on both sides, so that an intent without a row there is rare, not
    impossible.

    Added to the intents' logits in the loss alone, it leaves a model whose own logits fit the
    priors (Menon et al. 2021, arXiv 2007.07314, equation 10, here from one prior to another instead
    of to a flat one).

    Args:
        part: the source.
        had: how often its training rows have each intent.
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
        origin = getattr(source, "origin", "")
        raise missing_file(part.class_priors, "data.mix.class_priors", origin)
    asked = Counter(row.intent for row in read(part.class_priors) if row.intent in had)
    if not asked:
        raise InputError(
            f"{part.class_priors}: has no intent of {_name(part)}; "
            "data.mix.class_priors needs the same labels"
        )
    offsets = {}
    for name in had:
        ratio = _share(name, had, had) / _share(name, asked, had)
        offsets[name] = round(math.log(ratio), 4)
    return offsets


def _share(name: str, counts: Counter[str], among: Sized) -> float:
    return (counts[name] + 1) / (counts.total() + len(among))


class _Lines:
    """A JSONL file that is being written, and counts of its rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.characters = 0
        self.languages: Counter[str] = Counter()
        self.intents: Counter[str] = Counter()
        self.templates: set[str] = set()

    def __enter__(self) -> _Lines:
        self.file = open(self.path, "w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, row: Row) -> None:
        """Write one more row."""
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows += 1
        self.characters += len(row_text(row))
        if "action" in row:
            self.languages[row["action"]["lang"]] += 1
            self.intents[row["action"]["intent"]] += 1
            self.templates.add(row["template"])


class _Splits:
    """The files of all splits.

    Training rows of several sources, or of several passes, go to a file for each source first; they
    are mixed at the end.

    Attributes:
        parts: the sources.
        most: plain texts that validation takes.
        lines: of every split, by name.
        apart: the file of training rows of each source.
    """

    def __init__(self, parts: Sequence[Part], most: int, stage: Path) -> None:
        self.parts = parts
        self.most = most
        self.lines = {split: _Lines(stage / f"{split}.jsonl") for split in SPLITS}
        self.mixes = len(parts) > 1 or parts[0].epochs > 1
        self.apart = [self.lines["train"]]
        if self.mixes:
            self.apart = [_Lines(stage / f"{number}.jsonl") for number in range(len(parts))]

    def write(
        self, rows: Iterable[Placed], eval_rows: Iterable[Row], swapper: Swapper
    ) -> list[Counter[str]]:
        """Write all rows; return how often each source's own training rows have each intent."""
        held = [self.lines["validation"], self.lines["eval"]]
        with ExitStack() as files:
            for lines in (*held, *self.apart):
                files.enter_context(lines)
            for row in eval_rows:
                self.lines["eval"].add(row)
            for part, split, row in rows:
                validates = self._validates(split, row)
                lines = self.lines["validation"] if validates else self.apart[part]
                lines.add(row)
        if self.mixes:
            _mix(self.apart, self.parts, self.lines["train"], swapper)
        return [lines.intents for lines in self.apart]

    def _validates(self, split: str, row: Row) -> bool:
        if split:
            return split == "validation"
        return self.lines["validation"].rows < self.most and _is_validation(row_text(row))

    def facts(self) -> dict[str, Any]:
        """Return the counts for the manifest."""
        facts: dict[str, Any] = {split: self.lines[split].rows for split in SPLITS}
        facts["train_characters"] = self.lines["train"].characters
        for split in ("train", "eval"):
            facts[f"{split}_languages"] = dict(self.lines[split].languages)
            facts[f"{split}_templates"] = len(self.lines[split].templates)
        return facts


def _is_validation(text: str) -> bool:
    """Decide by the hash of the folded text, so that all copies are on one side."""
    return is_held(f"validation {folded(text)}", HELD_TEXTS)


def _mix(apart: Sequence[_Lines], parts: Sequence[Part], train: _Lines, swapper: Swapper) -> None:
    streams = []
    for lines, part in zip(apart, parts, strict=True):
        if not lines.rows:
            raise InputError(
                f"data.mix: {_name(part)} has no training rows left; "
                "leave it out, or see data.filters"
            )
        streams.append(partial(_pass, lines.path, part.slot_swap, swapper))
    weights = [part.weight for part in parts]
    epochs = [part.epochs for part in parts]
    # The row furthest behind its share comes next, so weights hold at any place.
    with train:
        for row in interleave(streams, weights, epochs, lambda row: len(row_text(row))):
            train.add(row)
    for lines in apart:
        lines.path.unlink()


def _pass(path: Path, share: float, swapper: Swapper, number: int) -> Iterator[Row]:
    """Read a source's rows once; from the second pass on, a share of them with other words."""
    rows = _read(path)
    if share and number:
        return swapper(rows, number=number, share=share)
    return rows


def read_corpus(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split: sentence, action (dict), template, home; or text alone."""
    path = folder / f"{split}.jsonl"
    if split == "eval" and not path.exists():
        path = folder / "exam.jsonl"  # of corpora made before the split was renamed
    return _read(path)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
