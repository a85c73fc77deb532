"""Media effects: playing, pausing, tracks and volume."""

from __future__ import annotations

from tumen.assistant.acts.target import Target
from tumen.home import State

_ON = ("playing", "paused", "on", "idle")
_UNKNOWN_VOLUME = 50  # percent that a player starts from when it does not report its volume


def _check_on(player: Target) -> None:
    """Refuse to act on a player that is off."""
    if player.state_word not in _ON:
        raise player.refused("is_off")


def pause(player: Target) -> State:
    """Return the fields of a player that is paused; one that does not play stays as it is."""
    _check_on(player)
    # some players report `on` while they play
    if player.state_word in ("playing", "on"):
        return {"state": "paused"}
    return {}


def unpause(player: Target) -> State:
    """Return the fields of a player that goes on."""
    _check_on(player)
    return {"state": "playing"}


def next_track(player: Target) -> State:
    """Return the fields of a player on its next track."""
    return _track(player, by=1)


def previous_track(player: Target) -> State:
    """Return the fields of a player on its previous track, at least the first."""
    return _track(player, by=-1)


def _track(player: Target, by: int) -> State:
    """Return the fields of a player some tracks further."""
    _check_on(player)
    track = (player.state.get("media_track") or 1) + by
    # the title of the other track is not known
    return {"state": "playing", "media_track": max(1, track), "media_title": None}


def mute(player: Target) -> State:
    """Return the fields of a muted player."""
    _check_on(player)
    return {"muted": True}


def unmute(player: Target) -> State:
    """Return the fields of a player with sound."""
    _check_on(player)
    return {"muted": False}


def set_volume(player: Target) -> State:
    """Return the fields of a player at a volume; it may be off."""
    return {"volume": player.percent("volume")}


def step_volume(player: Target) -> State:
    """Return the fields of a player one step louder or quieter, between 0 and 100 %."""
    return {"volume": player.stepped("volume", player.state.get("volume", _UNKNOWN_VOLUME))}


def play(player: Target) -> State:
    """Return the fields of a player that plays what was asked for; it may have been off."""
    title = str(player.needed("query"))
    return {"state": "playing", "media_title": title, "media_track": 1}
