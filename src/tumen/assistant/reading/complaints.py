"""Complaints: how it is, instead of what to do (`it's too dark in here`).

A model that learned from commands hears `dark` and dims the light. What such words ask for is the
opposite of what they name, the same in every home.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from tumen.assistant.modifiers import alternatives, numbered, script_of
from tumen.language import INTENTS, NONE, Action

_INTENTS = {"light": "HassLightSet", "volume": "HassSetVolumeRelative"}
_VALUES = ("brightness", "color", "temperature", "volume")


def with_complaint(said: str, action: Action) -> Action:
    """Return the action that a complaint asks for; other actions stay as they are.

    Args:
        said: the normalised sentence.
        action: what a model made of it; its place is kept.
    """
    found = _complaint(script_of(said)).search(said)
    if found is None or any(slot in action.slots for slot in _VALUES):
        return action
    meaning = numbered(script_of(said), "complaints")[found[0]]
    about, step = meaning.split()
    # `what if it is too dark` asks for nothing, and a question stays one
    if action.intent not in (NONE, "HassTurnOn", "HassTurnOff", *_INTENTS.values()):
        return action
    intent = _INTENTS[about]
    slots = {slot: words for slot, words in action.slots.items() if slot in ("name", "area")}
    if "domain" in INTENTS[intent]:
        slots["domain"] = "light"
    wanted = {**slots, "step": step}
    ordered = {slot: wanted[slot] for slot in INTENTS[intent] if slot in wanted}
    return replace(action, intent=intent, slots=ordered)


def is_complaint(said: str) -> bool:
    """Return whether a normalised sentence says how it is."""
    return _complaint(script_of(said)).search(said) is not None


@cache
def _complaint(script: str) -> re.Pattern[str]:
    """Return the pattern of every complaint in a script."""
    return re.compile(alternatives(numbered(script, "complaints")))
