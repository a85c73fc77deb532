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

Facts = Mapping[str, Any]
"""Readings by name or id."""


def reply_to_query(phrasing: Phrasing, resolved: Resolved, answer: QueryResult) -> str:
    """Return the reply to a question that was answered.

    Args:
        phrasing: the words of the reply.
        resolved: the question.
        answer: what was found.
    """
    facts: Facts = answer.facts
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
    if "items" in facts:
        return _items(phrasing, answer.among, facts)
    if "asked" in facts:
        return _state_question(phrasing, resolved, answer)
    return _states(phrasing, answer.among, facts)


def _date(phrasing: Phrasing, facts: Facts) -> str:
    """Return the date with its weekday."""
    catalogue = phrasing.catalogue
    return phrasing.reply(
        "date",
        weekday=catalogue.weekdays[facts["weekday"]],
        month=catalogue.months[facts["month"] - 1],
        day=facts["day"],
        year=facts["year"],
    )


def _temperatures(phrasing: Phrasing, degrees_by_id: Facts) -> str:
    """Return the degrees of each reading with its place."""
    texts = []
    for id_, degrees in degrees_by_id.items():
        place = phrasing.place_of_reading(id_)
        reading = phrasing.reply("temperature", names=place, what=f"{degrees} °C")
        texts.append(reading)
    return phrasing.sentences(texts)


def _timers(phrasing: Phrasing, seconds_left: Facts) -> str:
    """Return what is left of each timer."""
    timers = phrasing.home.timers
    texts = []
    for id_, seconds in seconds_left.items():
        name = phrasing.timer(id_, timers[id_].fields())
        left = phrasing.time(seconds)
        texts.append(phrasing.reply("timer_left", names=name, time=left))
    return phrasing.sentences(texts)


def _items(phrasing: Phrasing, among: Sequence[str], facts: Facts) -> str:
    """Return what is on a list."""
    names = phrasing.titles(among)[0]
    items = [item for item in str(facts["items"]).split("\n") if item]
    if not items:
        return phrasing.reply("list_empty", names=names)
    return phrasing.reply("list_items", names=names, items=phrasing.listed(items))


# -- what state is it in? ------------------------------------------------------------------------


def _states(phrasing: Phrasing, among: Sequence[str], facts: Facts) -> str:
    """Return the states of devices where no state was asked for."""
    if len(among) == 1:
        title = phrasing.title(among[0])
        return phrasing.reply("is", names=title, what=_readings(phrasing, facts))
    texts = []
    for id_ in among:
        title = phrasing.title(id_)
        state = phrasing.word(phrasing.state_word(id_))
        texts.append(f"{title}: {state}")
    return phrasing.reply("which_yes", names=phrasing.shortened(texts))


def _readings(phrasing: Phrasing, facts: Facts) -> str:
    """Return `on, brightness 50 %`; the state of a sensor with its unit."""
    if "unit" in facts:
        return f"{facts['state']} {facts['unit']}"
    texts = [phrasing.word(facts["state"])]
    for name, value in facts.items():
        if name == "state":
            continue
        if name == "media_title":
            texts.append(str(value))
            continue
        quantity = phrasing.quantity(name, value)
        needs_name = name != "temperature" or len(facts) >= _FEW_FACTS
        if needs_name:
            quantity = f"{phrasing.word(name)} {quantity}"
        texts.append(quantity)
    return phrasing.catalogue.fact_comma.join(texts)


# -- is it in this state? ------------------------------------------------------------------------


def _state_question(phrasing: Phrasing, resolved: Resolved, answer: QueryResult) -> str:
    """Return whether, which or how many devices are in the state that was asked for."""
    ask = str(resolved.values.get("ask", ""))
    # one device: yes or no is enough
    if len(answer.among) == 1 and ask not in ("which", "how_many"):
        return _yes_or_no(phrasing, answer)
    if ask in ("all", ""):
        return _all_of_them(phrasing, answer)
    if ask == "how_many":
        return _how_many(phrasing, answer)
    # `where is Anna` of several people lists who is there
    question = "any" if ask == "any" else "which"
    found = "yes" if answer.matching else "no"
    names = phrasing.shortened(phrasing.titles(answer.matching))
    return phrasing.reply(f"{question}_{found}", names=names, count=phrasing.counted(answer.among))


def _yes_or_no(phrasing: Phrasing, answer: QueryResult) -> str:
    """Return whether one device is in the state, and which state it is in."""
    id_ = answer.among[0]
    key = "yes_one" if answer.matching else "no_one"
    return phrasing.reply(key, names=phrasing.title(id_), what=_state(phrasing, id_))


def _all_of_them(phrasing: Phrasing, answer: QueryResult) -> str:
    """Return whether all devices are in the state, or which are not."""
    count = phrasing.counted(answer.among)
    others = [id_ for id_ in answer.among if id_ not in answer.matching]
    # `all lights are on` is answered by those that are not
    if not others:
        return phrasing.reply("all_yes", count=count)
    names = phrasing.shortened(phrasing.titles(others))
    return phrasing.reply("all_no", count=count, part=len(others), names=names)


def _how_many(phrasing: Phrasing, answer: QueryResult) -> str:
    """Return the number of devices in the state, with their names if they are few."""
    part = len(answer.matching)
    count = phrasing.counted(answer.among)
    if 0 < part <= MAX_SHOWN:
        names = phrasing.shortened(phrasing.titles(answer.matching))
        return phrasing.reply("how_many_some", part=part, count=count, names=names)
    return phrasing.reply("how_many", part=part, count=count)


def _state(phrasing: Phrasing, id_: str) -> str:
    """Return the state of an entity; a sensor on a door or window is open or closed."""
    state = phrasing.state_word(id_)
    entity = phrasing.home.entities[id_]
    if entity.domain == "binary_sensor" and entity.device_class in _TOLD_AS_OPEN:
        state = {"on": "open", "off": "closed"}.get(state, state)
    return phrasing.word(state)
