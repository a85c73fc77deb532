"""Light effects: brightness, colour and colour temperature."""

from __future__ import annotations

from tumen.assistant.acts.target import SlotValues, Target
from tumen.assistant.resolution import Resolved
from tumen.home import Entity, Home, State

_NEEDS = {
    "brightness": "brightness",
    "step": "brightness",
    "color": "color",
    "temperature": "color_temperature",
}
"""What a light must support for a slot."""


def lacks(entity: Entity, values: SlotValues) -> str | None:
    """Return what a light is asked for and does not support; None if it supports all.

    Args:
        entity: the light.
        values: slot -> value.
    """
    # without a list of abilities a light supports everything
    if entity.supports is None:
        return None
    for slot, ability in _NEEDS.items():
        if slot in values and ability not in entity.supports:
            return ability
    return None


def set_light(light: Target) -> State:
    """Return the fields of a light that is set; setting a light turns it on.

    Raises:
        ActRefused: the light does not support what was said, or a value is out of range.
    """
    lacking = lacks(light.entity, light.values)
    if lacking:
        raise light.refused("lacks", slot=lacking)
    values = light.values
    fields: State = {"state": "on"}
    if "step" in values:
        fields |= _step(light)
    elif "brightness" in values:
        fields |= _level(light.percent("brightness"))
    if "color" in values:
        fields["color"] = values["color"]
    if "temperature" in values:
        # a light's `temperature` is that of its colour, in kelvin
        limits = (light.entity.min_color_temperature, light.entity.max_color_temperature)
        kelvin = light.in_range("color_temperature", values["temperature"], limits, "K")
        fields["color_temperature"] = kelvin
    return fields


def _step(light: Target) -> State:
    """Return the fields one step brighter or darker, between 0 and 100 %."""
    now = 0
    # a light that is off has 0, whatever brightness it remembers
    if light.state_word == "on":
        now = light.state.get("brightness", 100)
    after = light.stepped("brightness", now)
    if light.values["step"] == "up":
        return {"brightness": after}
    return _level(after)


def _level(brightness: float) -> State:
    """Return the fields of a brightness; 0 turns the light off and keeps what it had."""
    if brightness:
        return {"brightness": brightness}
    return {"state": "off"}


def lights_to_set(resolved: Resolved, home: Home) -> tuple[str, ...]:
    """Return the lights of a group that can do what is asked; for a step, those that are on.

    Targets of other intents, and single lights, are returned as they are.

    Args:
        resolved: the act.
        home: tells which lights are on.
    """
    targets = resolved.targets
    if resolved.intent != "HassLightSet" or len(targets) < 2:
        return targets
    able = []
    for id_ in targets:
        if not lacks(home.entities[id_], resolved.values):
            able.append(id_)
    if "step" in resolved.values:
        lit = [id_ for id_ in able if home.state(id_).get("state") == "on"]
        able = lit or able
    # if none is able, the effect on the first one raises the reason
    return tuple(able) or targets
