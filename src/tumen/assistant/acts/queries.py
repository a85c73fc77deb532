"""Queries: answers to questions, from the states of the home."""

from __future__ import annotations

from collections.abc import Callable

from tumen.assistant.acts.outcomes import ActRefused, QueryResult
from tumen.assistant.intents import OPENINGS
from tumen.assistant.resolution import Resolved
from tumen.assistant.values import Value, plain
from tumen.home import Entity, Home, State, fold

_NOT_ON = ("off", "standby", "docked", "unavailable", "unknown", "closed", "unlocked")
"""States of a device that does not do its work; in all others it is on."""

_READINGS = (
    "brightness",
    "position",
    "volume",
    "temperature",
    "current_temperature",
    "humidity",
    "percentage",
)
"""Fields that are told when the state of one device is asked for."""


def is_so(entity: Entity, state: State, asked: str) -> bool:
    """Return whether an entity is in a state in the words of a question: `on`, `open`, `locked`."""
    now = str(state.get("state"))
    if asked == "on":
        return now not in _NOT_ON
    if asked == "off":
        return now in _NOT_ON
    if asked in ("open", "closed"):
        # a sensor on a window is on when it is open; a door that is locked is closed
        if entity.domain == "binary_sensor":
            return now == ("on" if asked == "open" else "off")
        if entity.domain == "lock":
            return now == ("unlocked" if asked == "open" else "locked")
    return now == asked


def _get_state(resolved: Resolved, home: Home) -> QueryResult:
    targets = resolved.targets
    asked = str(resolved.values.get("state") or "")
    if asked:
        matching = [id_ for id_ in targets if is_so(home.entities[id_], home.state(id_), asked)]
        return QueryResult(tuple(matching), targets, {"asked": asked})
    if "zone" in resolved.values:
        zone = fold(str(resolved.values["zone"]))
        matching = [id_ for id_ in targets if fold(str(home.state(id_).get("state"))) == zone]
        return QueryResult(tuple(matching), targets, {"asked": zone})
    # no state was asked for: tell what one device has
    facts = _facts(home, targets[0]) if len(targets) == 1 else {}
    return QueryResult((), targets, facts)


def _facts(home: Home, id_: str) -> dict[str, Value]:
    """Return the state and the readings of an entity."""
    entity = home.entities[id_]
    state = home.state(id_)
    facts: dict[str, Value] = {"state": str(state["state"])}
    if entity.unit:
        facts["unit"] = entity.unit
    if entity.domain == "binary_sensor" and entity.device_class in OPENINGS:
        facts["state"] = "open" if state["state"] == "on" else "closed"
    for name in _READINGS:
        value = state.get(name)
        if isinstance(value, (int, float)):
            facts[name] = plain(value)
    return facts


def _get_temperature(resolved: Resolved, home: Home) -> QueryResult:
    readings: dict[str, Value] = {}
    for id_ in resolved.targets:
        degrees = _degrees(home.entities[id_], home.state(id_))
        if degrees is not None:
            readings[id_] = degrees
    if not readings:
        raise ActRefused("unknown", entity=resolved.targets[0] if resolved.targets else "")
    return QueryResult((), resolved.targets, readings)


def _degrees(entity: Entity, state: State) -> float | None:
    """Return the degrees that a device measures; None if it does not measure."""
    if entity.domain == "sensor":
        try:
            return plain(float(state["state"]))
        except ValueError:
            return None
    # `temperature` of a climate device is its target
    field = "temperature" if entity.domain == "weather" else "current_temperature"
    degrees = state.get(field)
    return None if degrees is None else plain(degrees)


def _get_weather(resolved: Resolved, home: Home) -> QueryResult:
    return QueryResult((), resolved.targets, _facts(home, resolved.targets[0]))


def _get_time(resolved: Resolved, home: Home) -> QueryResult:
    now = home.clock()
    facts: dict[str, Value] = {
        "hour": now.hour,
        "minute": now.minute,
        "year": now.year,
        "month": now.month,
        "day": now.day,
        "weekday": now.weekday(),
    }
    return QueryResult(facts=facts)


def _get_timers(resolved: Resolved, home: Home) -> QueryResult:
    timers = home.timers
    left: dict[str, Value] = {}
    for id_ in resolved.targets:
        if id_ in timers:
            left[id_] = plain(round(home.seconds_left(timers[id_])))
    if not left:
        raise ActRefused("no_timer")
    return QueryResult((), tuple(left), left)


QUERIES: dict[str, Callable[[Resolved, Home], QueryResult]] = {
    "HassGetState": _get_state,
    "HassClimateGetTemperature": _get_temperature,
    "HassGetWeather": _get_weather,
    "HassGetCurrentTime": _get_time,
    "HassGetCurrentDate": _get_time,
    "HassTimerStatus": _get_timers,
}
"""How each intent that asks is answered."""
