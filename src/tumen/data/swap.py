"""Other words in the same sentence: a slot's words are swapped for those of another row of the same intent.

`wake me at six` and `wake me on friday at ten` also teach `wake me at ten`: fewer words are learnt by heart, and slots by what
stands around them (mention replacement: Dai and Adel 2020, arXiv 2010.11683).
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
Words = Mapping[
    tuple[str, str], list[str]
]  # (intent, slot) -> runs of words, as often as they are said


def swapped(
    rows: Iterable[Row],
    *,
    share: float,
    number: int,
    seed: int,
    ontology: Ontology,
    row_filter: RowFilter,
) -> Iterator[Row]:
    """The rows in their order, a share of those that have slots with other words. Same arguments, same rows.

    A sentence that a filter would not let pass (it is one of the exam) stays as it was.

    Args:
        share: of the rows that are changed.
        number: of the pass; each draws anew.
    """
    rows, rng = list(rows), random.Random(f"{seed} swap {number}")
    words = words_of(rows, ontology)
    for row in rows:
        other = (
            _other(row, words, rng, ontology) if "action" in row and rng.random() < share else None
        )
        yield other if other and not row_filter.check(other["sentence"])[0] else row


def words_of(rows: Iterable[Row], ontology: Ontology) -> Words:
    """What is said in each copied slot of each intent."""
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
    """The row with other words, None where they cannot be put in: a run that stands twice, or inside another."""
    sentence, slots = f" {row['sentence']} ", dict(row["action"])
    for slot, runs in _runs(row, ontology):
        said = []
        for run in runs:
            new = rng.choice(words[row["action"]["intent"], slot])
            places = [
                match.start(1)
                for match in re.finditer(rf"(?=(?<!\w)({re.escape(run)})(?!\w))", sentence)
            ]
            if len(places) != 1:
                return None
            sentence = sentence[: places[0]] + new + sentence[places[0] + len(run) :]
            said.append(new)
        slots[slot] = JOINT.join(said)
    lang, intent = slots.pop("lang"), slots.pop("intent")
    try:
        text = normalise(sentence)
        action = copied(Action(intent, lang, slots), text, ontology)
    except InputError:  # too long now, or words that the next swap took away
        return None
    return {**row, "sentence": text, "action": {"lang": lang, "intent": intent, **action.slots}}
