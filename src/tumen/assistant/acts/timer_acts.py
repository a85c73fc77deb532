"""Timer acts: start, cancel, pause, resume, lengthen and shorten timers."""

from __future__ import annotations

from tumen.assistant.acts.outcomes import ActRefused, Change
from tumen.assistant.acts.target import needed
from tumen.assistant.resolution import Resolved
from tumen.assistant.values import plain
from tumen.home import Home, Timer

MAX_SECONDS = 7 * 86_400
"""The longest timer: a week. Anything longer belongs into a calendar."""


def start_timer(resolved: Resolved, home: Home) -> list[Change]:
    """Return the change that starts a timer.

    Args:
        resolved: length, name and command.
        home: it is only read.
    """
    seconds = float(needed(resolved.values, "seconds"))
    if not 0 < seconds <= MAX_SECONDS:
        raise ActRefused("timer_range")
    timer = Timer(
        id=_free_id(home),
        name=str(resolved.values.get("name", "")),
        area=resolved.place,
        seconds=seconds,
        # an end instead of a rest survives a restart
        ends=home.clock().timestamp() + seconds,
        command=str(resolved.values.get("command", "")),
    )
    return [Change(timer.id, None, timer.fields())]


def _free_id(home: Home) -> str:
    """Return an id that no timer or entity has."""
    taken = {*home.timers, *home.entities}
    number = 1
    # an entity of the home may be called timer.1
    while f"timer.{number}" in taken:
        number += 1
    return f"timer.{number}"


def change_timers(resolved: Resolved, home: Home) -> list[Change]:
    """Return the changes that cancel, pause, resume, lengthen or shorten the targets.

    Args:
        resolved: the act and its timers.
        home: it is only read.
    """
    now = home.clock().timestamp()
    changes = []
    for id_ in resolved.targets:
        timer = home.timers.get(id_)
        # it ran out between the question and its answer
        if timer is None:
            raise ActRefused("no_timer")
        after = _after(resolved, timer, home.seconds_left(timer), now)
        fields = None if after is None else after.fields()
        changes.append(Change(id_, home.state(id_), fields))
    return changes


def _after(resolved: Resolved, timer: Timer, left: float, now: float) -> Timer | None:
    """Return a timer after the act, None if it is cancelled.

    Args:
        resolved: the act.
        timer: the timer before.
        left: seconds until it ends.
        now: seconds since 1970.
    """
    match resolved.intent:
        case "HassCancelTimer" | "HassCancelAllTimers":
            return None
        case "HassPauseTimer":
            if timer.ends is None:
                return timer
            return timer.model_copy(update={"ends": None, "left_seconds": left})
        case "HassUnpauseTimer":
            if timer.ends is not None:
                return timer
            return timer.model_copy(update={"ends": now + left, "left_seconds": None})
    by = float(needed(resolved.values, "seconds"))
    if resolved.intent == "HassDecreaseTimer":
        by = -by
    # a timer that is shortened to nothing would ring at once
    if left + by <= 0:
        raise ActRefused("timer_short", seconds=plain(left))
    if timer.ends is None:
        return timer.model_copy(update={"left_seconds": left + by})
    return timer.model_copy(update={"ends": timer.ends + by})
