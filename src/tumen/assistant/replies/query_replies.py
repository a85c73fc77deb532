"""Query replies: the answers to questions about the home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tumen.assistant.acts import QueryResult
from tumen.assistant.intents import OPENINGS
from tumen.assistant.replies.phrasing import Phrasing
from tumen.assistant.resolution import MAX_SHOWN, Resolved

# `garage` is a class of covers; sensors on a garage door have `garage_door`
_TOLD_AS_OPEN = OPENINGS - {"garage"}
_FEW_FACTS = 5  # a device with fewer readings has one temperature, which needs no name


def reply_to_query(phrasing: Phrasing, resolved: Resolved, answer: QueryResult) -> str:
    """Return the reply to a question that was answered."""
    facts: Mapping[str, Any] = answer.facts
    match resolved.intent:
        case "HassGetCurrentTime":
            return phrasing.reply("time", hour=facts["hour"], minute=facts["minute"])
        case "HassGetCurrentDate":
            return _date(phrasing, facts)
        case "HassGetWeather":
            return phrasing.reply("weather", what=_readings(phrasing, facts))
        case "HassClimateGetTemperature":
            return _temperatures(phrasing, facts)
        case "HassTimerStatus":
            return _timers(phrasing, facts)
    if "asked" in facts:
        return _state_question(phrasing, resolved, answer)
    return _states(phrasing, answer.among, facts)


def _date(phrasing: Phrasing, facts: Mapping[str, Any]) -> str:
    weekday = phrasing.catalogue.weekdays[facts["weekday"]]
    month = phrasing.catalogue.months[facts["month"] - 1]
    day, year = facts["day"], facts["year"]
    return phrasing.reply("date", weekday=weekday, month=month, day=day, year=year)


def _temperatures(phrasing: Phrasing, degrees_by_id: Mapping[str, Any]) -> str:
    told = []
    for id_, degrees in degrees_by_id.items():
        names = phrasing.place_of_reading(id_)
        told.append(phrasing.reply("temperature", names=names, what=f"{degrees} °C"))
    return phrasing.sentences(told)


def _timers(phrasing: Phrasing, seconds_left: Mapping[str, Any]) -> str:
    timers = phrasing.home.timers
    told = []
    for id_, seconds in seconds_left.items():
        names = phrasing.timer(id_, timers[id_].fields())
        told.append(phrasing.reply("timer_left", names=names, time=phrasing.time(seconds)))
    return phrasing.sentences(told)


def _states(phrasing: Phrasing, among: Sequence[str], facts: Mapping[str, Any]) -> str:
    """Return the states of devices where no state was asked for."""
    if len(among) == 1:
        what = _readings(phrasing, facts)
        return phrasing.reply("is", names=phrasing.title(among[0]), what=what)
    told = []
    for id_ in among:
        state = phrasing.word(phrasing.home.state(id_).get("state"))
        told.append(f"{phrasing.title(id_)}: {state}")
    return phrasing.reply("which_yes", names=phrasing.shortened(told))


def _readings(phrasing: Phrasing, facts: Mapping[str, Any]) -> str:
    """Return `on, brightness 50 %`; the state of a sensor with its unit."""
    if "unit" in facts:
        return f"{facts['state']} {facts['unit']}"
    told = [phrasing.word(facts["state"])]
    for name, value in facts.items():
        if name == "state":
            continue
        quantity = phrasing.quantity(name, value)
        if name == "temperature" and len(facts) < _FEW_FACTS:
            told.append(quantity)
        else:
            told.append(f"{phrasing.word(name)} {quantity}")
    return phrasing.catalogue.fact_comma.join(told)


def _state_question(phrasing: Phrasing, resolved: Resolved, answer: QueryResult) -> str:
    """Return whether, which or how many devices are in the state that was asked for."""
    matching, among = answer.matching, answer.among
    ask = str(resolved.values.get("ask", ""))
    if len(among) == 1 and ask in ("", "where", "all", "any"):
        key = "yes_one" if matching else "no_one"
        state = _state(phrasing, among[0])
        return phrasing.reply(key, names=phrasing.title(among[0]), what=state)
    count = phrasing.counted(among)
    if ask in ("all", ""):
        others = [id_ for id_ in among if id_ not in matching]
        if not others:
            return phrasing.reply("all_yes", count=count)
        names = phrasing.shortened(phrasing.titles(others))
        return phrasing.reply("all_no", count=count, part=len(others), names=names)
    names = phrasing.shortened(phrasing.titles(matching))
    if ask == "how_many":
        key = "how_many_some" if 0 < len(matching) <= MAX_SHOWN else "how_many"
        return phrasing.reply(key, part=len(matching), count=count, names=names)
    # `where is Anna` of several people lists who is there
    question = "any" if ask == "any" else "which"
    found = "yes" if matching else "no"
    return phrasing.reply(f"{question}_{found}", names=names, count=count)


def _state(phrasing: Phrasing, id_: str) -> str:
    """Return the state of an entity; a sensor on a door or window says open or closed."""
    state = str(phrasing.home.state(id_).get("state"))
    is_sensor = id_.startswith("binary_sensor.")
    if is_sensor and phrasing.home.entities[id_].device_class in _TOLD_AS_OPEN:
        state = {"on": "open", "off": "closed"}.get(state, state)
    return phrasing.word(state)
