"""Slot swap: exchange a slot's words for those of another row with the same intent.

`wake me at six` and `wake me on friday at ten` also teach `wake me at ten`: the model memorizes
fewer words and learns slots from their context (mention replacement: Dai and Adel 2020, arXiv
2010.11683).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tumen.core.errors import InputError
from tumen.data.filters import RowFilter
from tumen.data.sources.source import copied
from tumen.language import JOINT, Action, Ontology, normalise

Row = Mapping[str, Any]
# (intent, slot) -> runs of words, each as often as it occurs
Words = Mapping[tuple[str, str], list[str]]


def swapped(
    rows: Iterable[Row],
    *,
    share: float,
    number: int,
    seed: int,
    ontology: Ontology,
    row_filter: RowFilter,
) -> Iterator[Row]:
    """Yield the rows in their order, some of them with other words.

    The same arguments give the same rows. A changed sentence that a filter drops (it is in the eval
    suite) is not used; the row stays as it was.

    Args:
        rows: of one source.
        share: of the rows with slots that are changed.
        number: of the pass; each pass draws anew.
        seed: of the draws.
        ontology: says which slots hold copied words.
        row_filter: what a changed row must pass.
    """
    rows = list(rows)
    rng = random.Random(f"{seed} swap {number}")
    words = words_of(rows, ontology)
    for row in rows:
        other = None
        if "action" in row and rng.random() < share:
            other = _other(row, words, rng, ontology)
        if other is not None:
            fault, _ = row_filter.check(other["sentence"])
            if fault:
                other = None
        yield row if other is None else other


def words_of(rows: Iterable[Row], ontology: Ontology) -> Words:
    """Return the runs of words in each copied slot of each intent."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for slot, runs in _runs(row, ontology):
            found[row["action"]["intent"], slot] += runs
    return found


def _runs(row: Row, ontology: Ontology) -> Iterator[tuple[str, list[str]]]:
    for slot, words in row.get("action", {}).items():
        if slot in ontology.copied:
            yield slot, str(words).split(JOINT)


def _other(row: Row, words: Words, rng: random.Random, ontology: Ontology) -> Row | None:
    """Return the row with other words; None where a run occurs twice or inside another word."""
    sentence = f" {row['sentence']} "
    slots = dict(row["action"])
    lang = slots.pop("lang")
    intent = slots.pop("intent")
    for slot, runs in _runs(row, ontology):
        said = []
        for run in runs:
            new = rng.choice(words[intent, slot])
            places = _places(run, sentence)
            # Elsewhere in the sentence the same words may mean something else.
            if len(places) != 1:
                return None
            start = places[0]
            sentence = sentence[:start] + new + sentence[start + len(run) :]
            said.append(new)
        slots[slot] = JOINT.join(said)
    try:
        text = normalise(sentence)
        action = copied(Action(intent, lang, slots), text, ontology)
    except InputError:  # too long now, or words that a later swap replaced
        return None
    changed = {"lang": lang, "intent": intent, **action.slots}
    return {**row, "sentence": text, "action": changed}


def _places(run: str, sentence: str) -> list[int]:
    """Return where a run of whole words begins; overlapping places count."""
    pattern = rf"(?=(?<!\w)({re.escape(run)})(?!\w))"
    return [match.start(1) for match in re.finditer(pattern, sentence)]
