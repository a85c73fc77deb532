"""Suite `massive`: the intent, and micro F1 of slots by type and span, over all and by locale.

Data: MASSIVE (github.com/alexa/massive, CC BY 4.0), a file or a folder in any form that the source
`massive` reads. The test rows are asked; of data without any the development rows, else all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.assistant import typed_spans
from tumen.assistant.values import Values
from tumen.data.sources import MassiveRow, read_massive_rows
from tumen.eval.eval_case import EvalCase, Prediction, case_sentence
from tumen.eval.suites.slurp import in_slurp
from tumen.eval.suites.suite import Suite
from tumen.language import Action

Span = tuple[str, int, int]
SPLITS = ("eval", "validation")  # the first that the data has is asked


@dataclass(frozen=True)
class MassiveGold:
    """What a row says about its sentence.

    Attributes:
        intent: its label.
        typed: the sentence as the row has it.
        spans: its slots, see `_trimmed`.
    """

    intent: str
    typed: str
    spans: tuple[Span, ...]

    def __str__(self) -> str:
        """Return the answer that a constant prediction would have to give."""
        return f"{self.intent} {[kind for kind, _, _ in self.spans]}"


def massive_cases(path: Path, broken: list[str] | None = None) -> Iterator[EvalCase]:
    """Yield the rows that are asked, grouped by locale.

    Args:
        path: file or folder.
        broken: takes one line for each row that is none of MASSIVE's; None: the first one raises.

    Raises:
        InputError: the file or folder is missing, or holds another form.
    """
    rows = list(read_massive_rows(str(path), broken=broken))
    splits = {row.labelled.split for row in rows}
    asked = next((split for split in SPLITS if split in splits), None)
    for row in rows:
        if asked is None or row.labelled.split == asked:
            yield _case(row)


def _case(row: MassiveRow) -> EvalCase:
    typed = row.labelled.sentence
    spans = tuple(_trimmed(typed, *span) for span in row.spans)
    gold = MassiveGold(row.labelled.intent, typed, spans)
    sentence = case_sentence(typed)

    def grade(given: Action) -> tuple[bool, bool]:
        intent_right = in_slurp(given).intent == gold.intent
        spans_right = sorted(spans_of(given, sentence, typed)) == sorted(gold.spans)
        return intent_right, intent_right and spans_right

    return EvalCase(sentence, None, None, (row.locale or row.labelled.lang,), grade, gold)


def _trimmed(typed: str, kind: str, start: int, end: int) -> Span:
    """Return a span without the marks at its ends: the set has `p. m.` with its last point."""
    while start < end and not typed[start].isalnum():
        start += 1
    while end > start and not typed[end - 1].isalnum():
        end -= 1
    return kind, start, end


def spans_of(action: Action | None, sentence: str, typed: str) -> list[Span]:
    """Return an action's slots as spans of the sentence as the row has it.

    Words that stand there more than once are the first of these places that no slot before has.

    Args:
        action: None has no spans.
        sentence: normalised; what the action's words were copied from.
        typed: as the row has it.
    """
    if action is None:
        return []
    labelled = in_slurp(action)
    found: list[Span] = []
    for slot in labelled.slots:
        for run in labelled.runs(slot):
            places = typed_spans(typed, sentence, run)
            free = [place for place in places if not _overlaps(place, found)]
            # words that are not in the sentence are wrong wherever they stand
            start, end = (free or places or [(-1, -1)])[0]
            found.append(_trimmed(typed, slot, start, end) if start >= 0 else (slot, -1, -1))
    return found


def _overlaps(place: tuple[int, int], taken: Sequence[Span]) -> bool:
    return any(start < place[1] and place[0] < end for _, start, end in taken)


def slot_f1(cases: Sequence[EvalCase], predictions: Sequence[Prediction]) -> float:
    """Return the micro F1 of slots: a hit has the type and both ends right."""
    hits = wanted = given = 0
    for case, prediction in zip(cases, predictions, strict=True):
        gold: MassiveGold = case.labels
        left = list(gold.spans)
        found = spans_of(prediction.action, case.sentence, gold.typed)
        for span in found:
            if span in left:
                left.remove(span)
                hits += 1
        wanted += len(gold.spans)
        given += len(found)
    return 2 * hits / (wanted + given) if wanted + given else 0.0


def _cases(path: Path, values: Values, broken: list[str]) -> Iterator[EvalCase]:
    return massive_cases(path, broken)


def _metrics(
    cases: Sequence[EvalCase], predictions: Sequence[Prediction], unsure: float
) -> dict[str, Any]:
    return {"slot_f1": round(slot_f1(cases, predictions), 4)}


SUITE = Suite(_cases, _metrics, by_group=True)
