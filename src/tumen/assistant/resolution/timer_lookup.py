"""Timer lookup: which timers an action means."""

from __future__ import annotations

from tumen.assistant.resolution.lookup import Lookup
from tumen.assistant.resolution.places import place_of_area
from tumen.assistant.resolution.results import Resolved
from tumen.home import Timer, fold

_SEVERAL_MEANT = ("HassTimerStatus", "HassCancelAllTimers")


def resolve_timer_start(lookup: Lookup) -> Resolved:
    """Resolve a timer that is to start.

    Raises:
        Unresolved: the question how long it runs.
    """
    if not lookup.values.get("seconds"):
        raise lookup.question("how_long")
    _keep_name(lookup)
    # a timer rings where it was set
    lookup.place = lookup.home.here
    return lookup.resolved()


def resolve_timer(lookup: Lookup) -> Resolved:
    """Resolve the timers that fit name, place and length; one is meant unless all are asked for.

    Raises:
        Unresolved: a refusal where there are none, or the question which of several.
    """
    # name and area are values of the result: an eval suite does not know which timers run
    _keep_name(lookup)
    place = place_of_area(lookup)
    if place:
        lookup.values["area"] = ",".join(sorted(place.areas))
    timers = list(lookup.home.timers.values())
    if not timers:
        raise lookup.refusal("no_timer")
    ids = [timer.id for timer in timers if _fits(lookup, timer)]
    if not ids:
        raise lookup.refusal("which_timer")
    # cancelling the wrong timer is found out too late
    if len(ids) > 1 and lookup.intent not in _SEVERAL_MEANT:
        raise lookup.which(ids)
    return lookup.resolved(ids)


def _keep_name(lookup: Lookup) -> None:
    """Make the name of a timer a value of the result."""
    name = lookup.slot("name")
    if name:
        lookup.values["name"] = " ".join(name.split())


def _fits(lookup: Lookup, timer: Timer) -> bool:
    """Whether a timer has the name, length and area that were said."""
    name = lookup.values.get("name")
    if name is not None and fold(str(name)) != fold(timer.name):
        return False
    # `the five minute timer` is named by the length it was started with
    start_seconds = lookup.values.get("start_seconds")
    if start_seconds is not None and start_seconds != timer.seconds:
        return False
    area = lookup.values.get("area")
    return area is None or timer.area in str(area).split(",")
