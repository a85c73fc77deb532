"""Sources of sentences: generated homes, or a team's own files and data sets. All give the same `Corpus`."""

from __future__ import annotations

import csv
import importlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tumen.core.action import Action, normalise, parse
from tumen.core.errors import InputError
from tumen.core.recipe import Data
from tumen.data.homes import GeneratedHome, generate, invented, is_held
from tumen.data.lexicon import lexicon
from tumen.data.templates import Example, Speaker, Template, load_templates, phrases, skip_words

TRAINING_HOMES, EXAM_HOMES = 24, 6  # a language
SMALL_INTENT = 5  # intents with fewer templates keep all of them for training
POLITE = 0.15  # share of home commands that get one of Home Assistant's skip words


@dataclass
class Corpus:
    """Examples by split, the homes that exam sentences speak of, and what their words are worth."""

    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    exam: list[Example] = field(default_factory=list)
    homes: list[Mapping[str, Any]] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Anything that turns a recipe's data section into a corpus. Same section and seed, same corpus."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        """All splits.

        Raises:
            InputError: the source is missing or damaged; says where.
        """
        ...


class HomeSource:
    """Commands to generated homes in the recipe's languages, and sentences that are not for a home."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        corpus = Corpus(values=lexicon(section.languages))
        share = 1 / len(section.languages)
        for lang in section.languages:
            rng = random.Random(f"{seed} {lang}")
            trained, held = split_templates(load_templates(lang), section.hold_templates)
            fillers = _fillers(rng, lang)
            homes = [generate(rng, lang, section.home_entities, section.hold_names, exam=False) for _ in range(TRAINING_HOMES)]
            wanted = round((section.sentences + section.validation) * share)
            said = list(_sentences(rng, trained, homes, fillers, wanted, section.not_home, skip_words(lang)))
            corpus.validation += said[: round(section.validation * share)]
            corpus.train += said[round(section.validation * share) :]
            exam_homes = [generate(rng, lang, section.home_entities, section.hold_names, exam=True) for _ in range(EXAM_HOMES)]
            known = {example.sentence for example in said}
            fresh = _sentences(rng, held, exam_homes, fillers, section.exam, section.not_home, (), len(corpus.homes), known)
            corpus.exam += fresh
            corpus.homes += [home.tree for home in exam_homes]
        random.Random(seed).shuffle(corpus.train)
        return corpus


def split_templates(templates: Sequence[Template], hold: float) -> tuple[list[Template], list[Template]]:
    """(trained, held back): whole templates, by hash; small intents keep theirs for training."""
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for template in templates:
        sizes[template.intent, template.topic] += 1
    held = [t for t in templates if is_held(t.id, hold) and sizes[t.intent, t.topic] >= SMALL_INTENT]
    ids = {template.id for template in held}
    return [template for template in templates if template.id not in ids], held


def _fillers(rng: random.Random, lang: str) -> dict[str, list[str]]:
    """Words for Home Assistant's wildcards, from the lists of our phrases; one in five is invented."""
    lists = phrases(lang)["lists"]
    wildcards = {
        "message": "message", "search_query": "query", "zone": "zone", "timer_name": "timer_name", "timer_command": "command",
        "shopping_list_item": "item", "todo_list_item": "todo_item",
    }  # fmt: skip
    filled = {}
    for wildcard, name in wildcards.items():
        words = [str(word) for word in lists.get(name, ())]
        filled[wildcard] = words + [invented(rng, lang) for _ in range(max(2, len(words) // 5))]
    return filled


def _sentences(
    rng: random.Random, templates: Sequence[Template], homes: Sequence[GeneratedHome], fillers: Mapping[str, Sequence[str]],
    wanted: int, not_home: float, polite: Sequence[str], first_home: int = -1, known: Iterable[str] = (),
) -> Iterator[Example]:  # fmt: skip
    """Distinct sentences: intents by the root of their number of templates, templates evenly."""
    groups: dict[tuple[str, str], list[Template]] = defaultdict(list)
    for template in templates:
        groups[template.intent, template.topic].append(template)
    sides = [[key for key in groups if (key[0] == "none") == flag] for flag in (False, True)]
    weights = [[len(groups[key]) ** 0.5 for key in side] for side in sides]
    seen, tries = set(known), 0
    while wanted and tries < 60 * wanted + 1000:
        tries += 1
        side = 1 if sides[1] and rng.random() < not_home else 0
        key = rng.choices(sides[side], weights[side])[0]
        number = rng.randrange(len(homes))
        example = Speaker(rng, homes[number], fillers).say(rng.choice(groups[key]))
        if example is None or example.sentence in seen:
            continue
        if polite and not side and rng.random() < POLITE:
            example = _politely(rng, example, polite)
        seen.add(example.sentence)
        wanted -= 1
        home = first_home + number if first_home >= 0 else -1
        yield Example(example.sentence, example.action, example.template, home)


def _politely(rng: random.Random, example: Example, words: Sequence[str]) -> Example:
    """The same command with a word that changes nothing before or after it."""
    word = rng.choice(words)
    joint = "" if example.action.lang == "zh" else " "
    parts = (word, example.sentence) if rng.random() < 0.7 else (example.sentence, word)
    return Example(normalise(joint.join(parts)), example.action, example.template)


class FileSource:
    """A team's own file: JSONL, TSV or Parquet with the columns `sentence` and `action` (JSON), and maybe `split`."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        if not section.path:
            raise InputError("data.path is missing: name the JSONL, TSV or Parquet file that data.source = 'file' reads")
        return corpus_of(_rows(Path(section.path)), section, section.path)


class HubSource:
    """A Hugging Face data set by name, read by the `datasets` library, with the same columns as a file."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        if not section.path:
            raise InputError("data.path is missing: name the data set that data.source = 'hub' loads")
        try:
            import datasets
        except ImportError:
            raise InputError("data.source = 'hub' needs the extra: pip install 'tumen[hub]'") from None
        rows = (
            {**row, "split": split} for split, part in datasets.load_dataset(section.path).items() for row in part
        )
        return corpus_of(rows, section, section.path)


def corpus_of(rows: Iterable[Mapping[str, Any]], section: Data, where: str) -> Corpus:
    """A corpus from rows with `sentence` and `action`; rows without `split` are split by hash (5% exam, 5% validation).

    Raises:
        InputError: names the first row that is no example.
    """
    corpus = Corpus(values=lexicon(section.languages))
    names = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "exam": "exam", "test": "exam"}
    for number, row in enumerate(rows, start=1):
        try:
            action = row["action"] if isinstance(row["action"], str) else json.dumps(row["action"])
            example = Example(normalise(str(row["sentence"])), parse(action), f"{where}:{number}")
        except (KeyError, InputError) as error:
            raise InputError(f"{where}, row {number}: {error}; a row has a sentence and an action as JSON") from None
        split = names.get(str(row.get("split", "")), "") or _split_by_hash(example.sentence)
        getattr(corpus, split).append(example)
    if not corpus.train:
        raise InputError(f"{where}: no training rows in it")
    return corpus


def _split_by_hash(sentence: str) -> str:
    if is_held(sentence, 0.05):
        return "exam"
    return "validation" if is_held(f"validation {sentence}", 0.05) else "train"


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; data.path is read from where the command runs")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
        return
    try:
        with open(path, encoding="utf-8", newline="") as lines:
            if path.suffix == ".tsv":
                yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _json_row(line, path, number)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from None


def _json_row(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise InputError(f"{path}, line {number}: no JSON; the file may be cut short") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: a JSON object is needed")
    return row


SOURCES = {
    "home": "tumen.data.source:HomeSource",
    "file": "tumen.data.source:FileSource",
    "hub": "tumen.data.source:HubSource",
}


def source_of(name: str) -> Source:
    """The source a recipe names: one of `SOURCES` or `"package.module:Class"`.

    Raises:
        InputError: no such source.
    """
    module, colon, attribute = SOURCES.get(name, name).partition(":")
    if not colon:
        raise InputError(f"data.source {name!r} is unknown; known: {', '.join(SOURCES)}, or 'package.module:Class'")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"data.source {name!r} cannot be imported: {error}") from None
    source: Source = found()
    return source


def action_of(row: Mapping[str, Any]) -> Action:
    """The action of a corpus row."""
    return parse(str(row["action"]))
