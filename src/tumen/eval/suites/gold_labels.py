"""Cases under a data set's own labels: what a bundle writes is compared with the set's gold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tumen.data.sources import LabelledSentence
from tumen.eval.eval_case import EvalCase, case_sentence
from tumen.eval.suites.slu_f1 import Entity
from tumen.language import Action

SlotsRight = Callable[[Action], bool]
Translate = Callable[[Action], Action]


@dataclass(frozen=True)
class GoldLabels:
    """What a row of a data set says about its sentence.

    Attributes:
        intent: in the set's own names.
        entities: (type, words) of each.
        tokens: of the row; empty for sets without tokens.
    """

    intent: str
    entities: tuple[Entity, ...] = ()
    tokens: tuple[str, ...] = ()


def labelled_case(
    row: LabelledSentence,
    group: str,
    gold: GoldLabels,
    slots_right: SlotsRight,
    translate: Translate | None = None,
) -> EvalCase:
    """Return the case of a row.

    Args:
        row: as read from the data set.
        group: row of the scorecard that counts it.
        gold: its labels.
        slots_right: whether a prediction with the right intent has the right slots.
        translate: returns a prediction in the set's own names.
    """

    def grade(given: Action) -> tuple[bool, bool]:
        if translate is not None:
            given = translate(given)
        intent_right = given.intent == gold.intent
        return intent_right, intent_right and slots_right(given)

    return EvalCase(case_sentence(row.sentence), None, None, (group,), grade, gold)


def without_spaces(words: str) -> str:
    """Return words in the form in which they are compared with the set's."""
    return "".join(words.split())
