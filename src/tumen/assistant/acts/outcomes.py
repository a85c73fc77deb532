"""Outcomes: what came of a resolved action, with every changed thing before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tumen.assistant.resolution import Refusal, Resolved
from tumen.assistant.values import Value
from tumen.home import State


@dataclass(frozen=True)
class Change:
    """One entity or timer before and after an act.

    Attributes:
        id: the entity or timer.
        before: its fields before; None if a timer did not exist.
        after: its fields after; None if a timer is gone. Equal to `before` if it already was so.
    """

    id: str
    before: State | None
    after: State | None

    @property
    def real(self) -> bool:
        """Whether anything is different now."""
        return self.before != self.after

    def fields(self) -> dict[str, tuple[Any, Any]]:
        """Return the fields that differ: name -> (before, after)."""
        before = self.before or {}
        after = self.after or {}
        differing = {}
        for name in before | after:
            # a field that is missing on one side is None there
            pair = (before.get(name), after.get(name))
            if pair[0] != pair[1]:
                differing[name] = pair
        return differing


@dataclass(frozen=True)
class QueryResult:
    """What a question found.

    Attributes:
        matching: the ids of which it is true.
        among: all ids that it is about.
        facts: readings by name or id, in degrees Celsius, percent or seconds.
    """

    matching: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    facts: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a resolved action: a change for every target, an answer, or a refusal."""

    resolved: Resolved
    changes: tuple[Change, ...] = ()
    answer: QueryResult | None = None
    refusal: Refusal | None = None

    @property
    def changed(self) -> tuple[Change, ...]:
        """The changes that are real."""
        return tuple(change for change in self.changes if change.real)


class ActRefused(Exception):
    """Ends an act before anything is changed.

    Args:
        reason: key of the reply, as in `Refusal`.
        about: what the reply fills in.
    """

    def __init__(self, reason: str, **about: Value) -> None:
        super().__init__(reason)
        self.reason = reason
        self.about = about
