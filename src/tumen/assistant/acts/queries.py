"""Queries: answers to questions, from the states of the home."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tumen.assistant.acts.outcomes import ActRefused, QueryResult
from tumen.assistant.intents import OPENINGS
from tumen.assistant.resolution import Resolved
from tumen.assistant.values import Value, plain
from tumen.home import Entity, Home, State, fold

_NOT_ON = ("off", "standby", "docked", "unavailable", "unknown", "closed", "unlocked")
"""States of a device that does not do its work; in all others it is on."""

_OPEN_OR_CLOSED = {
    # a sensor on a window is on when the window is open
    "binary_sensor": {"open": "on", "closed": "off"},
    # a door that is locked is closed
    "lock": {"open": "unlocked", "closed": "locked"},
}
"""The states that mean open and closed in domains with other words."""

_PLAYS = ("playing", "paused")

_READINGS = (
    "brightness",
    "position",
    "volume",
    "temperature",
    "current_temperature",
    "humidity",
    "percentage",
)
"""Fields in the answer to a question about one device."""


def is_so(entity: Entity, state: State, asked: str) -> bool:
    """Return whether an entity is in a state in the words of a question.

    Args:
        entity: the device.
        state: its fields.
        asked: `on`, `off`, `open`, `closed`, `opening`, `closing`, `locked` or `unlocked`.
    """
    now = str(state.get("state"))
    if asked == "on":
        return now not in _NOT_ON
    if asked == "off":
        return now in _NOT_ON
    if asked in ("open", "closed"):
        asked = _OPEN_OR_CLOSED.get(entity.domain, {}).get(asked, asked)
    return now == asked


def _get_state(resolved: Resolved, home: Home) -> QueryResult:
    """Answer a question about a state, about a zone, or about a device in general."""
    targets = resolved.targets
    asked = str(resolved.values.get("state") or "")
    # `is it on`, `which are open`
    if asked:
        matching = _in_state(home, targets, asked)
        return QueryResult(matching, targets, {"asked": asked})
    # `is Anna at work`
    if "zone" in resolved.values:
        zone = fold(str(resolved.values["zone"]))
        matching = _in_zone(home, targets, zone)
        return QueryResult(matching, targets, {"asked": zone})
    # `what is playing`: what is silent is no answer
    playing = [id_ for id_ in targets if _plays(home, id_)]
    targets = tuple(playing) or targets
    # `what about the lamp`
    if len(targets) != 1:
        return QueryResult((), targets)
    return QueryResult((), targets, _facts(home, targets[0]))


def _in_state(home: Home, ids: Sequence[str], asked: str) -> tuple[str, ...]:
    """Return the entities that are in a state."""
    matching = []
    for id_ in ids:
        if is_so(home.entities[id_], home.state(id_), asked):
            matching.append(id_)
    return tuple(matching)


def _in_zone(home: Home, ids: Sequence[str], zone: str) -> tuple[str, ...]:
    """Return the people who are in a zone; it is their state."""
    matching = []
    for id_ in ids:
        where = str(home.state(id_).get("state"))
        if fold(where) == zone:
            matching.append(id_)
    return tuple(matching)


def _plays(home: Home, id_: str) -> bool:
    """Whether an entity is a media player that plays."""
    is_player = home.entities[id_].domain == "media_player"
    return is_player and home.state(id_).get("state") == "playing"


def _facts(home: Home, id_: str) -> dict[str, Value]:
    """Return the state of an entity, its unit if it has one, and its readings."""
    entity = home.entities[id_]
    state = home.state(id_)
    word = str(state["state"])
    if entity.domain == "binary_sensor" and entity.device_class in OPENINGS:
        word = "open" if word == "on" else "closed"
    facts: dict[str, Value] = {"state": word}
    # `what is on the list`, `what is playing`
    if entity.domain == "todo":
        return {"items": "\n".join(state.get("items", ()))}
    if state.get("media_title") and word in _PLAYS:
        facts["media_title"] = str(state["media_title"])
    # the reading of a sensor has a unit
    if entity.unit:
        facts["unit"] = entity.unit
    for name in _READINGS:
        value = state.get(name)
        if isinstance(value, (int, float)):
            facts[name] = plain(value)
    return facts


def _get_temperature(resolved: Resolved, home: Home) -> QueryResult:
    """Answer with the degrees of every target that measures.

    Raises:
        ActRefused: none of them does.
    """
    targets = resolved.targets
    readings: dict[str, Value] = {}
    for id_ in targets:
        degrees = _degrees(home.entities[id_], home.state(id_))
        if degrees is not None:
            readings[id_] = degrees
    if not readings:
        raise ActRefused("unknown", entity=targets[0] if targets else "")
    return QueryResult((), targets, readings)


def _degrees(entity: Entity, state: State) -> float | None:
    """Return the degrees that a device measures; None if it does not measure."""
    if entity.domain == "sensor":
        try:
            return plain(float(state["state"]))
        except ValueError:
            # a sensor that is out of reach has a word as its state
            return None
    # `temperature` of a climate device is its target
    field = "temperature" if entity.domain == "weather" else "current_temperature"
    degrees = state.get(field)
    if degrees is None:
        return None
    return plain(degrees)


def _get_weather(resolved: Resolved, home: Home) -> QueryResult:
    """Answer with the readings of the home's weather service."""
    targets = resolved.targets
    return QueryResult((), targets, _facts(home, targets[0]))


def _get_time(resolved: Resolved, home: Home) -> QueryResult:
    """Answer with the time and the date at home."""
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
    """Answer with the whole seconds that are left of each timer.

    Raises:
        ActRefused: none of them is there.
    """
    timers = home.timers
    left: dict[str, Value] = {}
    for id_ in resolved.targets:
        if id_ in timers:
            seconds = home.seconds_left(timers[id_])
            left[id_] = plain(round(seconds))
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
