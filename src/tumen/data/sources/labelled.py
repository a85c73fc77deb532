"""Sentences with labels of their own: a data set's intents and slots become the ontology.

labelled   JSONL (.gz too), TSV or Parquet: sentence, intent, slots {name: words or [words, ...]},
and
           optionally lang and split
slurp      JSONL of SLURP (Bastianelli et al. 2020, EMNLP): scenario_action and entities; or of
HWU64
           (Liu et al. 2019, IWSDS), the collection it was made from: scenario, action, annotation
clinc      JSON of CLINC150 (Larson et al. 2019, EMNLP-IJCNLP): {split: [[sentence, intent], ...]};
           `oos` becomes `none`
snips      folder of SNIPS 2017-06 (Coucke et al. 2018): train_<Intent>_full.json

The eval suites use the same readers of rows, so that training and evaluation agree on what a row
says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tumen.core.errors import InputError
from tumen.data.sources.generated_homes import rank
from tumen.data.sources.lexicon import lexicon
from tumen.data.sources.read import missing_file, read_rows
from tumen.data.sources.source import SPLIT_NAMES, Corpus, copied
from tumen.data.sources.templates import Example
from tumen.language import JOINT, NONE, Action, Ontology, normalise
from tumen.recipe import Data

ID_MARK = "#"  # before the id of a row in the name of its example
OUT_OF_SCOPE = "oos"  # CLINC150's label for sentences of no intent
ENTITY = re.compile(r"\[\s*([^\[\]:]+?)\s*:\s*([^\[\]]*?)\s*\]")  # HWU64: [place_name : new york]


@dataclass(frozen=True)
class LabelledSentence:
    """One row of a data set.

    Attributes:
        sentence: as it was said.
        intent: its label.
        slots: (name, words) in the order of the sentence.
        lang: its language.
        split: its split, "" if the set has none.
        id: the same in all languages of a set; "" if the set has none.
    """

    sentence: str
    intent: str
    slots: list[tuple[str, str]] = field(default_factory=list)
    lang: str = "en"
    split: str = ""
    id: str = ""


def read_labelled(path: str) -> Iterator[LabelledSentence]:
    """Yield the rows of a team's own file.

    Raises:
        InputError: names the first row that is not a labelled sentence.
    """
    for number, row in enumerate(read_rows(Path(path)), start=1):
        try:
            yield _labelled(row)
        except (KeyError, AttributeError, ValueError) as error:
            raise InputError(
                f"{path}, row {number}: no labelled sentence ({error}); "
                "it needs sentence, intent and slots"
            ) from None


def _labelled(row: Mapping[str, Any]) -> LabelledSentence:
    slots = row.get("slots") or {}
    if isinstance(slots, str):
        slots = json.loads(slots)
    pairs = []
    for slot, words in slots.items():
        if words is not None:
            runs = words if isinstance(words, list) else [words]
            pairs += [(str(slot), str(run)) for run in runs]
    sentence = str(row["sentence"])
    lower = sentence.lower()
    pairs.sort(key=lambda pair: lower.find(pair[1].lower()))
    return LabelledSentence(
        sentence,
        str(row["intent"]),
        pairs,
        lang=str(row.get("lang") or "en"),
        split=str(row.get("split") or ""),
    )


def read_slurp(path: str) -> Iterator[LabelledSentence]:
    """Return the rows of SLURP or HWU64; see `read_slurp_rows`."""
    return (read for _, read in read_slurp_rows(path))


def read_slurp_rows(
    path: str, broken: list[str] | None = None
) -> Iterator[tuple[Mapping[str, Any], LabelledSentence]]:
    """Yield the rows of SLURP or HWU64, raw and as labelled sentences.

    The label is scenario_action: SLURP's own field `intent` is wrong on some rows.

    Args:
        path: of the file.
        broken: takes one line for each row of another form; None: the first one raises.

    Raises:
        InputError: names the first row of another form.
    """
    for number, row in enumerate(read_rows(Path(path), broken), start=1):
        try:
            labelled = _slurp_sentence(row)
        except (KeyError, TypeError, IndexError) as error:
            why = f"{path}, row {number}: no row of SLURP or HWU64 ({type(error).__name__} {error})"
            if broken is None:
                raise InputError(why) from None
            broken.append(why)
            continue
        yield row, labelled


def _slurp_sentence(row: Mapping[str, Any]) -> LabelledSentence:
    intent = f"{row['scenario']}_{row['action']}"
    if "annotation" in row:
        annotated = str(row["annotation"])
        sentence = ENTITY.sub(r"\2", annotated)
        return LabelledSentence(sentence, intent, ENTITY.findall(annotated))
    return LabelledSentence(str(row["sentence"]), intent, list(_slurp_entities(row)))


def _slurp_entities(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (type, words) of a SLURP row's entities, in the order of the sentence."""
    tokens = [str(token["surface"]) for token in row["tokens"]]
    for entity in sorted(row["entities"], key=lambda entity: min(entity["span"], default=0)):
        words = " ".join(tokens[at] for at in entity["span"])
        # The tokens `mom 's` are one word of the sentence.
        yield str(entity["type"]), re.sub(r" (?='s\b)", "", words)


def read_clinc(path: str) -> Iterator[LabelledSentence]:
    """Yield the rows of CLINC150; sentences out of scope have the intent `none`.

    Raises:
        InputError: the file is missing or not CLINC150's.
    """
    for split, rows in _json(Path(path)).items():
        side = "eval"
        if split.endswith("train"):
            side = "train"
        elif split.endswith("val"):
            side = "validation"
        try:
            for sentence, intent in rows:
                label = NONE if intent == OUT_OF_SCOPE else str(intent)
                yield LabelledSentence(str(sentence), label, split=side)
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: {split!r} holds no [sentence, intent] pairs as CLINC150 does"
            ) from None


def read_snips(path: str) -> Iterator[LabelledSentence]:
    """Yield the rows of all `*.json` of a SNIPS folder, or of one such file.

    Raises:
        InputError: the folder has none, or a file is not SNIPS'.
    """
    folder = Path(path)
    files = sorted(folder.glob("*.json")) if folder.is_dir() else [folder]
    if not files:
        raise InputError(
            f"{path}: no *.json in it; name a folder of SNIPS 2017-06 "
            "such as the one with train_GetWeather_full.json"
        )
    for file in files:
        for intent, rows in _json(file).items():
            try:
                for row in rows:
                    yield _snips_sentence(row["data"], str(intent))
            except (KeyError, TypeError) as error:
                raise InputError(
                    f"{file}: no file of SNIPS 2017-06 ({type(error).__name__} {error})"
                ) from None


def _snips_sentence(parts: Iterable[Mapping[str, Any]], intent: str) -> LabelledSentence:
    sentence = ""
    pairs = []
    for part in parts:
        text = str(part["text"])
        sentence += text
        if "entity" in part:
            pairs.append((str(part["entity"]), text))
    return LabelledSentence(sentence, intent, pairs)


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:  # three files of SNIPS are Latin-1
            text = raw.decode("latin-1")
        tree = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: no JSON; the file may be cut short") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a JSON object is needed")
    return tree


def ontology_of(rows: Iterable[LabelledSentence]) -> Ontology:
    """Return the ontology of the rows.

    It has intents and their slots in the order of their first row, grouped by the part of an
    intent's name before the first `_`. Slots are written in the order of the sentence, so that a
    model reads once from left to right.

    Raises:
        InputError: a name that a grammar cannot hold.
    """
    # Dicts with values of None are sets that keep their order.
    intents: dict[str, dict[str, None]] = {}
    groups: dict[str, dict[str, None]] = {}
    languages: dict[str, None] = {}
    several: dict[str, None] = {}  # slots that occur more than once in a row
    for row in rows:
        languages[row.lang] = None
        group, _, _ = row.intent.partition("_")
        groups.setdefault(group, {})[row.intent] = None
        slots = [slot for slot, _ in row.slots]
        intents.setdefault(row.intent, {}).update(dict.fromkeys(slots))
        several.update(_repeated(slots))
    try:
        return Ontology(
            languages=tuple(languages),
            intents={intent: tuple(slots) for intent, slots in intents.items()},
            spoken=tuple(intent for intent, slots in intents.items() if len(slots) > 1),
            several=tuple(several),
            groups={group: tuple(names) for group, names in groups.items()},
        )
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"labels: {why}") from None


def _repeated(names: Iterable[str]) -> dict[str, None]:
    """Return the names that occur more than once, in the order of their second occurrence."""
    seen: set[str] = set()
    found: dict[str, None] = {}
    for name in names:
        if name in seen:
            found[name] = None
        seen.add(name)
    return found


def action_of(row: LabelledSentence, sentence: str, ontology: Ontology) -> Action:
    """Return the row's action with its words as the normalized sentence has them.

    Raises:
        InputError: words that are not in the sentence.
    """
    slots: dict[str, str] = {}
    for slot, words in row.slots:
        run = normalise(words)
        slots[slot] = f"{slots[slot]}{JOINT}{run}" if slot in slots else run
    return copied(Action(row.intent, row.lang, slots), sentence, ontology)


class LabelledSource:
    """A data set with its own labels.

    Of the rows without a split, `data.eval_sentences` go to the eval suite and `data.validation` to
    validation. Rows with the same id stay together: they say the same in several languages.
    """

    read = staticmethod(read_labelled)
    origin = ""  # where the data set is published, for the error of a missing file

    def rows(self, section: Data) -> list[LabelledSentence]:
        """Return the rows that a recipe asks for.

        Raises:
            InputError: `data.path` is missing, or there is no such file.
        """
        if not section.path:
            raise InputError(
                f"data.path is missing: data.source = {section.source!r} reads a file that you have"
            )
        if not Path(section.path).exists():
            raise missing_file(section.path, "data.path", self.origin)
        return list(self.read(section.path))

    def corpus(self, section: Data, seed: int) -> Corpus:
        """Return all splits.

        A row whose words cannot be copied from its sentence is left out: no model could be right on
            it.
        """
        rows = self.rows(section)
        corpus = Corpus(values=lexicon(section.languages), ontology=ontology_of(rows))
        loose = _add_rows(corpus, rows, section.path or section.source)
        if not corpus.eval:
            side = loose or corpus.validation
            side.sort(key=_place_of)
            corpus.eval = _first_of(side, section.eval_sentences)
            del side[: len(corpus.eval)]
        # A set with a validation split of its own gives no more rows to it.
        held = [] if corpus.validation else _first_of(loose, section.validation)
        corpus.validation += held
        corpus.train += loose[len(held) :]
        if not corpus.train:
            raise InputError(
                f"{section.path}: {len(rows)} rows leave none for training; "
                "lower data.eval_sentences and data.validation"
            )
        return corpus


def _add_rows(corpus: Corpus, rows: Iterable[LabelledSentence], path: str) -> list[Example]:
    """Add rows to their splits; return the examples of rows without one."""
    loose: list[Example] = []
    for number, row in enumerate(rows, start=1):
        try:
            sentence = normalise(row.sentence)
            action = action_of(row, sentence, corpus.ontology)
        except InputError:
            corpus.skipped += 1
            continue
        split = getattr(corpus, SPLIT_NAMES[row.split]) if row.split else loose
        name = f"{path}{ID_MARK}{row.id}" if row.id else f"{path}:{number}"
        split.append(Example(sentence, action, name))
    return loose


def _key(example: Example) -> str:
    """Return what rows of one meaning share: their id, or else the sentence."""
    return example.template if ID_MARK in example.template else example.sentence


def _place_of(example: Example) -> int:
    """Return the place of an example in a fixed random order; those of one key stay together."""
    # Another prefix would draw other rows, and results would no longer compare.
    return rank(f"exam {_key(example)}")


def _first_of(examples: Sequence[Example], count: int) -> list[Example]:
    """Return the first examples of `count` keys, of a list where a key's examples are neighbours.

    A set of one language without ids has an example for each key.
    """
    keys: dict[str, None] = {}
    for number, example in enumerate(examples):
        keys[_key(example)] = None
        if len(keys) > count:
            return list(examples[:number])
    return list(examples)


class SlurpSource(LabelledSource):
    """SLURP or HWU64."""

    read = staticmethod(read_slurp)
    origin = (
        "https://github.com/pswietojanski/slurp or https://github.com/xliuhw/NLU-Evaluation-Data"
    )


class ClincSource(LabelledSource):
    """CLINC150."""

    read = staticmethod(read_clinc)
    origin = "https://github.com/clinc/oos-eval"


class SnipsSource(LabelledSource):
    """SNIPS 2017-06."""

    read = staticmethod(read_snips)
    origin = "https://github.com/sonos/nlu-benchmark"
