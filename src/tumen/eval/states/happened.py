"""What happened to a home in one turn: every entity and timer before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tumen.home import Home, State

MOMENTARY = ("scene", "script", "button")
"""Domains without a lasting state: theirs is the time when they were used last."""


@dataclass(frozen=True)
class TimerFacts:
    """A timer as a row describes it.

    Attributes:
        name: empty if it has none.
        area: None if it has none.
        command: a sentence that is carried out at the end; empty for an alarm only.
        paused: whether it stands still.
        ends: end in seconds since 1970; 0 while it is paused.
        seconds: until it ends.
    """

    name: str
    area: str | None
    command: str
    paused: bool
    ends: float
    seconds: float

    def same(self, other: TimerFacts) -> bool:
        """Return whether nothing but time has changed it."""
        if self.paused != other.paused:
            return False
        named = (self.name, self.area, self.command)
        if named != (other.name, other.area, other.command):
            return False
        if self.paused:
            return abs(self.seconds - other.seconds) < 0.5
        return abs(self.ends - other.ends) < 0.5


@dataclass(frozen=True)
class HomePicture:
    """A home at one moment.

    Attributes:
        states: entity id -> its fields.
        timers: timer id -> its facts.
    """

    states: Mapping[str, State]
    timers: Mapping[str, TimerFacts]

    @classmethod
    def of(cls, home: Home) -> HomePicture:
        """Return the home as it is now."""
        states = {id_: home.state(id_) for id_ in home.entities}
        timers = {}
        for id_, timer in home.timers.items():
            timers[id_] = TimerFacts(
                timer.name,
                timer.area,
                timer.command,
                timer.ends is None,
                timer.ends or 0.0,
                home.seconds_left(timer),
            )
        return cls(states, timers)


@dataclass(frozen=True)
class Happened:
    """A turn's changes.

    Attributes:
        before: entity id -> fields before the turn.
        after: entity id -> fields after it.
        timers: facts of every timer that was started, changed (after the turn) or cancelled (before
            it), with one of the words `started`, `changed` and `cancelled`. A timer that ran out is
            not among them: only time has passed.
    """

    before: Mapping[str, State]
    after: Mapping[str, State]
    timers: tuple[tuple[str, TimerFacts], ...] = ()

    @classmethod
    def between(cls, first: HomePicture, last: HomePicture, now: float) -> Happened:
        """Return what is different between two pictures of a home.

        Args:
            first: before the turn.
            last: after it.
            now: time of the second, in seconds since 1970.
        """
        timers = []
        for id_ in {**first.timers, **last.timers}:
            old = first.timers.get(id_)
            new = last.timers.get(id_)
            if new is not None and old is None:
                timers.append(("started", new))
            elif new is not None and old is not None and not new.same(old):
                timers.append(("changed", new))
            elif old is not None and new is None and not _ran_out(old, now):
                timers.append(("cancelled", old))
        return cls(first.states, last.states, tuple(timers))

    @property
    def changed(self) -> frozenset[str]:
        """The entities that are different now."""
        ids = {*self.before, *self.after}
        return frozenset(id_ for id_ in ids if self.before.get(id_) != self.after.get(id_))

    def value(self, id_: str, attribute: str) -> Any:
        """Return an attribute of an entity after the turn."""
        return self.after.get(id_, {}).get(attribute)


def _ran_out(timer: TimerFacts, now: float) -> bool:
    return not timer.paused and timer.ends <= now
