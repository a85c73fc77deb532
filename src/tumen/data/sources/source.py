"""Sources of sentences: generated homes, or a team's own files and data sets."""

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

SENTENCES_A_HOME = (
    25  # few, so many homes: a name that returns often is memorized instead of copied
)
EVAL_HOMES = 6
SMALL_INTENT = 5  # intents with fewer templates keep all of them for training
LEAST_HOMES = 6
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "eval",
    "test": "eval",
    "exam": "eval",  # of files written before the split was renamed
}
POLITE = 0.15  # share of home commands that get one of Home Assistant's skip words
FIRST_POLITE = 0.7  # share of those with the word in front
HELD = 0.05  # share of rows without a split for the eval suite, and for validation
# Home Assistant's wildcards -> lists of our phrases that fill them.
WILDCARDS = {
    "message": "message",
    "search_query": "query",
    "zone": "zone",
    "timer_name": "timer_name",
    "timer_command": "command",
    "shopping_list_item": "item",
    "todo_list_item": "todo_item",
}


@dataclass
class Corpus:
    """Examples by split, and what they may mean.

    Attributes:
        train: training examples.
        validation: validation examples.
        eval: examples of the eval suite.
        homes: homes that the sentences of the eval suite speak of.
        values: what copied words are worth, by language and slot.
        texts: documents without an action, split by their hash; they may be more than memory holds.
        ontology: intents and slots.
        skipped: rows that were left out, as no model could copy their words or hold their form.
    """

    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    eval: list[Example] = field(default_factory=list)
    homes: list[Mapping[str, Any]] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)
    texts: Iterable[str] = ()
    ontology: Ontology = HOME
    skipped: int = 0

    def leave_out(self, intents: Sequence[str]) -> None:
        """Remove intents and all their examples.

        Raises:
            InputError: an intent that this source does not have.
        """
        self._refuse_unknown(intents, "exclude_intents")
        self._change(lambda example: None if example.action.intent in intents else example)
        self.ontology = self.ontology.without(intents)

    def mean_nothing(self, intents: Sequence[str]) -> None:
        """Relabel some intents as `none`, and remove all others.

        Raises:
            InputError: an intent that this source does not have.
        """
        self._refuse_unknown(intents, "relabel_none")
        kept = {*intents, NONE}

        def relabelled(example: Example) -> Example | None:
            if example.action.intent not in kept:
                return None
            return replace(example, action=Action(NONE, example.action.lang))

        self._change(relabelled)
        self.ontology = Ontology(languages=self.ontology.languages, intents={NONE: ()})

    def _refuse_unknown(self, intents: Sequence[str], field: str) -> None:
        unknown = set(intents) - set(self.ontology.intents)
        if unknown:
            known = ", ".join(self.ontology.intents)
            raise InputError(
                f"data.mix.{field}: {min(unknown)!r} is no intent of this source; it has {known}"
            )

    def _change(self, change: Callable[[Example], Example | None]) -> None:
        """Replace every example, or remove it where `change` returns None."""
        for split in dict.fromkeys(SPLIT_NAMES.values()):
            changed = [change(example) for example in getattr(self, split)]
            setattr(self, split, [example for example in changed if example])


class Source(Protocol):
    """Turns a recipe's data section into a corpus.

    The same section and seed give the same corpus.
    """

    def corpus(self, section: Data, seed: int) -> Corpus:
        """Return all splits.

        Raises:
            InputError: the source is missing or damaged; says where.
        """
        ...


class HomeSource:
    """Commands to generated homes, and sentences that are not for a home."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        """Return the sentences of all languages, each made in a process of its own."""
        languages = section.languages
        workers = min(len(languages), len(os.sched_getaffinity(0)))
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, lifetime.die_with_parent, (os.getpid(),)) as pool:
            count = len(languages)
            made = pool.map(_language, [section] * count, languages, [seed] * count)
            parts = list(made)
        corpus = _united(parts)
        corpus.values = lexicon(languages)
        random.Random(seed).shuffle(corpus.train)
        return corpus


def _united(parts: Sequence[Corpus]) -> Corpus:
    """Unite the corpora of languages; a sentence is in one split alone."""
    corpus = Corpus()
    for part in parts:
        _add_eval_suite(corpus, part)
    taken = {example.sentence for example in corpus.eval}
    for part in parts:
        # Validation goes first: a sentence that is in both stays there.
        for split in ("validation", "train"):
            examples = getattr(part, split)
            fresh = [example for example in examples if example.sentence not in taken]
            getattr(corpus, split).extend(fresh)
            taken |= {example.sentence for example in fresh}
    return corpus


def _add_eval_suite(corpus: Corpus, part: Corpus) -> None:
    """Add the eval suite of one language; its homes get the next numbers."""
    first = len(corpus.homes)
    for example in part.eval:
        has_home = example.home >= 0
        corpus.eval.append(replace(example, home=example.home + first) if has_home else example)
    corpus.homes += part.homes


def _language(section: Data, lang: str, seed: int) -> Corpus:
    """Make one language of `HomeSource`."""
    corpus = Corpus()
    share = 1 / len(section.languages)
    rng = random.Random(f"{seed} {lang}")
    trained, held = split_templates(load_templates(lang), section.held_out_templates)

    def home(held_out: bool) -> GeneratedHome:
        return generate(rng, lang, section.home_entities, section.held_out_names, held_out=held_out)

    eval_homes = [home(held_out=True) for _ in range(EVAL_HOMES)]
    fillers = _fillers(rng, lang)
    eval_sampler = _Sampler(
        rng, held or trained, eval_homes, fillers, section.not_home, keep_home=True
    )
    corpus.eval = list(eval_sampler.sentences(section.eval_sentences))
    corpus.homes = [home.tree for home in eval_homes]
    wanted = round((section.sentences + section.validation) * share)
    homes = [home(held_out=False) for _ in range(max(LEAST_HOMES, wanted // SENTENCES_A_HOME))]
    polite = skip_words(lang)
    sampler = _Sampler(rng, trained, homes, fillers, section.not_home, polite)
    said = list(sampler.sentences(wanted))
    cut = round(section.validation * share)
    corpus.validation = said[:cut]
    corpus.train = said[cut:]
    return corpus


def split_templates(
    templates: Sequence[Template], hold: float
) -> tuple[list[Template], list[Template]]:
    """Split whole templates by hash; return (trained, held out).

    A template is held out only if trained templates of the same meaning have each of its words: the
    eval suite tests new combinations of words and names, not unknown words. Small intents keep all
    of their templates.
    """
    held = _held_by_hash(templates, hold)
    taught: dict[Any, set[str]] = defaultdict(set)
    for template in templates:
        if template.id not in held:
            taught[_meaning(template)] |= literals(template)
    for template in templates:
        words = literals(template)
        if template.id in held and not words <= taught[_meaning(template)]:
            held.discard(template.id)
            taught[_meaning(template)] |= words
    trained = [template for template in templates if template.id not in held]
    return trained, [template for template in templates if template.id in held]


def _held_by_hash(templates: Sequence[Template], hold: float) -> set[str]:
    """Return the ids that the hash holds out, of intents that are large enough."""
    sizes = Counter((template.intent, template.topic) for template in templates)
    held = set()
    for template in templates:
        large = sizes[template.intent, template.topic] >= SMALL_INTENT
        if large and is_held(template.id, hold):
            held.add(template.id)
    return held


def _meaning(template: Template) -> Any:
    return template.intent, tuple(sorted(template.fixed.items()))


def _fillers(rng: random.Random, lang: str) -> dict[str, list[str]]:
    """Return words for Home Assistant's wildcards: listed ones and as many invented ones."""
    lists = phrases(lang)["lists"]
    filled = {}
    for wildcard, name in WILDCARDS.items():
        words = [str(word) for word in lists.get(name, ())]
        made = [invented(rng, lang) for _ in range(max(20, len(words)))]
        filled[wildcard] = words + made
    return filled


Group = tuple[str, str]  # an intent and a topic


@dataclass(frozen=True)
class _Sampler:
    """Draws distinct sentences.

    Attributes:
        rng: the only source of chance.
        templates: drawn evenly within an intent.
        homes: drawn evenly.
        fillers: words for wildcards.
        not_home: share of sentences that are not for a home.
        polite: words that may stand before or after a command.
        keep_home: whether examples keep the number of their home.
    """

    rng: random.Random
    templates: Sequence[Template]
    homes: Sequence[GeneratedHome]
    fillers: Mapping[str, Sequence[str]]
    not_home: float
    polite: Sequence[str] = ()
    keep_home: bool = False

    def sentences(self, wanted: int) -> Iterator[Example]:
        """Yield `wanted` sentences; fewer if the templates do not give so many.

        Intents are drawn by the square root of their number of templates.
        """
        groups: dict[Group, list[Template]] = defaultdict(list)
        for template in self.templates:
            groups[template.intent, template.topic].append(template)
        weights = {key: len(members) ** 0.5 for key, members in groups.items()}
        home = {key: weight for key, weight in weights.items() if key[0] != NONE}
        other = {key: weight for key, weight in weights.items() if key[0] == NONE}
        seen: set[str] = set()
        tries = 0
        while wanted and tries < 60 * wanted + 1000:
            tries += 1
            is_other = bool(other) and self.rng.random() < self.not_home
            side = other if is_other else home
            key = self.rng.choices(list(side), list(side.values()))[0]
            example = self._draw(groups[key])
            if example is None or example.sentence in seen:
                continue
            seen.add(example.sentence)
            wanted -= 1
            yield example

    def _draw(self, templates: Sequence[Template]) -> Example | None:
        """Draw a home, a template and a sentence; None when the home lacks such a device."""
        rng = self.rng
        number = rng.randrange(len(self.homes))
        speaker = Speaker(rng, self.homes[number], self.fillers)
        template = rng.choice(templates)
        example = speaker.say(template)
        if example is None:
            return None
        if self.polite and template.intent != NONE and rng.random() < POLITE:
            example = _politely(rng, example, self.polite)
        return replace(example, home=number if self.keep_home else -1)


def _politely(rng: random.Random, example: Example, words: Sequence[str]) -> Example:
    """Return the same command with a word before or after it that does not change it."""
    word = rng.choice(words)
    parts = (example.sentence, word)
    if rng.random() < FIRST_POLITE:
        parts = (word, example.sentence)
    said = language_data(example.action.lang).join(*parts)
    try:
        return Example(normalise(said), example.action, example.template)
    except InputError:  # one word too many
        return example


class FileSource:
    """A team's own file: JSONL (.gz too), TSV or Parquet.

    Its columns are `sentence`, `action` (JSON) and optionally `split`.
    """

    def corpus(self, section: Data, seed: int) -> Corpus:
        """Return the file's rows."""
        if not section.path:
            raise InputError(
                "data.path is missing: name the JSONL, TSV or Parquet file "
                "that data.source = 'file' reads"
            )
        return corpus_of(read_rows(Path(section.path)), section, section.path)


class HubSource:
    """A Hugging Face data set by name, read by the `datasets` library; its columns are a file's."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        """Return the rows of all splits of the data set."""
        if not section.path:
            raise InputError(
                "data.path is missing: name the data set that data.source = 'hub' loads"
            )
        datasets = need("datasets", "data.source = 'hub'")
        splits = datasets.load_dataset(section.path)
        rows = ({**row, "split": split} for split, part in splits.items() for row in part)
        return corpus_of(rows, section, section.path)


def corpus_of(rows: Iterable[Mapping[str, Any]], section: Data, where: str) -> Corpus:
    """Return the corpus of rows with `sentence` and `action`.

    Rows without `split` are split by hash: 5 % for the eval suite, 5 % for validation.

    Raises:
        InputError: names the first row that is not an example.
    """
    corpus = Corpus(values=lexicon(section.languages))
    for number, row in enumerate(rows, start=1):
        try:
            example = _example(row, f"{where}:{number}")
            split = _split_by_hash(example.sentence)
            if row.get("split"):
                split = SPLIT_NAMES[str(row["split"])]
        except KeyError as error:
            raise InputError(
                f"{where}, row {number}: no {error}; "
                "a row has a sentence, an action as JSON, maybe a split"
            ) from None
        except InputError as error:
            raise InputError(f"{where}, row {number}: {error}") from None
        getattr(corpus, split).append(example)
    if not corpus.train:
        raise InputError(f"{where}: no training rows in it")
    return corpus


def _example(row: Mapping[str, Any], name: str) -> Example:
    sentence = normalise(str(row["sentence"]))
    written = row["action"]
    if not isinstance(written, str):
        written = json.dumps(written)
    action = copied(parse(written), sentence, HOME)
    return Example(sentence, action, name)


def copied(action: Action, sentence: str, ontology: Ontology) -> Action:
    """Return the action with its free words as the sentence has them.

    Raises:
        InputError: words that are not in the sentence, so that no model could copy them.
    """
    slots = dict(action.slots)
    for slot in slots.keys() - ontology.closed.keys():
        runs = [_copied_run(slot, run, sentence) for run in action.runs(slot)]
        slots[slot] = JOINT.join(runs)
    return Action(action.intent, action.lang, slots)


def _copied_run(slot: str, run: str, sentence: str) -> str:
    found = copied_words(sentence, run)
    if found is None:
        raise InputError(
            f"{slot} {run!r} is not in the sentence {sentence!r}; free words are copied from it"
        )
    return found


def _split_by_hash(sentence: str) -> str:
    if is_held(sentence, HELD):
        return "eval"
    return "validation" if is_held(f"validation {sentence}", HELD) else "train"


class TextSource:
    """Plain texts, see `read_text`: no actions, every token is trained on."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        """Return the documents of the path, which are read later."""
        if not section.path:
            raise InputError(
                "data.path is missing: name the file, folder or glob "
                "that data.source = 'text' reads"
            )
        text_files(section.path)
        return Corpus(texts=Texts(section.path))


@dataclass(frozen=True)
class Texts:
    """The documents of a path, read again for each iteration."""

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
    "massive": "tumen.data.sources.massive_rows:MassiveSource",
    "xsid": "tumen.data.sources.task_sets:XsidSource",
    "mtop": "tumen.data.sources.task_sets:MtopSource",
    "disfl-qa": "tumen.data.sources.task_sets:DisflQaSource",
}


def source_of(name: str) -> Source:
    """Return the source that a recipe names: one of `SOURCES` or `"package.module:Class"`.

    Raises:
        InputError: there is no such source.
    """
    source: Source = named(name, SOURCES, "data.source", InputError)()
    return source
