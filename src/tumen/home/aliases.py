"""People's own words for what a home does: the labels of SLURP's `iot` and `audio` scenarios as actions of a home.

A model that learnt both from people (SLURP's labels) and from Home Assistant's templates (Assist's) may say either;
a home knows one.
"""

from __future__ import annotations

from tumen.language import Action

# label -> (intent of a home, slots that follow from it)
LABELS: dict[str, tuple[str, dict[str, str]]] = {
    "iot_hue_lighton": ("HassTurnOn", {"domain": "light"}),
    "iot_hue_lightoff": ("HassTurnOff", {"domain": "light"}),
    "iot_hue_lightup": ("HassLightSet", {"step": "up"}),
    "iot_hue_lightdim": ("HassLightSet", {"step": "down"}),
    "iot_hue_lightchange": ("HassLightSet", {}),
    "iot_wemo_on": ("HassTurnOn", {}),
    "iot_wemo_off": ("HassTurnOff", {}),
    "iot_coffee": ("HassTurnOn", {}),
    "iot_cleaning": ("HassVacuumStart", {}),
    "audio_volume_up": ("HassSetVolumeRelative", {"step": "up"}),
    "audio_volume_down": ("HassSetVolumeRelative", {"step": "down"}),
    "audio_volume_mute": ("HassMediaPlayerMute", {}),
}
SLOTS = {"house_place": "area", "device_type": "name", "color_type": "color"}
LIGHTS = frozenset(
    ["light", "lights", "lamp", "lamps", "bulb", "bulbs", "lighting"]
)  # when no light is named
COFFEE = "coffee"  # the machine that is switched on when coffee is asked for


def at_home(action: Action) -> Action:
    """The same request as an action of a home; an action that is one already, or that no home does, stays as it is."""
    if action.intent not in LABELS:
        return action
    intent, slots = LABELS[action.intent][0], dict(LABELS[action.intent][1])
    for theirs, ours in SLOTS.items():
        if theirs in action.slots:
            slots[ours] = action.runs(theirs)[0]
    if (
        intent in ("HassLightSet", "HassMediaPlayerMute", "HassSetVolumeRelative")
        or "domain" in slots
    ):
        named = set(slots.get("name", "").removeprefix("the ").split())
        if named <= LIGHTS:
            slots.pop("name", None)
    if action.intent == "iot_coffee":
        slots["name"] = COFFEE
    if intent == "HassVacuumStart":
        slots.pop("name", None)
        intent = "HassVacuumCleanArea" if "area" in slots else intent
    if "color" in slots and intent != "HassLightSet":
        slots.pop("color")
    return Action(intent, action.lang, slots)
