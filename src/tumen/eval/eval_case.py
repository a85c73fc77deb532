"""One case of an eval suite, and one prediction for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tumen.core.artifact import hash_of
from tumen.core.errors import InputError
from tumen.home import Home
from tumen.language import Action, normalise

Grade = Callable[[Action], tuple[bool, bool]]


@dataclass(frozen=True)
class EvalCase:
    """A sentence with its known answer.

    Attributes:
        sentence: normalized, see `case_sentence`.
        gold: the action it means; None when `grade` decides.
        home: the home it is said in.
        groups: rows of a scorecard that count it.
        grade: the suite's own comparison: action -> (intent is right, all is right).
        labels: what else the suite knows of the sentence, such as a data set's own labels.
    """

    sentence: str
    gold: Action | None
    home: Home | None = None
    groups: tuple[str, ...] = ()
    grade: Grade | None = None
    labels: Any = None


@dataclass(frozen=True)
class Prediction:
    """What a model or matcher answered.

    Attributes:
        action: None when the answer was not an action.
        seconds: time of the answer.
        confidence: from 0 to 1.
    """

    action: Action | None
    seconds: float = 0.0
    confidence: float = 1.0


def case_sentence(text: str) -> str:
    """Return a sentence normalized, or as it is where that cannot be: too long, or empty.

    A runner declines such a sentence, so that its case counts as wrong and the suite goes on.
    """
    try:
        return normalise(text)
    except InputError:
        return text


def suite_digest(cases: Iterable[EvalCase]) -> str:
    """Return the digest of a suite: its sentences, their meanings and groups, in order.

    Marks of two systems can be paired when their suites have the same digest.
    """
    return hash_of([[case.sentence, str(case.gold), list(case.groups)] for case in cases])
