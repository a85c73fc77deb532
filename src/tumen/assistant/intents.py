"""What each intent may act on, and how many things it means. Data, in the terms of Home Assistant's Assist."""

from __future__ import annotations

SWITCHABLE = ("light", "switch", "fan", "media_player", "input_boolean")
"""What `everything` means in "turn everything off": no locks, covers or heating."""

_MEDIA = tuple(f"HassMedia{verb}" for verb in ("Pause", "Unpause", "Next", "Previous"))
_SOUND = ("HassMediaPlayerMute", "HassMediaPlayerUnmute", "HassSetVolume", "HassSetVolumeRelative")
_LISTS = ("HassListAddItem", "HassListCompleteItem", "HassListRemoveItem")
_VACUUM = ("HassVacuumStart", "HassVacuumReturnToBase", "HassVacuumCleanArea")
_MOWER = ("HassLawnMowerStartMowing", "HassLawnMowerDock")

ACTS_ON: dict[str, tuple[str, ...]] = {
    "HassTurnOn": (
        *SWITCHABLE,
        "cover",
        "valve",
        "lock",
        "climate",
        "vacuum",
        "lawn_mower",
        "scene",
        "script",
        "button",
    ),
    "HassTurnOff": (
        *SWITCHABLE,
        "cover",
        "valve",
        "lock",
        "climate",
        "vacuum",
        "lawn_mower",
        "script",
    ),
    "HassLightSet": ("light",),
    "HassSetPosition": ("cover", "valve"),
    "HassClimateGetTemperature": ("climate", "sensor", "weather"),
    "HassClimateSetTemperature": ("climate",),
    "HassClimateSetFanMode": ("climate",),
    "HassFanSetSpeed": ("fan",),
    **dict.fromkeys(_VACUUM, ("vacuum",)),
    **dict.fromkeys(_MOWER, ("lawn_mower",)),
    **dict.fromkeys(
        (*_MEDIA, *_SOUND, "HassMediaSearchAndPlay", "HassBroadcast"), ("media_player",)
    ),
    **dict.fromkeys(
        (*_LISTS, "HassShoppingListAddItem", "HassShoppingListCompleteItem"), ("todo",)
    ),
    "HassGetWeather": ("weather",),
}
"""The domains an intent may act on. As in Home Assistant turning on opens a cover, locks a lock, activates a scene."""

_ON_OFF = (*SWITCHABLE, "climate", "binary_sensor", "vacuum", "lawn_mower", "script")
BY_STATE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("on", "off"), _ON_OFF),
    **dict.fromkeys(("open", "closed", "opening", "closing"), ("cover", "valve", "binary_sensor")),
    **dict.fromkeys(("locked", "unlocked"), ("lock",)),
}
"""The domains a question about a state is about."""

OPENINGS = frozenset(("door", "window", "garage", "garage_door", "opening"))
"""Classes of binary sensors that are open or closed instead of on or off."""

ONE_MEANT = frozenset(
    (*_MEDIA, *_LISTS, *_VACUUM, *_MOWER, "HassMediaSearchAndPlay", "HassGetWeather")
)
"""Intents that mean one device even where the words fit several."""

ACTIVE: dict[str, tuple[str, ...]] = {
    "HassMediaPause": ("playing",),
    "HassMediaUnpause": ("paused",),
    **dict.fromkeys(("HassMediaNext", "HassMediaPrevious"), ("playing", "paused")),
    **dict.fromkeys(_SOUND, ("playing", "paused", "on", "idle")),
    "HassVacuumReturnToBase": ("cleaning", "paused"),
}
"""The states that make one of several devices the one that is meant."""

CLASSES = {
    "window": "cover,binary_sensor:window",
    "door": "cover,lock,binary_sensor:door",
    "garage": "cover,binary_sensor:garage",
}
"""Device classes that are more than covers; the others are `cover:<class>`."""
