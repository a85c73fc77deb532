"""Corrections: what the words of a command settle against a model that heard something else.

Each of these is a fact of the language or of the home, never a guess: `off` switches nothing on, a
number that is said to a lamp is a brightness, and a number ends where its words end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tumen.assistant.intents import ACTS_ON
from tumen.assistant.modifiers import alternatives, pattern_of, script_of, words_of
from tumen.assistant.reading.grounding import spans_of
from tumen.assistant.values import Unknown, Values, number_units
from tumen.home import Entity, Home
from tumen.language import INTENTS, NUMBERS, Action, units

_SWITCHED = ("light", "switch", "fan", "media_player")
"""Domains whose on and off are those of the words; a lock that is `on` is locked."""

_SETS = {
    "light": ("HassLightSet", "brightness"),
    "media_player": ("HassSetVolume", "volume"),
    "fan": ("HassFanSetSpeed", "percentage"),
    "cover": ("HassSetPosition", "position"),
    "climate": ("HassClimateSetTemperature", "temperature"),
}
"""What a number means that is said to a device of a domain."""

_NUMBER_CHARACTERS = re.compile("[零〇一二两三四五六七八九十百千半点分之几成0-9]")


def corrected(said: str, action: Action, home: Home, values: Values) -> Action:
    """Return an action as the words of a command have it.

    Args:
        said: the normalised command.
        action: what was understood, with the names of the home.
        home: the home that is spoken to.
        values: reads numbers.
    """
    action = with_whole_numbers(said, action)
    action = with_own_intent(action, home, values)
    return with_direction(said, action, home)


def with_direction(said: str, action: Action, home: Home) -> Action:
    """Return an action that switches the way that was said: `off` switches nothing on."""
    if action.intent not in ("HassTurnOn", "HassTurnOff"):
        return action
    if not _domains_of(action, home) <= set(_SWITCHED):
        return action
    script = script_of(said)
    says_on = _says(said, script, "on")
    says_off = _says(said, script, "off")
    if says_on == says_off:
        return action
    return replace(action, intent="HassTurnOn" if says_on else "HassTurnOff")


def with_own_intent(action: Action, home: Home, values: Values) -> Action:
    """Return an action that sets a device to a number by the intent of that device.

    `comet to 80 percent` is a brightness where Comet is a lamp.
    """
    entity = _only_entity(action, home)
    if entity is None or entity.domain not in _SETS:
        return action
    intent, slot = _SETS[entity.domain]
    if action.intent == intent and slot in action.slots:
        return action
    number = _number_in(action, slot, values)
    sets = (*(name for name, _ in _SETS.values()), "HassTurnOn")
    if not number or action.intent not in sets:
        return action
    # a lamp has a colour temperature and a colour as well
    if entity.domain in ACTS_ON.get(action.intent, ()) and slot not in INTENTS[action.intent]:
        return action
    if action.intent == intent and "color" not in action.slots:
        return action
    kept = {name: action.slots[name] for name in ("name", "area") if name in action.slots}
    wanted = {**kept, slot: number}
    ordered = {name: wanted[name] for name in INTENTS[intent] if name in wanted}
    return replace(action, intent=intent, slots=ordered)


def with_whole_numbers(said: str, action: Action) -> Action:
    """Return an action whose numbers are whole (`三分之一`, not `一`), with their unit."""
    pieces = units(said)
    slots = dict(action.slots)
    for span in spans_of(pieces, action):
        if span.slot not in NUMBERS or span.slot in ("duration", "start"):
            continue
        start, end = _number_around(pieces, span.start, span.end)
        if span.slot == "temperature":
            end = _unit_after(pieces, end)
        if (start, end) != (span.start, span.end):
            slots[span.slot] = "".join(pieces[start:end]).strip()
    return replace(action, slots=slots)


def _number_around(pieces: Sequence[str], start: int, end: int) -> tuple[int, int]:
    """Return the units of a number that some units are a part of."""
    while start > 0 and _NUMBER_CHARACTERS.fullmatch(pieces[start - 1].strip()):
        start -= 1
    while end < len(pieces) and _NUMBER_CHARACTERS.fullmatch(pieces[end].strip()):
        end += 1
    return start, end


def _unit_after(pieces: Sequence[str], end: int) -> int:
    """Return the end of the units of a number: `68 degrees Fahrenheit` is no 68 °C."""
    while end < len(pieces) and pieces[end].strip() in number_units():
        end += 1
    return end


def _says(said: str, script: str, key: str) -> bool:
    """Whether a command says on, or off."""
    if pattern_of(script, key).search(said):
        return True
    last = alternatives(words_of(script, f"{key}_last"))
    return re.search(rf"(?:{last})$", said) is not None


def _only_entity(action: Action, home: Home) -> Entity | None:
    """Return the one thing that is called just as the action says."""
    name = action.slots.get("name", "")
    if not name:
        return None
    plain, inflected = home.index.exact(name, action.lang)
    numbers = plain or inflected
    return home.index.entities[numbers[0]] if len(numbers) == 1 else None


def _domains_of(action: Action, home: Home) -> set[str]:
    """Return the domains that an action is about, as far as its words say."""
    if "domain" in action.slots:
        return {action.slots["domain"]}
    if "device_class" in action.slots:
        return {"cover"}
    entity = _only_entity(action, home)
    if entity:
        return {entity.domain}
    # `turn off the kitchen` is about what is switched; an unknown name may be anything
    return set() if "name" not in action.slots else {""}


def _number_in(action: Action, slot: str, values: Values) -> str:
    """Return the words of an action that are a number for a slot; empty if there are none."""
    for name in (*sorted(NUMBERS), "color"):
        words = action.slots.get(name, "")
        if name in ("duration", "start") or not words:
            continue
        value = values.read(slot, words, action.lang)
        if not isinstance(value, Unknown) and not isinstance(value, str):
            return words
    return ""
