"""Which devices each intent may act on, in the terms of Home Assistant's Assist. Data only."""

from __future__ import annotations

SWITCHABLE = ("light", "switch", "fan", "media_player", "input_boolean")
"""What `everything` means in "turn everything off": not locks, covers or heating."""

_TURNED_BOTH_WAYS = (*SWITCHABLE, "cover", "valve", "lock", "climate", "vacuum", "lawn_mower")
ACTS_ON: dict[str, tuple[str, ...]] = {
    # as in Home Assistant, turning on opens a cover, locks a lock and activates a scene
    # what a script has done is not undone by turning it off
    "HassTurnOn": (*_TURNED_BOTH_WAYS, "script", "scene", "button"),
    "HassTurnOff": _TURNED_BOTH_WAYS,
    "HassLightSet": ("light",),
    "HassSetPosition": ("cover", "valve"),
    # whatever measures
    "HassClimateGetTemperature": ("climate", "sensor", "weather"),
    "HassClimateSetTemperature": ("climate",),
    "HassClimateSetFanMode": ("climate",),
    "ClimateSetMode": ("climate",),
    "HassStopMoving": ("cover", "valve"),
    "HassFanSetSpeed": ("fan",),
    "HassVacuumStart": ("vacuum",),
    "HassVacuumReturnToBase": ("vacuum",),
    "HassVacuumCleanArea": ("vacuum",),
    "HassLawnMowerStartMowing": ("lawn_mower",),
    "HassLawnMowerDock": ("lawn_mower",),
    "HassMediaPause": ("media_player",),
    "HassMediaUnpause": ("media_player",),
    "HassMediaNext": ("media_player",),
    "HassMediaPrevious": ("media_player",),
    "HassMediaPlayerMute": ("media_player",),
    "HassMediaPlayerUnmute": ("media_player",),
    "HassMediaSearchAndPlay": ("media_player",),
    "HassSetVolume": ("media_player",),
    "HassSetVolumeRelative": ("media_player",),
    "HassBroadcast": ("media_player",),
    "HassListAddItem": ("todo",),
    "HassListCompleteItem": ("todo",),
    "HassListRemoveItem": ("todo",),
    "HassShoppingListAddItem": ("todo",),
    "HassShoppingListCompleteItem": ("todo",),
    "HassGetWeather": ("weather",),
}
"""The domains an intent may act on."""

_ON_OR_OFF = (*SWITCHABLE, "climate", "binary_sensor", "vacuum", "lawn_mower", "script")
_OPEN_OR_CLOSED = ("cover", "valve", "binary_sensor")
ASKED_OF: dict[str, tuple[str, ...]] = {
    "on": _ON_OR_OFF,
    "off": _ON_OR_OFF,
    "open": _OPEN_OR_CLOSED,
    "closed": _OPEN_OR_CLOSED,
    "opening": _OPEN_OR_CLOSED,
    "closing": _OPEN_OR_CLOSED,
    "locked": ("lock",),
    "unlocked": ("lock",),
}
"""The domains that a question about a state is about."""

OPENINGS = frozenset(("door", "window", "garage", "garage_door", "opening"))
"""Device classes of binary sensors that are open or closed instead of on or off."""

ENTRANCES = frozenset(("door", "garage", "garage_door", "gate"))
"""Device classes of covers that let people into the house."""

ONE_MEANT = frozenset(
    (
        "HassMediaPause",
        "HassMediaUnpause",
        "HassMediaNext",
        "HassMediaPrevious",
        "HassMediaSearchAndPlay",
        "HassListAddItem",
        "HassListCompleteItem",
        "HassListRemoveItem",
        "HassVacuumStart",
        "HassVacuumReturnToBase",
        "HassVacuumCleanArea",
        "HassLawnMowerStartMowing",
        "HassLawnMowerDock",
        "HassGetWeather",
    )
)
"""Intents that mean one device even where the words fit several."""

_HAS_SOUND = ("playing", "paused", "on", "idle")
ACTIVE_STATES: dict[str, tuple[str, ...]] = {
    "HassMediaPause": ("playing",),
    "HassMediaUnpause": ("paused",),
    "HassMediaNext": ("playing", "paused"),
    "HassMediaPrevious": ("playing", "paused"),
    "HassMediaPlayerMute": _HAS_SOUND,
    "HassMediaPlayerUnmute": _HAS_SOUND,
    "HassSetVolume": _HAS_SOUND,
    "HassSetVolumeRelative": _HAS_SOUND,
    "HassVacuumReturnToBase": ("cleaning", "paused"),
}
"""States by which one of several devices is the one that is meant, the strongest first."""

DEVICE_CLASS_KINDS = {
    "window": "cover,binary_sensor:window",
    "door": "cover,lock,binary_sensor:door",
    "garage": "cover,binary_sensor:garage",
    "humidity": "sensor:humidity",
}
"""Kinds of device classes that more than covers have; the others are `cover:<class>`."""
