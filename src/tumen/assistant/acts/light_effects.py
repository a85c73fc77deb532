"""Light effects: brightness, colour and colour temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tumen.assistant.acts.limits import STEP_PERCENT, in_range, percent
from tumen.assistant.acts.outcomes import ActRefused
from tumen.assistant.resolution import Resolved
from tumen.assistant.values import plain
from tumen.home import Entity, Home, State

_NEEDS = {
    "brightness": "brightness",
    "step": "brightness",
    "color": "color",
    "temperature": "color_temperature",
}
"""What a light must support for a slot."""


def lacks(entity: Entity, values: Mapping[str, Any]) -> str | None:
    """Return what a light is asked for and does not support; None if it supports all."""
    if entity.supports is None:
        return None
    for slot, ability in _NEEDS.items():
        if slot in values and ability not in entity.supports:
            return ability
    return None


def set_light(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a light that is set; setting a light turns it on."""
    lacking = lacks(entity, values)
    if lacking:
        raise ActRefused("lacks", entity=entity.id, slot=lacking)
    fields: State = {"state": "on"}
    if "step" in values:
        fields |= _step(entity, state, values)
    elif "brightness" in values:
        fields |= _level(percent(entity, "brightness", values["brightness"]))
    if "color" in values:
        fields["color"] = values["color"]
    if "temperature" in values:
        limits = (entity.min_color_temperature, entity.max_color_temperature)
        kelvin = in_range(entity, "color_temperature", values["temperature"], limits, "K")
        fields["color_temperature"] = kelvin
    return fields


def _step(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields one step brighter or darker, between 0 and 100 %."""
    by = percent(entity, "brightness", values.get("brightness", STEP_PERCENT))
    # a light that is off has 0, whatever brightness it remembers
    now = state.get("brightness", 100) if state["state"] == "on" else 0
    if values["step"] == "up":
        return {"brightness": plain(min(100, now + by))}
    return _level(plain(max(0, now - by)))


def _level(brightness: float) -> State:
    """Return the fields of a brightness; 0 turns the light off and keeps what it had."""
    return {"brightness": brightness} if brightness else {"state": "off"}


def lights_to_set(resolved: Resolved, home: Home) -> tuple[str, ...]:
    """Return the lights of a group that can do what is asked; for a step, those that are on."""
    if resolved.intent != "HassLightSet" or len(resolved.targets) < 2:
        return resolved.targets
    able = [id_ for id_ in resolved.targets if not lacks(home.entities[id_], resolved.values)]
    if "step" in resolved.values:
        lit = [id_ for id_ in able if home.state(id_).get("state") == "on"]
        able = lit or able
    # if none is able, the effect says why
    return tuple(able) or resolved.targets
