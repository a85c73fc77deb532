"""Expectation: what a row wants of a home after a turn, compared with what happened.

Pure functions of before and after; nothing here knows what was said or understood.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tumen.eval.states.happened import MOMENTARY, Happened, TimerFacts
from tumen.home import State

TIMER = "timer"
"""The pseudo entity of a row that stands for the timers of a home."""

DIRECTIONS = ("up", "down")
FORMS = ("near", "by", "count", "has", "lacks")
"""The keys of a value that is not written out."""

Attributes = Mapping[str, Any]

_OFF = ("off", "closed", "standby", "docked", "unlocked", "paused", "idle")
_ZERO_WHEN_OFF = ("brightness", "percentage")
"""Fields that a device remembers while it is off; what people see is 0."""


@dataclass(frozen=True)
class Group:
    """Entities of which at least one must change in a direction, and none the other way.

    Attributes:
        name: as written, `light@living_room`.
        ids: the entities.
        attribute: that changes; switching on counts as up, switching off as down.
        direction: `up` or `down`.
    """

    name: str
    ids: frozenset[str]
    attribute: str
    direction: str


@dataclass(frozen=True)
class Expected:
    """One right outcome of a turn; everything that it does not name stays as it was.

    Attributes:
        entities: entity id -> attributes after the turn.
        timers: attributes of each timer that is started, changed or cancelled.
        group: the group that changes, if any.
    """

    entities: Mapping[str, Attributes] = field(default_factory=dict)
    timers: tuple[Attributes, ...] = ()
    group: Group | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing may change."""
        return not self.entities and not self.timers and self.group is None

    @property
    def allowed(self) -> frozenset[str]:
        """Everything that may be different afterwards; `timer` stands for timers."""
        ids = set(self.entities)
        if self.timers:
            ids.add(TIMER)
        if self.group is not None:
            ids |= self.group.ids
        return frozenset(ids)


def changed_things(happened: Happened, ignore: Collection[str] = ()) -> frozenset[str]:
    """Return what a turn changed, `timer` for timers.

    Args:
        happened: the changes.
        ignore: entities, or `timer`, that do not count.
    """
    things = set(happened.changed)
    if happened.timers:
        things.add(TIMER)
    return frozenset(things.difference(ignore))


def without_momentary(things: Collection[str]) -> frozenset[str]:
    """Return things without scenes, scripts and buttons."""
    return frozenset(id_ for id_ in things if _domain(id_) not in MOMENTARY)


def expectation_fault(expected: Expected, happened: Happened, ignore: Collection[str] = ()) -> str:
    """Return why an outcome is not the expected one; an empty text if it is.

    Args:
        expected: one right outcome.
        happened: the changes.
        ignore: entities, or `timer`, whose changes do not count.
    """
    for id_, attributes in expected.entities.items():
        fault = _entity_fault(id_, attributes, happened)
        if fault:
            return fault
    fault = _timers_fault(expected.timers, happened) if TIMER not in ignore else ""
    if not fault and expected.group is not None:
        fault = _group_fault(expected.group, happened)
    if fault:
        return fault
    others = without_momentary(changed_things(happened, ignore)) - expected.allowed
    return f"{', '.join(sorted(others))} changed" if others else ""


def _entity_fault(id_: str, attributes: Attributes, happened: Happened) -> str:
    if _domain(id_) in MOMENTARY:
        # its state is a time: all that counts is that it was used
        return "" if id_ in happened.changed else f"{id_} was not used"
    before = happened.before.get(id_, {})
    after = happened.after.get(id_, {})
    for name, wanted in attributes.items():
        if wanted in DIRECTIONS:
            right = direction(before, after, name) == wanted
        else:
            right = value_matches(after.get(name), wanted)
        if not right:
            return f"{id_}: {name} is {after.get(name)!r}, not {wanted!r}"
    return ""


def _group_fault(group: Group, happened: Happened) -> str:
    directions = set()
    for id_ in group.ids & happened.changed:
        found = direction(happened.before[id_], happened.after[id_], group.attribute)
        directions.add(found)
    if group.direction not in directions:
        return f"nothing of {group.name} went {group.direction}"
    other = "down" if group.direction == "up" else "up"
    return f"something of {group.name} went {other}" if other in directions else ""


def direction(before: State, after: State, attribute: str) -> str:
    """Return `up`, `down`, or an empty text if an attribute is as before.

    Switching on counts as up and switching off as down, whatever the attribute is.

    Args:
        before: fields of an entity.
        after: its fields afterwards.
        attribute: such as `brightness`; that of a lamp that is off is 0.
    """
    old = _level(before, attribute)
    new = _level(after, attribute)
    if old == new:
        old = float(_is_on(before))
        new = float(_is_on(after))
    if old == new:
        return ""
    return "up" if new > old else "down"


def _level(state: State, attribute: str) -> float:
    if attribute in _ZERO_WHEN_OFF and not _is_on(state):
        return 0.0
    value = state.get(attribute)
    if isinstance(value, (int, float)):
        return float(value)
    # a lamp without a brightness is as bright as it gets
    return 100.0 if attribute in _ZERO_WHEN_OFF else 0.0


def _is_on(state: State) -> bool:
    return str(state.get("state")) not in _OFF


def value_matches(value: Any, wanted: Any) -> bool:
    """Return whether a value is what a row wants.

    Args:
        value: of an attribute after the turn; None if the entity does not have it.
        wanted: a value, `{"near": 40, "by": 1}`, or for lists any of `count`, `has`, `lacks`.
    """
    if isinstance(wanted, Mapping):
        return _form_matches(value, wanted)
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None or value is None:
        return value is wanted
    if isinstance(wanted, (int, float)):
        return _is_near(value, wanted, 1e-6)
    if isinstance(wanted, (list, tuple)):
        return isinstance(value, (list, tuple)) and _folded(value) == _folded(wanted)
    return _fold(value) == _fold(wanted)


def _form_matches(value: Any, form: Mapping[str, Any]) -> bool:
    if "near" in form:
        return _is_near(value, form["near"], form.get("by", 1))
    items = _folded(value if isinstance(value, (list, tuple)) else ())
    if "count" in form and len(items) != form["count"]:
        return False
    if any(item not in items for item in _folded(_several(form.get("has", ())))):
        return False
    return not any(item in items for item in _folded(_several(form.get("lacks", ()))))


def _is_near(value: Any, wanted: float, by: float) -> bool:
    try:
        return abs(float(value) - wanted) <= by + 1e-9
    except (TypeError, ValueError):
        return False


def _several(words: Any) -> Sequence[Any]:
    return (words,) if isinstance(words, str) else words


def _folded(words: Sequence[Any]) -> list[str]:
    return [_fold(word) for word in words]


def _fold(word: Any) -> str:
    return " ".join(str(word).casefold().split())


def _timers_fault(wanted: Sequence[Attributes], happened: Happened) -> str:
    """Compare the timers one to one; the order does not matter."""
    left = list(happened.timers)
    if len(left) != len(wanted):
        return f"{len(left)} timers were started or changed, not {len(wanted)}"
    for attributes in wanted:
        fitting = [timer for timer in left if _timer_matches(timer, attributes)]
        if not fitting:
            return f"no timer is {dict(attributes)}"
        left.remove(fitting[0])
    return ""


def _timer_matches(timer: tuple[str, TimerFacts], attributes: Attributes) -> bool:
    change, facts = timer
    state = "paused" if facts.paused else "running"
    if change == "cancelled":
        state = change
    known = {
        "name": facts.name,
        "area": facts.area,
        "command": facts.command,
        "seconds": round(facts.seconds),
        "state": state,
    }
    return all(value_matches(known.get(name), wanted) for name, wanted in attributes.items())


def _domain(id_: str) -> str:
    return id_.partition(".")[0]
