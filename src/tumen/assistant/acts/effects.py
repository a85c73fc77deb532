"""Effects: what an intent makes of one device.

An effect returns the fields that change. It refuses a value outside of the device's range, and
never changes anything itself.
"""

from __future__ import annotations

from collections.abc import Callable

from tumen.assistant.acts import light_effects, media_effects
from tumen.assistant.acts.target import Target
from tumen.assistant.values import plain
from tumen.home import State

Effect = Callable[[Target], State]

# as in Home Assistant: turning on locks a lock and starts a vacuum
_STATE_WHEN_ON = {"lock": "locked", "vacuum": "cleaning", "lawn_mower": "mowing"}
_STEP_SPEED = 25  # percent
_STEP_DEGREES = 1
_DIRECTION_OF_MODE = {"heat": "up", "cool": "down"}
_STATE_WHEN_OFF = {"lock": "unlocked", "vacuum": "returning", "lawn_mower": "returning"}


def _turn_on(device: Target) -> State:
    """Return the fields of a device that is turned on."""
    match device.domain:
        case "cover" | "valve":
            return {"state": "open", "position": 100}
        case "climate" if device.state_word == "off":
            return {"state": device.entity.mode}
        case "media_player" if device.state_word in ("off", "standby"):
            return {"state": "on"}
        case "climate" | "media_player":
            # what cools or plays already goes on doing so
            return {}
        case "fan" if device.state.get("percentage") == 0:
            return {"state": "on", "percentage": 100}
        case "light" if device.state.get("brightness") == 0:
            return {"state": "on", "brightness": 100}
    return {"state": _STATE_WHEN_ON.get(device.domain, "on")}


def _turn_off(device: Target) -> State:
    """Return the fields of a device that is turned off."""
    if device.domain in ("cover", "valve"):
        return {"state": "closed", "position": 0}
    # a vacuum on its base is not sent there again
    if device.domain in ("vacuum", "lawn_mower") and device.state_word == "docked":
        return {}
    return {"state": _STATE_WHEN_OFF.get(device.domain, "off")}


def _set_position(cover: Target) -> State:
    """Return the fields of a cover or valve at a position, 0 is closed."""
    if "step" in cover.values:
        now = cover.state.get("position", 0 if cover.state_word == "closed" else 100)
        position = cover.stepped("position", now)
    else:
        position = cover.percent("position")
    return {"position": position, "state": "open" if position else "closed"}


def _set_temperature(device: Target) -> State:
    """Return the fields of a climate device with a target temperature; it may be off."""
    entity = device.entity
    limits = (entity.min_temperature, entity.max_temperature)
    if "step" in device.values:
        return _step_temperature(device, limits)
    degrees = device.needed("temperature")
    return {"temperature": device.in_range("temperature", degrees, limits, "°C")}


def _step_temperature(device: Target, limits: tuple[float, float]) -> State:
    """Return the fields of a climate device that is to be warmer or cooler.

    One that is off and does just that is turned on: `it is hot in here` is no use to a cooler that
    stays off.
    """
    now = device.state.get("temperature", device.state.get("current_temperature"))
    if now is None:
        raise device.refused("unknown")
    step = device.values["step"]
    by = device.values.get("temperature", _STEP_DEGREES)
    after = now + by if step == "up" else now - by
    if "temperature" in device.values:
        after = device.in_range("temperature", after, limits, "°C")
    fields: State = {"temperature": plain(max(limits[0], min(limits[1], after)))}
    mode = device.entity.mode
    if device.state_word == "off" and _DIRECTION_OF_MODE.get(mode) == step:
        fields["state"] = mode
    return fields


def _set_mode(device: Target) -> State:
    """Return the fields of a climate device that heats, cools or dries; it is turned on."""
    mode = device.needed("mode")
    known = device.entity.modes
    if known and mode not in known:
        raise device.refused("mode", words=mode, modes=", ".join(known))
    return {"state": mode}


def _stop(cover: Target) -> State:
    """Return the fields of a cover or valve that stops where it is."""
    if cover.state_word not in ("opening", "closing"):
        return {}
    return {"state": "open" if cover.state.get("position", 100) else "closed"}


def _set_fan_mode(device: Target) -> State:
    """Return the fields of a climate device in a fan mode that it has."""
    mode = device.needed("fan_mode")
    known = device.entity.fan_modes
    if mode not in known:
        raise device.refused("mode", words=mode, modes=", ".join(known))
    return {"fan_mode": mode}


def _set_fan_speed(fan: Target) -> State:
    """Return the fields of a fan at a speed, 0 is off."""
    if "step" in fan.values:
        # a fan that is off has no speed, whatever it remembers
        now = fan.state.get("percentage", 100) if fan.state_word == "on" else 0
        speed = fan.stepped("percentage", now, _STEP_SPEED)
    else:
        speed = fan.percent("percentage")
    return {"percentage": speed, "state": "on" if speed else "off"}


def _clean(vacuum: Target) -> State:
    """Return the fields of a vacuum that cleans, and where."""
    fields: State = {"state": "cleaning"}
    if "area" in vacuum.values:
        fields["cleaning_area"] = vacuum.values["area"]
    return fields


EFFECTS: dict[str, Effect] = {
    "HassTurnOn": _turn_on,
    "HassTurnOff": _turn_off,
    "HassLightSet": light_effects.set_light,
    "HassSetPosition": _set_position,
    "HassClimateSetTemperature": _set_temperature,
    "HassClimateSetFanMode": _set_fan_mode,
    "ClimateSetMode": _set_mode,
    "HassStopMoving": _stop,
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
