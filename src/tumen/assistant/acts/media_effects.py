"""Media effects: playing, pausing, tracks and volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tumen.assistant.acts.limits import STEP_PERCENT, needed, percent
from tumen.assistant.acts.outcomes import ActRefused
from tumen.assistant.values import plain
from tumen.home import Entity, State

_UNKNOWN_VOLUME = 50  # percent that a player starts from when it does not report its volume


def _check_on(entity: Entity, state: State) -> None:
    if state["state"] not in ("playing", "paused", "on", "idle"):
        raise ActRefused("is_off", entity=entity.id)


def pause(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player that is paused; one that does not play stays as it is."""
    _check_on(entity, state)
    return {"state": "paused"} if state["state"] in ("playing", "on") else {}


def unpause(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player that goes on."""
    _check_on(entity, state)
    return {"state": "playing"}


def next_track(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player on its next track."""
    return _track(entity, state, by=1)


def previous_track(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player on its previous track, at least the first."""
    return _track(entity, state, by=-1)


def _track(entity: Entity, state: State, by: int) -> State:
    _check_on(entity, state)
    track = (state.get("media_track") or 1) + by
    # the title of the other track is not known
    return {"state": "playing", "media_track": max(1, track), "media_title": None}


def mute(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a muted player."""
    _check_on(entity, state)
    return {"muted": True}


def unmute(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player with sound."""
    _check_on(entity, state)
    return {"muted": False}


def set_volume(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player at a volume."""
    return {"volume": percent(entity, "volume", needed(values, "volume"))}


def step_volume(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player one step louder or quieter, between 0 and 100 %."""
    by = percent(entity, "volume", values.get("volume", STEP_PERCENT))
    if needed(values, "step") != "up":
        by = -by
    volume = state.get("volume", _UNKNOWN_VOLUME) + by
    return {"volume": plain(max(0, min(100, volume)))}


def play(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """Return the fields of a player that plays what was asked for; it may have been off."""
    title = str(needed(values, "query"))
    return {"state": "playing", "media_title": title, "media_track": 1}
