"""Sources of sentences: generated homes, or a team's own files and data sets. All give the same `Corpus`."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tumen.core import lifetime
from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.core.table import named
from tumen.data.sources.generated_homes import GeneratedHome, generate, invented, is_held
from tumen.data.sources.languages import language_data
from tumen.data.sources.lexicon import lexicon
from tumen.data.sources.read import read_rows, read_text, text_files
from tumen.data.sources.templates import (
    Example,
    Speaker,
    Template,
    copied_words,
    literals,
    load_templates,
    phrases,
    skip_words,
)
from tumen.language import HOME, JOINT, NONE, Action, Ontology, normalise, parse
from tumen.recipe import Data

SENTENCES_A_HOME, EXAM_HOMES = (
    25,
    6,
)  # many homes: names that return often are learnt by heart instead of copied
SMALL_INTENT = 5  # intents with fewer templates keep all of them for training
SPLIT_NAMES = {
    "train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "exam": "exam", "test": "exam",
}  # fmt: skip
POLITE = 0.15  # share of home commands that get one of Home Assistant's skip words


@dataclass
class Corpus:
    """Examples by split and what they may mean; the homes that exam sentences speak of, and what their words are worth.

    `texts` are documents without an action; their split is decided by their hash. They may be more than memory holds.
    """

    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    exam: list[Example] = field(default_factory=list)
    homes: list[Mapping[str, Any]] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)
    texts: Iterable[str] = ()
    ontology: Ontology = HOME

    def leave_out(self, intents: Sequence[str]) -> None:
        """Take away intents and all that says them.

        Raises:
            InputError: an intent that is not there.
        """
        self._refuse_unknown(intents, "exclude_intents")
        self._change(lambda example: None if example.action.intent in intents else example)
        self.ontology = self.ontology.without(intents)

    def mean_nothing(self, intents: Sequence[str]) -> None:
        """Let some intents mean `none`, and take all others away.

        Raises:
            InputError: an intent that is not there.
        """
        self._refuse_unknown(intents, "relabel_none")
        kept = {*intents, NONE}
        self._change(
            lambda e: (
                replace(e, action=Action(NONE, e.action.lang)) if e.action.intent in kept else None
            )
        )
        self.ontology = Ontology(languages=self.ontology.languages, intents={NONE: ()})

    def _refuse_unknown(self, intents: Sequence[str], field: str) -> None:
        if unknown := set(intents) - set(self.ontology.intents):
            known = ", ".join(self.ontology.intents)
            raise InputError(
                f"data.mix.{field}: {min(unknown)!r} is no intent of this source; it has {known}"
            )

    def _change(self, change: Callable[[Example], Example | None]) -> None:
        for split in dict.fromkeys(SPLIT_NAMES.values()):
            setattr(
                self, split, [new for example in getattr(self, split) if (new := change(example))]
            )


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
        workers = min(len(section.languages), len(os.sched_getaffinity(0)))
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, lifetime.die_with_parent, (os.getpid(),)) as pool:
            parts = list(
                pool.map(
                    _language,
                    [section] * len(section.languages),
                    section.languages,
                    [seed] * len(section.languages),
                )
            )
        corpus = Corpus(values=lexicon(section.languages))
        for part in parts:
            corpus.exam += [
                replace(e, home=e.home + len(corpus.homes)) if e.home >= 0 else e for e in part.exam
            ]
            corpus.homes += part.homes
        taken = {example.sentence for example in corpus.exam}
        for part in parts:
            for split in ("validation", "train"):
                fresh = [
                    example for example in getattr(part, split) if example.sentence not in taken
                ]
                getattr(corpus, split).extend(fresh)
                taken |= {example.sentence for example in fresh}
        random.Random(seed).shuffle(corpus.train)
        return corpus


def _language(section: Data, lang: str, seed: int) -> Corpus:
    """One language of `HomeSource`, in a process of its own."""
    corpus, share, rng = Corpus(), 1 / len(section.languages), random.Random(f"{seed} {lang}")
    trained, held = split_templates(load_templates(lang), section.held_out_templates)
    exam_homes = [
        generate(rng, lang, section.home_entities, section.held_out_names, exam=True)
        for _ in range(EXAM_HOMES)
    ]
    fillers = _fillers(rng, lang)
    corpus.exam = list(
        _sentences(
            rng,
            held or trained,
            exam_homes,
            fillers,
            section.eval_sentences,
            section.not_home,
            (),
            exam=True,
        )
    )
    corpus.homes = [home.tree for home in exam_homes]
    wanted = round((section.sentences + section.validation) * share)
    homes = [
        generate(rng, lang, section.home_entities, section.held_out_names, exam=False)
        for _ in range(max(6, wanted // SENTENCES_A_HOME))
    ]
    said = list(
        _sentences(rng, trained, homes, fillers, wanted, section.not_home, skip_words(lang))
    )
    cut = round(section.validation * share)
    corpus.validation, corpus.train = said[:cut], said[cut:]
    return corpus


def split_templates(
    templates: Sequence[Template], hold: float
) -> tuple[list[Template], list[Template]]:
    """(trained, held back): whole templates, by hash.

    A template is held back only if other templates of the same meaning teach each of its words: what is examined is a new
    combination of words and names, not a word that nobody could know. Small intents keep all of theirs.
    """
    sizes = Counter((template.intent, template.topic) for template in templates)
    held = {
        t.id for t in templates if is_held(t.id, hold) and sizes[t.intent, t.topic] >= SMALL_INTENT
    }
    taught: dict[Any, set[str]] = defaultdict(set)
    for template in templates:
        if template.id not in held:
            taught[_meaning(template)] |= literals(template)
    for template in templates:
        if template.id in held and not literals(template) <= taught[_meaning(template)]:
            held.discard(template.id)
            taught[_meaning(template)] |= literals(template)
    return [t for t in templates if t.id not in held], [t for t in templates if t.id in held]


def _meaning(template: Template) -> Any:
    return template.intent, tuple(sorted(template.fixed.items()))


def _fillers(rng: random.Random, lang: str) -> dict[str, list[str]]:
    """Words for Home Assistant's wildcards, from the lists of our phrases; half of them are invented."""
    lists = phrases(lang)["lists"]
    wildcards = {
        "message": "message", "search_query": "query", "zone": "zone", "timer_name": "timer_name", "timer_command": "command",
        "shopping_list_item": "item", "todo_list_item": "todo_item",
    }  # fmt: skip
    filled = {}
    for wildcard, name in wildcards.items():
        words = [str(word) for word in lists.get(name, ())]
        filled[wildcard] = words + [invented(rng, lang) for _ in range(max(20, len(words)))]
    return filled


def _sentences(
    rng: random.Random, templates: Sequence[Template], homes: Sequence[GeneratedHome], fillers: Mapping[str, Sequence[str]],
    wanted: int, not_home: float, polite: Sequence[str], exam: bool = False,
) -> Iterator[Example]:  # fmt: skip
    """Distinct sentences: intents by the root of their number of templates, templates evenly."""
    groups: dict[tuple[str, str], list[Template]] = defaultdict(list)
    for template in templates:
        groups[template.intent, template.topic].append(template)
    sides = [[key for key in groups if (key[0] == "none") == flag] for flag in (False, True)]
    weights = [[len(groups[key]) ** 0.5 for key in side] for side in sides]
    seen: set[str] = set()
    tries = 0
    while wanted and tries < 60 * wanted + 1000:
        tries += 1
        side = 1 if sides[1] and rng.random() < not_home else 0
        key = rng.choices(sides[side], weights[side])[0]
        number = rng.randrange(len(homes))
        example = Speaker(rng, homes[number], fillers).say(rng.choice(groups[key]))
        if example and polite and not side and rng.random() < POLITE:
            example = _politely(rng, example, polite)
        if example is None or example.sentence in seen:
            continue
        seen.add(example.sentence)
        wanted -= 1
        yield replace(example, home=number if exam else -1)


def _politely(rng: random.Random, example: Example, words: Sequence[str]) -> Example:
    """The same command with a word that changes nothing before or after it."""
    word = rng.choice(words)
    parts = (word, example.sentence) if rng.random() < 0.7 else (example.sentence, word)
    said = language_data(example.action.lang).join(*parts)
    try:
        return Example(normalise(said), example.action, example.template)
    except InputError:  # one word too many
        return example


class FileSource:
    """A team's own file: JSONL (.gz too), TSV or Parquet with the columns `sentence` and `action` (JSON), and maybe `split`."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        if not section.path:
            raise InputError(
                "data.path is missing: name the JSONL, TSV or Parquet file that data.source = 'file' reads"
            )
        return corpus_of(read_rows(Path(section.path)), section, section.path)


class HubSource:
    """A Hugging Face data set by name, read by the `datasets` library, with the same columns as a file."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        if not section.path:
            raise InputError(
                "data.path is missing: name the data set that data.source = 'hub' loads"
            )
        datasets = need("datasets", "data.source = 'hub'")
        rows = (
            {**row, "split": split}
            for split, part in datasets.load_dataset(section.path).items()
            for row in part
        )
        return corpus_of(rows, section, section.path)


def corpus_of(rows: Iterable[Mapping[str, Any]], section: Data, where: str) -> Corpus:
    """A corpus from rows with `sentence` and `action`; rows without `split` are split by hash (5% exam, 5% validation).

    Raises:
        InputError: names the first row that is no example.
    """
    corpus = Corpus(values=lexicon(section.languages))
    for number, row in enumerate(rows, start=1):
        try:
            sentence = normalise(str(row["sentence"]))
            action = parse(
                row["action"] if isinstance(row["action"], str) else json.dumps(row["action"])
            )
            example = Example(sentence, copied(action, sentence, HOME), f"{where}:{number}")
            split = SPLIT_NAMES[str(row["split"])] if row.get("split") else _split_by_hash(sentence)
        except KeyError as error:
            raise InputError(
                f"{where}, row {number}: no {error}; a row has a sentence, an action as JSON, maybe a split"
            ) from None
        except InputError as error:
            raise InputError(f"{where}, row {number}: {error}") from None
        getattr(corpus, split).append(example)
    if not corpus.train:
        raise InputError(f"{where}: no training rows in it")
    return corpus


def copied(action: Action, sentence: str, ontology: Ontology) -> Action:
    """The action with its free words as they stand in the sentence.

    Raises:
        InputError: words that are not in the sentence, so no model could copy them.
    """
    slots = dict(action.slots)
    for slot in slots.keys() - ontology.closed.keys():
        slots[slot] = JOINT.join(_copied_run(slot, run, sentence) for run in action.runs(slot))
    return Action(action.intent, action.lang, slots)


def _copied_run(slot: str, run: str, sentence: str) -> str:
    found = copied_words(sentence, run)
    if found is None:
        raise InputError(
            f"{slot} {run!r} is not in the sentence {sentence!r}; free words are copied from it"
        )
    return found


def _split_by_hash(sentence: str) -> str:
    if is_held(sentence, 0.05):
        return "exam"
    return "validation" if is_held(f"validation {sentence}", 0.05) else "train"


class TextSource:
    """Plain texts, see `read_text`: no actions, every token is learnt."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        if not section.path:
            raise InputError(
                "data.path is missing: name the file, folder or glob that data.source = 'text' reads"
            )
        text_files(section.path)
        return Corpus(texts=Texts(section.path))


@dataclass(frozen=True)
class Texts:
    """The documents of a path, read anew each time."""

    path: str

    def __iter__(self) -> Iterator[str]:
        return read_text(self.path)


SOURCES = {
    "home": "tumen.data.sources.source:HomeSource",
    "file": "tumen.data.sources.source:FileSource",
    "hub": "tumen.data.sources.source:HubSource",
    "text": "tumen.data.sources.source:TextSource",
    "labelled": "tumen.data.sources.labelled:LabelledSource",
    "slurp": "tumen.data.sources.labelled:SlurpSource",
    "clinc": "tumen.data.sources.labelled:ClincSource",
    "snips": "tumen.data.sources.labelled:SnipsSource",
}


def source_of(name: str) -> Source:
    """The source a recipe names: one of `SOURCES` or `"package.module:Class"`.

    Raises:
        InputError: no such source.
    """
    source: Source = named(name, SOURCES, "data.source", InputError)()
    return source
