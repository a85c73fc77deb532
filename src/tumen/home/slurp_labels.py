"""Labels: the intents of SLURP's `iot` and `audio` scenarios as actions of a home.

A model that was trained on people's sentences (SLURP's labels) and on Home Assistant's templates
may answer with either; a home knows only Home Assistant's intents.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tumen.language import Action


@dataclass(frozen=True)
class _Meaning:
    """The intent of a home that a label stands for, with slots that the label implies."""

    intent: str
    slots: dict[str, str] = field(default_factory=dict)


_LABELS: dict[str, _Meaning] = {
    "iot_hue_lighton": _Meaning("HassTurnOn", {"domain": "light"}),
    "iot_hue_lightoff": _Meaning("HassTurnOff", {"domain": "light"}),
    "iot_hue_lightup": _Meaning("HassLightSet", {"step": "up"}),
    "iot_hue_lightdim": _Meaning("HassLightSet", {"step": "down"}),
    "iot_hue_lightchange": _Meaning("HassLightSet"),
    "iot_wemo_on": _Meaning("HassTurnOn"),
    "iot_wemo_off": _Meaning("HassTurnOff"),
    "iot_coffee": _Meaning("HassTurnOn"),
    "iot_cleaning": _Meaning("HassVacuumStart"),
    "audio_volume_up": _Meaning("HassSetVolumeRelative", {"step": "up"}),
    "audio_volume_down": _Meaning("HassSetVolumeRelative", {"step": "down"}),
    "audio_volume_mute": _Meaning("HassMediaPlayerMute"),
}
_SLOTS = {"house_place": "area", "device_type": "name", "color_type": "color"}

# device words that name every light instead of one; SLURP is English
_LIGHT_WORDS = frozenset(("light", "lights", "lamp", "lamps", "bulb", "bulbs", "lighting"))

# intents that act on all lights or players where no device is named
_UNNAMED = ("HassLightSet", "HassMediaPlayerMute", "HassSetVolumeRelative")
_COFFEE = "coffee"  # the name of the machine that makes it


def at_home(action: Action) -> Action:
    """Return an action with SLURP's label as the same request to a home.

    Actions that have a home's intent already, and labels that no home carries out, stay unchanged.
    """
    meaning = _LABELS.get(action.intent)
    if meaning is None:
        return action
    slots = meaning.slots | _renamed_slots(action)
    if meaning.intent in _UNNAMED or "domain" in slots:
        _drop_light_words(slots)
    # only a light has a color
    if meaning.intent != "HassLightSet":
        slots.pop("color", None)
    if action.intent == "iot_coffee":
        slots["name"] = _COFFEE
    if meaning.intent == "HassVacuumStart":
        return _cleaning(action.lang, slots)
    return Action(meaning.intent, action.lang, slots)


def _renamed_slots(action: Action) -> dict[str, str]:
    """Return the slots of a label that a home knows, under their names there."""
    slots = {}
    for theirs, ours in _SLOTS.items():
        if theirs in action.slots:
            # a slot may hold several runs of words; the first names the device
            slots[ours] = action.runs(theirs)[0]
    return slots


def _cleaning(lang: str, slots: dict[str, str]) -> Action:
    """Return the request to clean an area, or the whole home."""
    # there is one vacuum cleaner, whatever it is called
    slots.pop("name", None)
    intent = "HassVacuumCleanArea" if "area" in slots else "HassVacuumStart"
    return Action(intent, lang, slots)


def _drop_light_words(slots: dict[str, str]) -> None:
    """Remove a name that is `the lights` and nothing else."""
    words = set(slots.get("name", "").removeprefix("the ").split())
    if words <= _LIGHT_WORDS:
        slots.pop("name", None)
