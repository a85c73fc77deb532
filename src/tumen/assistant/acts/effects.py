"""Effects: what an intent makes of one device.

An effect returns the fields that change, from an entity, its state and the values that were said.
It refuses a value outside of the entity's range, and never changes anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tumen.assistant.acts import light_effects, media_effects
from tumen.assistant.acts.limits import in_range, needed, percent
from tumen.assistant.acts.outcomes import ActRefused
from tumen.home import Entity, State

Effect = Callable[[Entity, State, Mapping[str, Any]], State]

# as in Home Assistant: turning on locks a lock and starts a vacuum
_STATE_WHEN_ON = {"lock": "locked", "vacuum": "cleaning", "lawn_mower": "mowing"}
_STATE_WHEN_OFF = {"lock": "unlocked", "vacuum": "returning", "lawn_mower": "returning"}


def _turn_on(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    match entity.domain:
        case "cover" | "valve":
            return {"state": "open", "position": 100}
        case "climate":
            # a device that cools already is not set to heating
            return {"state": entity.mode} if state["state"] == "off" else {}
        case "media_player":
            return {"state": "on"} if state["state"] in ("off", "standby") else {}
        case "fan" if state.get("percentage") == 0:
            return {"state": "on", "percentage": 100}
        case "light" if state.get("brightness") == 0:
            return {"state": "on", "brightness": 100}
    return {"state": _STATE_WHEN_ON.get(entity.domain, "on")}


def _turn_off(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    if entity.domain in ("cover", "valve"):
        return {"state": "closed", "position": 0}
    if entity.domain in ("vacuum", "lawn_mower") and state["state"] == "docked":
        return {}
    return {"state": _STATE_WHEN_OFF.get(entity.domain, "off")}


def _set_position(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    position = percent(entity, "position", needed(values, "position"))
    return {"position": position, "state": "open" if position else "closed"}


def _set_temperature(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    limits = (entity.min_temperature, entity.max_temperature)
    degrees = in_range(entity, "temperature", needed(values, "temperature"), limits, "°C")
    return {"temperature": degrees}


def _set_fan_mode(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    mode = needed(values, "fan_mode")
    if mode not in entity.fan_modes:
        known = ", ".join(entity.fan_modes)
        raise ActRefused("mode", entity=entity.id, words=mode, modes=known)
    return {"fan_mode": mode}


def _set_fan_speed(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    speed = percent(entity, "percentage", needed(values, "percentage"))
    return {"percentage": speed, "state": "on" if speed else "off"}


def _clean(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    fields: State = {"state": "cleaning"}
    if "area" in values:
        fields["cleaning_area"] = values["area"]
    return fields


EFFECTS: dict[str, Effect] = {
    "HassTurnOn": _turn_on,
    "HassTurnOff": _turn_off,
    "HassLightSet": light_effects.set_light,
    "HassSetPosition": _set_position,
    "HassClimateSetTemperature": _set_temperature,
    "HassClimateSetFanMode": _set_fan_mode,
    "HassFanSetSpeed": _set_fan_speed,
    "HassVacuumStart": _clean,
    "HassVacuumCleanArea": _clean,
    "HassVacuumReturnToBase": _turn_off,
    "HassLawnMowerStartMowing": _turn_on,
    "HassLawnMowerDock": _turn_off,
    "HassMediaPause": media_effects.pause,
    "HassMediaUnpause": media_effects.unpause,
    "HassMediaNext": media_effects.next_track,
    "HassMediaPrevious": media_effects.previous_track,
    "HassMediaPlayerMute": media_effects.mute,
    "HassMediaPlayerUnmute": media_effects.unmute,
    "HassMediaSearchAndPlay": media_effects.play,
    "HassSetVolume": media_effects.set_volume,
    "HassSetVolumeRelative": media_effects.step_volume,
}
"""The effect of each intent that acts on devices one by one."""
