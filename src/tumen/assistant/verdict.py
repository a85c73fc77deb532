"""What comes of an action in a home: it is resolved, it needs a question, or it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tumen.assistant.values import Value

TOLD = 5
"""The most options a question tells."""


@dataclass(frozen=True)
class Resolved:
    """An action on real things: sorted entity or timer ids, and values. Two are equal if they do the same."""

    intent: str
    lang: str = field(compare=False)
    targets: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    place: str | None = field(default=None, compare=False)

    def key(self) -> tuple[Any, ...]:
        """What an exam compares: intent, targets and values."""
        return (self.intent, self.targets, _pairs(self.values))


@dataclass(frozen=True)
class Option:
    """One answer to a question: how it is told, and the targets it means."""

    label: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """Something is missing. `reason`: `which` of the options, `what` to act on, `where` (no room known), `how_long`.

    All options are kept, so that any of them may be the answer; `told` are the labels a reply names.
    """

    intent: str
    lang: str = field(compare=False)
    options: tuple[Option, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    reason: str = "which"

    @property
    def told(self) -> tuple[str, ...]:
        """At most five labels."""
        return tuple(option.label for option in self.options[:TOLD])

    def key(self) -> tuple[Any, ...]:
        """What an exam compares: that it asks, about what, and between which things."""
        return (
            "question",
            self.intent,
            self.reason,
            tuple(sorted(option.targets for option in self.options)),
            _pairs(self.values),
        )

    def choose(self, *numbers: int) -> Resolved:
        """The action with the options of these numbers, counted from 0."""
        targets = sorted({target for number in numbers for target in self.options[number].targets})
        return Resolved(self.intent, self.lang, tuple(targets), self.values)


@dataclass(frozen=True)
class Refusal:
    """Nothing is done. `reason` names the reply (`wording.REPLIES`); `about` holds words, place and limits."""

    intent: str
    lang: str = field(compare=False)
    reason: str = "absent"
    about: Mapping[str, Value] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)

    def key(self) -> tuple[Any, ...]:
        """What an exam compares: that it refuses, why, and on account of which words."""
        return ("refusal", self.intent, self.reason, _pairs(self.about), _pairs(self.values))


Verdict = Resolved | Question | Refusal


def _pairs(values: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))
