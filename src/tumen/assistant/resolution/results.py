"""Results: an action is resolved, it needs a question, or it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tumen.assistant.values import Value

MAX_SHOWN = 5
"""The most options or names that a reply lists."""


@dataclass(frozen=True)
class Resolved:
    """An action on real things. Two are equal if they do the same, in whatever language.

    Attributes:
        intent: what is done.
        lang: the speaker's language.
        targets: sorted ids of entities or timers.
        values: slot -> number or text.
        place: id of the place that was named; several are joined by `+`.
    """

    intent: str
    # two languages may ask for the same act
    lang: str = field(compare=False)
    targets: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    # how a place was called does not change what is done there
    place: str | None = field(default=None, compare=False)

    def key(self) -> tuple[Any, ...]:
        """Return what an eval suite compares: intent, targets and values."""
        return (self.intent, self.targets, _pairs(self.values))


@dataclass(frozen=True)
class Candidate:
    """One option of a question: how a reply calls it, and the ids it means."""

    label: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """Something is missing that the speaker knows.

    Attributes:
        intent: what will be done.
        lang: the speaker's language.
        options: all options, so that any of them may be the answer.
        values: slot -> number or text.
        reason: `which` of the options, `what` device, `where` (unknown room), `how_long`, or
            `except` what.
        about: what the reply fills in.
    """

    intent: str
    lang: str = field(compare=False)
    options: tuple[Candidate, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    reason: str = "which"
    about: Mapping[str, Value] = field(default_factory=dict, compare=False)

    @property
    def shown(self) -> tuple[str, ...]:
        """The labels that a reply lists."""
        return tuple(option.label for option in self.options[:MAX_SHOWN])

    def key(self) -> tuple[Any, ...]:
        """Return what an eval suite compares: that it asks, about what, between which things."""
        targets = sorted(option.targets for option in self.options)
        return ("question", self.intent, self.reason, tuple(targets), _pairs(self.values))

    def choose(self, *numbers: int) -> Resolved:
        """Return the action with the options of these numbers, counted from 0."""
        # two options may share a device
        targets: set[str] = set()
        for number in numbers:
            targets.update(self.options[number].targets)
        return Resolved(self.intent, self.lang, tuple(sorted(targets)), self.values)


@dataclass(frozen=True)
class Refusal:
    """Nothing is done.

    Attributes:
        intent: what was asked for.
        lang: the speaker's language.
        reason: key of the reply, see `replies/languages`.
        about: what the reply fills in: words, place, entity, limits.
        values: slot -> number or text.
    """

    intent: str
    lang: str = field(compare=False)
    reason: str = "absent"
    about: Mapping[str, Value] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)

    def key(self) -> tuple[Any, ...]:
        """Return what an eval suite compares: that it refuses, why, and because of which words."""
        return ("refusal", self.intent, self.reason, _pairs(self.about), _pairs(self.values))


Resolution = Resolved | Question | Refusal


class Unresolved(Exception):
    """Ends a resolution early with a question or a refusal; `resolve` turns it into a result."""

    def __init__(self, result: Question | Refusal) -> None:
        super().__init__(result)
        self.result = result


def _pairs(values: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    """Return values in an order that does not depend on the sentence."""
    return tuple(sorted(values.items()))
