"""Judging: what counts as the same action, and how sure a share is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tumen.assistant import Resolved, resolve
from tumen.assistant.values import Values
from tumen.core.artifact import hash_of
from tumen.home import Home, at_home
from tumen.language import ACTS, CLOSED, COPIED, INTENTS, Action, units

Z95 = 1.959964
OPEN = {
    "open": "on",
    "closed": "off",
}  # a window sensor that is on is an open window (Home Assistant's binary_sensor)
EVIDENCE = ("name", "area", "domain", "device_class", "scope", "ask")


@dataclass(frozen=True)
class Case:
    """One question of an exam: a normalised sentence, what it means (None: not for the home), and the home it is said in."""

    sentence: str
    gold: Action | None
    home: Home | None = None
    groups: tuple[str, ...] = ()
    accepts: Any = None  # a judge of its own: Action -> (right intent, exact)
    facts: Any = None  # what else the exam knows of the sentence


@dataclass(frozen=True)
class Answer:
    """What was answered to a case: the action (None: none was understood), and the seconds it took."""

    action: Action | None
    seconds: float = 0.0
    confidence: float = 1.0


@dataclass
class Tally:
    """Counts of one group. Shares come with 95% Wilson intervals (Wilson 1927) and corrected for the best constant answer."""

    n: int = 0
    exact: int = 0
    intent: int = 0
    not_home: int = 0
    false_acts: int = 0
    false_intents: int = 0
    invented: int = 0
    golds: Counter[str] = field(default_factory=Counter)
    marks: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """For a scorecard: counts, shares, interval, chance-corrected share, and a mark (1: exact) for each case in its order."""
        if not self.n:
            return {"n": 0}
        low, high = wilson(self.exact, self.n)
        share, chance = self.exact / self.n, max(self.golds.values(), default=0) / self.n
        return {
            "n": self.n,
            "exact": round(share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "corrected": round((share - chance) / (1 - chance), 4)
            if chance < 1
            else round(share, 4),
            "intent": round(self.intent / self.n, 4),
            "false_acts": round(self.false_acts / self.not_home, 4) if self.not_home else None,
            "false_intents": round(self.false_intents / self.not_home, 4)
            if self.not_home
            else None,
            "invented": self.invented,
            "marks": "".join(self.marks),
        }


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share (Wilson score)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def exam_digest(cases: Iterable[Case]) -> str:
    """Digest of an exam: its sentences, what they mean and their groups, in order. Marks of one digest are pairs."""
    return hash_of([[case.sentence, str(case.gold), list(case.groups)] for case in cases])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return (
        ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
        if ordered
        else 0.0
    )


def same(given: Action, gold: Action, home: Home | None, values: Values) -> bool:
    """Whether two actions do the same in a home: same intent, same real devices, same values.

    Where neither reaches a device (there is none of that name), the words themselves are compared.
    """
    if given.intent != gold.intent:
        return False
    if home is not None:
        ours, theirs = resolve(given, home, values), resolve(gold, home, values)
        if isinstance(ours, Resolved) and isinstance(theirs, Resolved):
            return bool(_open(ours.key()) == _open(theirs.key()))
    return _slots(given, values) == _slots(gold, values)


def _open(key: Any) -> Any:
    """A result's key with door words and switch words made one."""
    if isinstance(key, tuple):
        return tuple(map(_open, key))
    return OPEN.get(key, key) if isinstance(key, str) else key


def _slots(action: Action, values: Values) -> dict[str, Any]:
    """Slots that decide: place words as one bag, values as what they are worth."""
    found: dict[str, Any] = {
        "place": frozenset("".join(action.slots.get(slot, "") for slot in ("name", "area")).split())
    }
    for slot, words in action.slots.items():
        if slot not in EVIDENCE:
            found[slot] = (
                OPEN.get(words, values.read(slot, words, action.lang))
                if slot in COPIED
                else OPEN.get(words, words)
            )
    return found


def invents(action: Action, sentence: str) -> bool:
    """Whether an action holds words that are no run of the sentence."""
    words = units(sentence)
    text = "".join(words).strip()
    return any(
        run not in text for slot in action.slots if slot not in CLOSED for run in action.runs(slot)
    )


def would_act(action: Action | None, home: Home | None, values: Values) -> bool:
    """Whether an answer would change something in the home."""
    if action is None or action.intent not in ACTS:
        return False
    return home is None or isinstance(resolve(action, home, values), Resolved)


def tally(cases: Iterable[Case], answers: Iterable[Answer], values: Values) -> dict[str, Tally]:
    """Counts by group; the group `all` holds every case."""
    tallies: dict[str, Tally] = {"all": Tally()}
    for case, answer in zip(cases, answers, strict=True):
        right, exact = _marks(case, answer.action, values)
        not_home = case.gold is not None and case.gold.intent == "none"
        given = at_home(answer.action) if answer.action else None
        wrong = not_home and not right and given is not None and given.intent in ACTS
        for group in ("all", *case.groups):
            counts = tallies.setdefault(group, Tally())
            counts.n += 1
            counts.exact += exact
            counts.marks.append("1" if exact else "0")
            counts.intent += right
            counts.golds[str(case.gold or case.facts or "")] += 1
            counts.not_home += not_home
            counts.false_acts += wrong and would_act(given, case.home, values)
            counts.false_intents += wrong
            counts.invented += bool(answer.action and invents(answer.action, case.sentence))
    return tallies


def _marks(case: Case, given: Action | None, values: Values) -> tuple[bool, bool]:
    """(right intent, exact) of one answer."""
    if given is None:
        return False, False
    if case.accepts is not None:
        right, exact = case.accepts(given)
        return bool(right), bool(exact)
    if case.gold is None:
        return False, False
    if case.gold.intent in INTENTS:
        given = at_home(given)
    return given.intent == case.gold.intent, same(given, case.gold, case.home, values)
