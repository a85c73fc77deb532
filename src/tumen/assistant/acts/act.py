"""Act: carry out a resolved action, all of it or nothing, and undo it.

Every target gets its new fields before anything is written, so a refusal changes nothing, and
undo needs only the outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from tumen.assistant.acts.effects import EFFECTS, Effect
from tumen.assistant.acts.light_effects import lights_to_set
from tumen.assistant.acts.list_acts import change_lists
from tumen.assistant.acts.outcomes import ActRefused, Change, Outcome
from tumen.assistant.acts.queries import QUERIES
from tumen.assistant.acts.target import Target, needed
from tumen.assistant.acts.timer_acts import change_timers, start_timer
from tumen.assistant.resolution import Refusal, Resolved
from tumen.assistant.values import Value
from tumen.home import Home, State

_MOMENTARY = ("scene", "script", "button")
"""Domains without a lasting state: theirs is the time when they were used last."""


def act(resolved: Resolved, home: Home) -> Outcome:
    """Carry out a resolved action on its home, or answer its question.

    Args:
        resolved: what is done, to which things.
        home: it is changed.

    Returns:
        an outcome with a refusal, and the home as it was; or with the answer; or with a change for
        every target, and the home as these say.
    """
    try:
        if resolved.intent in QUERIES:
            answer = QUERIES[resolved.intent](resolved, home)
            return Outcome(resolved, answer=answer)
        changes = _changes(resolved, home)
    except ActRefused as refused:
        about, values = refused.about, resolved.values
        refusal = Refusal(resolved.intent, resolved.lang, refused.reason, about, values)
        return Outcome(resolved, refusal=refusal)
    # from here on nothing can fail
    for change in changes:
        if change.real:
            home.put(change.id, change.after)
    return Outcome(resolved, tuple(changes))


def undo(outcome: Outcome, home: Home) -> Outcome:
    """Put back what an outcome changed.

    Args:
        outcome: what was done.
        home: it is changed back.

    Returns:
        an outcome with the changes back; refused with `nothing` when there is nothing to undo, or
        with `changed` when one of the things was changed by something else since.
    """
    made = outcome.changed
    if not made:
        return _not_undone(outcome, "nothing", {})
    for change in made:
        # a timer that is gone has no state
        if (home.state(change.id) or None) != change.after:
            return _not_undone(outcome, "changed", {"entity": change.id})
    # backwards: a thing that changed twice ends as it was first
    back = [Change(change.id, change.after, change.before) for change in reversed(made)]
    for change in back:
        home.put(change.id, change.after)
    return Outcome(outcome.resolved, tuple(back))


def _not_undone(outcome: Outcome, reason: str, about: dict[str, Value]) -> Outcome:
    """Return the outcome of an undo that was refused."""
    resolved = outcome.resolved
    return Outcome(resolved, refusal=Refusal(resolved.intent, resolved.lang, reason, about))


def _changes(resolved: Resolved, home: Home) -> list[Change]:
    """Return what an action changes; nothing is written yet."""
    if resolved.intent in _WHOLE_ACTS:
        return _WHOLE_ACTS[resolved.intent](resolved, home)
    effect = EFFECTS.get(resolved.intent)
    if effect is None:
        raise ActRefused("not_home")
    changes: dict[str, Change] = {}
    for id_ in lights_to_set(resolved, home):
        target = Target(home.entities[id_], home.state(id_), resolved.values)
        # the reply would report an act that never reached the device
        if target.state.get("state") == "unavailable":
            raise target.refused("unavailable")
        changes[id_] = _change(target, effect, home)
        # what a scene sets
        for other, fields in target.entity.sets.items():
            changes[other] = _changed(other, home.state(other), fields)
    return list(changes.values())


def _change(target: Target, effect: Effect, home: Home) -> Change:
    """Return what an effect changes of one device."""
    fields = effect(target)
    if target.domain in _MOMENTARY:
        # Home Assistant keeps the time a scene was activated as its state
        fields = {"state": home.clock().isoformat(timespec="seconds")}
    return _changed(target.entity.id, target.state, fields)


def _changed(id_: str, state: State, fields: State) -> Change:
    """Return the change of some fields; None removes a field."""
    merged = state | fields
    after = {name: value for name, value in merged.items() if value is not None}
    return Change(id_, state, after)


def _nothing(resolved: Resolved, home: Home) -> list[Change]:
    """Return no changes: the intent is small talk."""
    return []


def _broadcast(resolved: Resolved, home: Home) -> list[Change]:
    """Return the changes of speakers that announce a message."""
    message = str(needed(resolved.values, "message"))
    changes = []
    for id_ in resolved.targets:
        before = home.state(id_)
        changes.append(Change(id_, before, before | {"announced": message}))
    return changes


_WHOLE_ACTS: dict[str, Callable[[Resolved, Home], list[Change]]] = {
    "HassNevermind": _nothing,
    "HassRespond": _nothing,
    "HassBroadcast": _broadcast,
    "HassStartTimer": start_timer,
    "HassCancelTimer": change_timers,
    "HassCancelAllTimers": change_timers,
    "HassPauseTimer": change_timers,
    "HassUnpauseTimer": change_timers,
    "HassIncreaseTimer": change_timers,
    "HassDecreaseTimer": change_timers,
    "HassListAddItem": change_lists,
    "HassListCompleteItem": change_lists,
    "HassListRemoveItem": change_lists,
    "HassShoppingListAddItem": change_lists,
    "HassShoppingListCompleteItem": change_lists,
}
"""Intents that act on more than devices one by one."""
