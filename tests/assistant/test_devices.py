"""Other devices: covers, locks, climate, fans, vacuums, players, scenes, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from tests.assistant.speech import answer, do, states
from tests.homes import Clock, home_of, thing

from tumen.assistant import undo
from tumen.home.home import Home


def one(id_: str, **fields: Any) -> Home:
    return home_of(thing(id_, "Thing", "den", **fields))


@pytest.mark.parametrize(
    ("id_", "before", "intent", "values", "after"),
    [
        # turning on opens a cover, locks a lock, as in Home Assistant
        ("cover.a", {"position": 0}, "TurnOn", {}, {"state": "open", "position": 100}),
        ("cover.a", {"position": 60}, "TurnOn", {}, {"state": "open", "position": 100}),
        ("cover.a", {"position": 60}, "TurnOff", {}, {"state": "closed", "position": 0}),
        ("valve.a", {"position": 0}, "TurnOn", {}, {"state": "open", "position": 100}),
        ("valve.a", {"position": 9}, "TurnOff", {}, {"state": "closed", "position": 0}),
        ("cover.a", {"position": 0}, "SetPosition", {"position": 1}, {"state": "open", "position": 1}),
        ("cover.a", {"position": 9}, "SetPosition", {"position": 0}, {"state": "closed", "position": 0}),
        ("cover.a", {"position": 9}, "SetPosition", {"position": 100}, {"state": "open", "position": 100}),
        ("lock.a", {"state": "unlocked"}, "TurnOn", {}, {"state": "locked"}),
        ("lock.a", {"state": "locked"}, "TurnOff", {}, {"state": "unlocked"}),
        # climate: on is its own mode, and never changes what it does already
        ("climate.a", {"state": "off", "mode": "cool"}, "TurnOn", {}, {"state": "cool"}),
        ("climate.a", {"state": "heat", "mode": "cool"}, "TurnOn", {}, {"state": "heat"}),
        ("climate.a", {"state": "heat"}, "TurnOff", {}, {"state": "off"}),
        ("climate.a", {"state": "off"}, "ClimateSetTemperature", {"temperature": 20.5}, {"state": "off", "temperature": 20.5}),
        ("climate.a", {"state": "off"}, "ClimateSetTemperature", {"temperature": 7}, {"state": "off", "temperature": 7}),
        ("climate.a", {"state": "off"}, "ClimateSetTemperature", {"temperature": 35}, {"state": "off", "temperature": 35}),
        ("climate.a", {"state": "heat"}, "ClimateSetFanMode", {"fan_mode": "low"}, {"state": "heat", "fan_mode": "low"}),
        # fans
        ("fan.a", {"state": "off", "percentage": 0}, "TurnOn", {}, {"state": "on", "percentage": 100}),
        ("fan.a", {"state": "off", "percentage": 40}, "TurnOn", {}, {"state": "on", "percentage": 40}),
        ("fan.a", {"state": "off"}, "TurnOn", {}, {"state": "on"}),
        ("fan.a", {"state": "on", "percentage": 40}, "TurnOff", {}, {"state": "off", "percentage": 40}),
        ("fan.a", {"state": "off"}, "FanSetSpeed", {"percentage": 40}, {"state": "on", "percentage": 40}),
        ("fan.a", {"state": "on"}, "FanSetSpeed", {"percentage": 0}, {"state": "off", "percentage": 0}),
        # vacuums and mowers
        ("vacuum.a", {"state": "docked"}, "TurnOn", {}, {"state": "cleaning"}),
        ("vacuum.a", {"state": "cleaning"}, "TurnOff", {}, {"state": "returning"}),
        ("vacuum.a", {"state": "docked"}, "TurnOff", {}, {"state": "docked"}),
        ("vacuum.a", {"state": "docked"}, "VacuumStart", {}, {"state": "cleaning"}),
        ("vacuum.a", {"state": "docked"}, "VacuumCleanArea", {"area": "den"}, {"state": "cleaning", "cleaning_area": "den"}),
        ("vacuum.a", {"state": "paused"}, "VacuumReturnToBase", {}, {"state": "returning"}),
        ("vacuum.a", {"state": "docked"}, "VacuumReturnToBase", {}, {"state": "docked"}),
        ("lawn_mower.a", {"state": "docked"}, "LawnMowerStartMowing", {}, {"state": "mowing"}),
        ("lawn_mower.a", {"state": "mowing"}, "LawnMowerDock", {}, {"state": "returning"}),
        ("lawn_mower.a", {"state": "docked"}, "LawnMowerDock", {}, {"state": "docked"}),
        # plain switches
        ("switch.a", {"state": "off"}, "TurnOn", {}, {"state": "on"}),
        ("input_boolean.a", {"state": "on"}, "TurnOff", {}, {"state": "off"}),
        # media players: on is not playing, and a player that plays is on
        ("media_player.a", {"state": "off"}, "TurnOn", {}, {"state": "on"}),
        ("media_player.a", {"state": "standby"}, "TurnOn", {}, {"state": "on"}),
        ("media_player.a", {"state": "playing"}, "TurnOn", {}, {"state": "playing"}),
        ("media_player.a", {"state": "idle"}, "TurnOn", {}, {"state": "idle"}),
        ("media_player.a", {"state": "playing"}, "TurnOff", {}, {"state": "off"}),
        ("media_player.a", {"state": "playing"}, "MediaPause", {}, {"state": "paused"}),
        ("media_player.a", {"state": "on"}, "MediaPause", {}, {"state": "paused"}),
        ("media_player.a", {"state": "paused"}, "MediaPause", {}, {"state": "paused"}),
        ("media_player.a", {"state": "idle"}, "MediaPause", {}, {"state": "idle"}),
        ("media_player.a", {"state": "paused"}, "MediaUnpause", {}, {"state": "playing"}),
        ("media_player.a", {"state": "idle"}, "MediaUnpause", {}, {"state": "playing"}),
        ("media_player.a", {"state": "on"}, "MediaPlayerMute", {}, {"state": "on", "muted": True}),
        ("media_player.a", {"state": "on", "muted": True}, "MediaPlayerUnmute", {}, {"state": "on", "muted": False}),
        ("media_player.a", {"state": "off"}, "SetVolume", {"volume": 0}, {"state": "off", "volume": 0}),
        ("media_player.a", {"state": "on", "volume": 95}, "SetVolumeRelative", {"step": "up"}, {"state": "on", "volume": 100}),
        ("media_player.a", {"state": "on", "volume": 5}, "SetVolumeRelative", {"step": "down"}, {"state": "on", "volume": 0}),
        ("media_player.a", {"state": "on", "volume": 40}, "SetVolumeRelative", {"step": "down", "volume": 15}, {"state": "on", "volume": 25}),
        # a player that does not tell its volume starts in the middle
        ("media_player.a", {"state": "on"}, "SetVolumeRelative", {"step": "up"}, {"state": "on", "volume": 60}),
        ("media_player.a", {"state": "off"}, "MediaSearchAndPlay", {"query": "jazz"}, {"state": "playing", "media_title": "jazz", "media_track": 1}),
        # another track has a title that is not known
        ("media_player.a", {"state": "playing", "media_title": "A", "media_track": 3}, "MediaNext", {}, {"state": "playing", "media_track": 4}),
        ("media_player.a", {"state": "paused", "media_track": 3}, "MediaPrevious", {}, {"state": "playing", "media_track": 2}),
        ("media_player.a", {"state": "playing", "media_track": 1}, "MediaPrevious", {}, {"state": "playing", "media_track": 1}),
        ("media_player.a", {"state": "playing"}, "MediaNext", {}, {"state": "playing", "media_track": 2}),
    ],
)  # fmt: skip
def test_a_device_does_what_is_said(
    id_: str, before: dict[str, Any], intent: str, values: dict[str, Any], after: dict[str, Any]
) -> None:
    home = one(id_, **before)
    was = home.snapshot()
    outcome = do(home, intent, id_, **values)
    assert outcome.refusal is None
    assert home.state(id_) == after
    if outcome.changed:
        undo(outcome, home)
    assert home.snapshot() == was


@pytest.mark.parametrize(
    ("id_", "fields", "intent", "values", "reason"),
    [
        ("cover.a", {}, "SetPosition", {"position": 101}, "range"),
        ("cover.a", {}, "SetPosition", {"position": -1}, "range"),
        ("cover.a", {}, "SetPosition", {}, "missing"),
        ("climate.a", {}, "ClimateSetTemperature", {"temperature": 6.9}, "range"),
        ("climate.a", {}, "ClimateSetTemperature", {"temperature": 35.1}, "range"),
        ("climate.a", {"max_temperature": 28}, "ClimateSetTemperature", {"temperature": 29}, "range"),
        ("climate.a", {}, "ClimateSetTemperature", {}, "missing"),
        ("climate.a", {}, "ClimateSetFanMode", {}, "missing"),
        ("climate.a", {}, "ClimateSetFanMode", {"fan_mode": "focus"}, "mode"),
        ("climate.a", {"fan_modes": []}, "ClimateSetFanMode", {"fan_mode": "auto"}, "mode"),
        ("fan.a", {}, "FanSetSpeed", {"percentage": 101}, "range"),
        ("fan.a", {}, "FanSetSpeed", {}, "missing"),
        ("media_player.a", {}, "SetVolume", {"volume": 101}, "range"),
        ("media_player.a", {}, "SetVolume", {}, "missing"),
        ("media_player.a", {}, "SetVolumeRelative", {"volume": 5}, "missing"),
        ("media_player.a", {}, "SetVolumeRelative", {"step": "up", "volume": 101}, "range"),
        ("media_player.a", {}, "MediaSearchAndPlay", {}, "missing"),
        ("media_player.a", {}, "Broadcast", {}, "missing"),
        ("todo.a", {}, "ListAddItem", {}, "missing"),
        ("light.a", {}, "StartTimer", {}, "missing"),
        # a player that is off does not pause, skip or mute
        ("media_player.a", {"state": "off"}, "MediaPause", {}, "is_off"),
        ("media_player.a", {"state": "standby"}, "MediaUnpause", {}, "is_off"),
        ("media_player.a", {"state": "off"}, "MediaNext", {}, "is_off"),
        ("media_player.a", {"state": "off"}, "MediaPrevious", {}, "is_off"),
        ("media_player.a", {"state": "off"}, "MediaPlayerMute", {}, "is_off"),
        ("media_player.a", {"state": "off"}, "MediaPlayerUnmute", {}, "is_off"),
        # out of reach
        ("light.a", {"state": "unavailable"}, "TurnOn", {}, "unavailable"),
        ("lock.a", {"state": "unavailable"}, "TurnOff", {}, "unavailable"),
        ("light.a", {}, "MakeTea", {}, "not_home"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_changes_nothing(
    id_: str, fields: dict[str, Any], intent: str, values: dict[str, Any], reason: str
) -> None:
    home = one(id_, **fields)
    was = home.snapshot()
    outcome = do(home, intent, id_, **values)
    assert outcome.refusal is not None
    assert outcome.refusal.reason == reason
    assert outcome.refusal.values == values
    assert outcome.changes == ()
    assert home.snapshot() == was


def test_one_of_several_that_cannot_stops_all() -> None:
    home = home_of(
        thing("climate.a", "One", "den", state="heat", temperature=20),
        thing("climate.b", "Two", "den", state="heat", temperature=20, max_temperature=25),
        thing("lock.a", "Lock", "den", state="locked"),
        thing("lock.b", "Bolt", "den", state="unavailable"),
    )
    was = home.snapshot()
    assert do(home, "ClimateSetTemperature", "climate.a", "climate.b", temperature=26).refusal
    assert do(home, "TurnOff", "lock.a", "lock.b").refusal
    assert home.snapshot() == was


# -- scenes, scripts, buttons --------------------------------------------------------------------


def test_a_scene_sets_other_things_and_keeps_when_it_was_used() -> None:
    clock = Clock()
    home = home_of(
        thing("scene.a", "Party", sets={"light.b": {"state": "on", "brightness": 20, "color": None}}),
        thing("light.b", "Lamp", "den", state="off", color="red"),
        clock=clock,
    )  # fmt: skip
    was = home.snapshot()
    outcome = do(home, "TurnOn", "scene.a")
    assert home.state("light.b") == {"state": "on", "brightness": 20}
    assert home.state("scene.a") == {"state": "2026-11-22T20:15:00+00:00"}
    assert [change.id for change in outcome.changed] == ["scene.a", "light.b"]
    undo(outcome, home)
    assert home.snapshot() == was
    clock.wind(60)
    do(home, "TurnOn", "scene.a")
    assert home.state("scene.a") == {"state": "2026-11-22T20:16:00+00:00"}


@pytest.mark.parametrize("domain", ["scene", "script", "button"])
def test_what_is_pressed_may_be_pressed_again(domain: str) -> None:
    clock = Clock()
    home = home_of(thing(f"{domain}.a", "Thing"), clock=clock)
    assert do(home, "TurnOn", f"{domain}.a").changed
    clock.wind(1)
    assert do(home, "TurnOn", f"{domain}.a").changed


# -- undo ----------------------------------------------------------------------------------------


def test_undo_gives_back_only_what_is_as_it_was_left() -> None:
    home = home_of(
        thing("light.a", "One", "den", state="off"), thing("light.b", "Two", "den", state="off")
    )
    both = do(home, "TurnOn", "light.a", "light.b")
    do(home, "TurnOff", "light.b")
    back = undo(both, home)
    assert back.refusal is not None
    assert back.refusal.reason == "changed"
    assert back.refusal.about == {"entity": "light.b"}
    assert states(home, "light.a", "light.b") == "on off"
    do(home, "TurnOn", "light.b")
    assert undo(both, home).refusal is None
    assert states(home, "light.a", "light.b") == "off off"


def test_nothing_done_is_nothing_to_undo() -> None:
    home = one("light.a", state="on")
    for outcome in (
        do(home, "TurnOn", "light.a"),
        do(home, "LightSet", "light.a", brightness=999),
        do(home, "GetState", "light.a"),
    ):
        back = undo(outcome, home)
        assert back.refusal is not None
        assert back.refusal.reason == "nothing"


def test_an_undo_is_undone_by_doing_it_again() -> None:
    home = one("light.a", state="off")
    outcome = do(home, "TurnOn", "light.a")
    back = undo(outcome, home)
    assert states(home, "light.a") == "off"
    assert [(c.before["state"], c.after["state"]) for c in back.changes] == [("on", "off")]  # type: ignore[index]
    undo(back, home)
    assert states(home, "light.a") == "on"


def test_a_started_timer_is_undone_by_its_end() -> None:
    home = Home.of({})
    started = do(home, "StartTimer", seconds=60)
    assert undo(started, home).refusal is None
    assert home.timers == {}
    assert undo(started, home).refusal is not None


# -- broadcasts and small talk -------------------------------------------------------------------


def test_a_broadcast_is_what_a_speaker_said_last() -> None:
    home = one("media_player.a", device_class="speaker", state="idle")
    assert answer(home, "Broadcast message=dinner is ready") == "Announced on Thing."
    assert home.state("media_player.a") == {"state": "idle", "announced": "dinner is ready"}


def test_small_talk_changes_nothing() -> None:
    home = one("light.a")
    was = home.snapshot()
    for intent in ("Nevermind", "Respond"):
        outcome = do(home, intent)
        assert outcome.changes == ()
        assert outcome.refusal is None
    assert home.snapshot() == was
