"""Metrics of a suite by group: exact actions, intents, false acts, invented words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tumen.assistant.values import Values
from tumen.eval.equivalence import invents_words, same_action, would_act
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.eval.statistics import wilson
from tumen.home import at_home
from tumen.language import ACTS, INTENTS, NONE, Action

Predict = Callable[[EvalCase], Prediction]


@dataclass
class Tally:
    """Counts of one group of cases.

    Attributes:
        n: cases.
        exact: predictions that do the same as the known answer.
        intent: predictions with the right intent.
        not_home: cases that are not for the home.
        false_acts: of those, the ones where the prediction would change something.
        false_intents: of those, the ones with an acting intent, whether or not a device is there.
        invented: predictions with words that are not in the sentence.
        golds: how often each known answer occurs.
        marks: "1" for each exact prediction, else "0", in order.
    """

    n: int = 0
    exact: int = 0
    intent: int = 0
    not_home: int = 0
    false_acts: int = 0
    false_intents: int = 0
    invented: int = 0
    golds: Counter[str] = field(default_factory=Counter)
    marks: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the counts of other cases behind these."""
        self.n += other.n
        self.exact += other.exact
        self.intent += other.intent
        self.not_home += other.not_home
        self.false_acts += other.false_acts
        self.false_intents += other.false_intents
        self.invented += other.invented
        self.golds.update(other.golds)
        self.marks += other.marks

    def row(self) -> dict[str, Any]:
        """Return the group's row of a scorecard.

        Returns:
            Counts, shares, the 95 % Wilson interval of `exact`, `corrected` (exact beyond the best
            constant answer) and the marks; `n` alone for a group without cases.
        """
        if not self.n:
            return {"n": 0}
        low, high = wilson(self.exact, self.n)
        return {
            "n": self.n,
            "exact": round(self.exact / self.n, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "corrected": round(self._beyond_chance(), 4),
            "intent": round(self.intent / self.n, 4),
            "false_acts": self._share_of_not_home(self.false_acts),
            "false_intents": self._share_of_not_home(self.false_intents),
            "invented": self.invented,
            "marks": "".join(self.marks),
        }

    def _beyond_chance(self) -> float:
        share = self.exact / self.n
        chance = max(self.golds.values(), default=0) / self.n  # of the best constant answer
        if chance == 1:
            return share
        return (share - chance) / (1 - chance)

    def _share_of_not_home(self, count: int) -> float | None:
        if not self.not_home:
            return None
        return round(count / self.not_home, 4)


def evaluate(
    cases: Sequence[EvalCase], predict: Predict, values: Values
) -> tuple[dict[str, Any], list[Prediction]]:
    """Run every case and count the results.

    Args:
        cases: of one suite.
        predict: answers a case.
        values: lexicon that knows what copied words are worth.

    Returns:
        (scorecard rows by group, predictions in the order of the cases).
    """
    predictions = [predict(case) for case in cases]
    return rows_of(cases, predictions, values), predictions


def rows_of(
    cases: Sequence[EvalCase],
    predictions: Sequence[Prediction],
    values: Values,
    home_known: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """Return scorecard rows by group.

    Args:
        cases: of one suite.
        predictions: in the order of the cases.
        values: lexicon that knows what copied words are worth.
        home_known: what the same model answers where it knows the names of the home. Groups with a
            case for a home get their share as `exact_home_known`.
    """
    rows = {name: counts.row() for name, counts in tally(cases, predictions, values).items()}
    if home_known:
        at_homes = {"all", *(group for case in cases if case.home for group in case.groups)}
        for name, counts in tally(cases, home_known, values).items():
            if name in at_homes and counts.n:
                rows[name]["exact_home_known"] = round(counts.exact / counts.n, 4)
    return rows


def tally(
    cases: Iterable[EvalCase], predictions: Iterable[Prediction], values: Values
) -> dict[str, Tally]:
    """Count predictions by group; the group `all` holds every case."""
    tallies: dict[str, Tally] = {"all": Tally()}
    for case, prediction in zip(cases, predictions, strict=True):
        one = _tally_of_one(case, prediction.action, values)
        for group in ("all", *case.groups):
            tallies.setdefault(group, Tally()).add(one)
    return tallies


def _tally_of_one(case: EvalCase, action: Action | None, values: Values) -> Tally:
    """Count a single prediction."""
    intent_right, exact = _graded(case, action, values)
    not_home = case.gold is not None and case.gold.intent == NONE
    acts_wrongly = would_change = False
    if not_home and not intent_right:
        acts_wrongly, would_change = _false_act(case, action, values)
    invented = action is not None and invents_words(action, case.sentence)
    return Tally(
        n=1,
        exact=int(exact),
        intent=int(intent_right),
        not_home=int(not_home),
        false_acts=int(would_change),
        false_intents=int(acts_wrongly),
        invented=int(invented),
        golds=Counter([str(case.gold or case.labels or "")]),
        marks=["1" if exact else "0"],
    )


def _false_act(case: EvalCase, action: Action | None, values: Values) -> tuple[bool, bool]:
    """Return whether an action has an acting intent, and whether it would change the home."""
    if action is None:
        return False, False
    # Labels of other data sets count as the home's actions that they mean.
    given = at_home(action)
    if given.intent not in ACTS:
        return False, False
    return True, would_act(given, case.home, values)


def _graded(case: EvalCase, given: Action | None, values: Values) -> tuple[bool, bool]:
    """Return (intent is right, all is right) of one prediction."""
    if given is None:
        return False, False
    if case.grade is not None:
        intent_right, exact = case.grade(given)
        return bool(intent_right), bool(exact)
    if case.gold is None:
        return False, False
    if case.gold.intent in INTENTS:
        given = at_home(given)
    return given.intent == case.gold.intent, same_action(given, case.gold, case.home, values)
