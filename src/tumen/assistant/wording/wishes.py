"""Wishes: how it is, instead of what to do (`I'm freezing`, `we're out of milk`).

A model that learnt from commands dims the light where it is too dark, and does nothing where
somebody freezes. What such words ask for is the same in every home; what does it is the home's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from tumen.assistant.intents import ENTRANCES
from tumen.assistant.modifiers import alternatives, script_of
from tumen.assistant.wording.tables import asks, phrases_by_key, phrases_of
from tumen.home import Entity, Home, common_words, fold, mentions_of
from tumen.language import ACTS, INTENTS, Action

_MEANINGS = {
    "light up": ("HassLightSet", {"domain": "light", "step": "up"}),
    "light down": ("HassLightSet", {"domain": "light", "step": "down"}),
    "volume up": ("HassSetVolumeRelative", {"step": "up"}),
    "volume down": ("HassSetVolumeRelative", {"step": "down"}),
    "climate up": ("HassClimateSetTemperature", {"step": "up"}),
    "climate down": ("HassClimateSetTemperature", {"step": "down"}),
    "air on": ("HassTurnOn", {"domain": "fan"}),
    "fan down": ("HassFanSetSpeed", {"step": "down"}),
    "vacuum on": ("HassVacuumStart", {}),
    "mower on": ("HassLawnMowerStartMowing", {}),
    "shade on": ("HassTurnOff", {"domain": "cover"}),
}
"""What each wish asks for, by its key in the language files."""

_ITEM = "{item}"
_MOST_ITEM_WORDS = 4
_MOST_ITEM_CHARACTERS = 8
_VALUES = ("brightness", "color", "temperature", "volume", "percentage", "position", "query")


def with_wish(said: str, action: Action, home: Home, here: str | None) -> Action:
    """Return the action that a wish asks for; other actions stay as they are.

    Args:
        said: the normalised sentence.
        action: what a model made of it.
        home: the home that is spoken to.
        here: the area of the speaker, if known.
    """
    script = script_of(said)
    if _is_about_more(said, script, action):
        return action
    item = _item(said, script, action, home)
    if item:
        return Action("HassShoppingListAddItem", action.lang, {"item": item})
    found = _wish(script).search(said)
    if found is None:
        return action
    key = _key_of(script, found[0])
    if key == "coffee on":
        return _coffee(action, home, script)
    intent, slots = _MEANINGS[key]
    if key == "shade on" and _only_awning(home, here):
        intent, slots = "HassTurnOn", {"device_class": "awning"}
    return _placed(action, intent, slots)


def wish_spans(said: str) -> list[tuple[int, int]]:
    """Return (start, end) of the characters of wishes: `can't see` forbids nothing."""
    script = script_of(said)
    patterns = (_wish(script), *(pattern for pattern in _used_up(script)))
    return [match.span() for pattern in patterns for match in pattern.finditer(said)]


def _is_about_more(said: str, script: str, action: Action) -> bool:
    """Whether a sentence asks, or is a command with a value of its own."""
    if asks(said, script):
        return True
    if any(slot in action.slots for slot in _VALUES) and action.intent in ACTS:
        return True
    if "Timer" in action.intent or action.intent in ("HassBroadcast", "HassListAddItem"):
        return True
    commands = phrases_of(script, "wishes", "commands")
    is_command = re.search(alternatives(commands), said) is not None
    return is_command and action.intent in ACTS


def _placed(action: Action, intent: str, slots: dict[str, str]) -> Action:
    """Return an action about the place that was said, or the speaker's."""
    wanted = dict(slots)
    if "area" in action.slots and "area" in INTENTS[intent]:
        wanted["area"] = action.slots["area"]
    ordered = {slot: wanted[slot] for slot in INTENTS[intent] if slot in wanted}
    return replace(action, intent=intent, slots=ordered)


def _coffee(action: Action, home: Home, script: str) -> Action:
    """Return that the machine that makes coffee is switched on, if there is just one."""
    words = phrases_of(script, "wishes", "coffee")
    machines = [entity for entity in home.entities.values() if _makes(entity, words)]
    if len(machines) != 1:
        return action
    return Action("HassTurnOn", action.lang, {"name": machines[0].name_in(action.lang)})


def _makes(entity: Entity, words: Sequence[str]) -> bool:
    """Whether a machine is called by what it makes."""
    if entity.domain not in ("switch", "script", "button"):
        return False
    return any(word in fold(name) for name in entity.names for word in words)


def _only_awning(home: Home, here: str | None) -> bool:
    """Whether the only cover against the sun at a place is an awning, which is let out."""
    covers = [
        entity.device_class
        for entity in home.entities.values()
        if entity.domain == "cover"
        and entity.device_class not in ENTRANCES
        and (here is None or entity.area == here)
    ]
    return bool(covers) and set(covers) == {"awning"}


# -- what is used up -----------------------------------------------------------------------------


def _item(said: str, script: str, action: Action, home: Home) -> str:
    """Return what is used up and goes onto the shopping list; empty if nothing is."""
    for pattern in _used_up(script):
        found = pattern.search(said)
        if found is None:
            continue
        item = _bare(found["item"].strip(), script)
        if not item or _is_no_item(item, script) or mentions_of(home.index, item, action.lang):
            continue
        return item
    return ""


def _is_no_item(item: str, script: str) -> bool:
    """Whether words name what is not bought: `we are out of the house`."""
    words = common_words()
    return item in phrases_of(script, "wishes", "not_items") or fold(item) in words.everywhere


def _bare(item: str, script: str) -> str:
    """Return an item without the small words around it."""
    for _ in range(2):
        for word in phrases_of(script, "wishes", "item_before"):
            item = item.removeprefix(word if script else f"{word} ")
        for word in phrases_of(script, "wishes", "item_after"):
            item = item.removesuffix(word if script else f" {word}")
    return item.strip()


@cache
def _used_up(script: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of what is used up, the longest first."""
    phrases = phrases_of(script, "wishes", "list add")
    words = rf"\S+(?: \S+){{0,{_MOST_ITEM_WORDS - 1}}}?"
    if script:
        words = rf"\S{{1,{_MOST_ITEM_CHARACTERS}}}?"
    item = f"(?P<item>{words})"
    found = []
    for phrase in sorted(phrases, key=len, reverse=True):
        before, _, after = phrase.partition(_ITEM)
        text = re.escape(before) + item + re.escape(after)
        # what follows belongs to the item where nothing closes it
        end = r"(?:了|啦|呢|哦|啊)?$" if script else r"(?: .{0,12})?$" if after else "$"
        start = "" if script or before else "^"
        edge = "" if script else r"(?<!\w)"
        found.append(re.compile(f"{start}{edge}{text}{end}"))
    return tuple(found)


@cache
def _wish(script: str) -> re.Pattern[str]:
    """Return the pattern of every wish but those for a list."""
    table = phrases_by_key(script, "wishes")
    keys = (*_MEANINGS, "coffee on")
    return re.compile(alternatives(phrase for key in keys for phrase in table.get(key, ())))


@cache
def _key_of(script: str, phrase: str) -> str:
    """Return the key of a wish by its words."""
    table = phrases_by_key(script, "wishes")
    return next(key for key, phrases in table.items() if phrase in phrases)
