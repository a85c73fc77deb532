"""Acts: what changes, what is refused, what is answered, and the way back."""

from typing import Any

import pytest

from tumen.assistant import Outcome, Resolved, act, undo
from tumen.assistant.replies import reply
from tumen.home.home import Home


def do(home: Home, intent: str, *targets: str, **values: Any) -> Outcome:
    return act(Resolved(f"Hass{intent}", "en", tuple(sorted(targets)), values), home)


@pytest.mark.parametrize(
    ("intent", "target", "values", "field", "before", "after"),
    [
        ("TurnOn", "light.kitchen_ceiling", {}, "state", "off", "on"),
        ("TurnOff", "light.desk_lamp", {}, "state", "on", "off"),
        ("TurnOn", "switch.kettle", {}, "state", "off", "on"),
        ("TurnOn", "fan.bedroom", {}, "percentage", 0, 100),
        ("TurnOn", "cover.garage_door", {}, "position", 0, 100),
        ("TurnOff", "cover.kitchen_blind", {}, "state", "open", "closed"),
        ("TurnOn", "lock.back_door", {}, "state", "unlocked", "locked"),
        ("TurnOff", "lock.front_door", {}, "state", "locked", "unlocked"),
        ("TurnOn", "climate.bedroom", {}, "state", "off", "cool"),
        ("TurnOff", "climate.living_room", {}, "state", "heat", "off"),
        ("TurnOn", "valve.garden", {}, "state", "closed", "open"),
        ("TurnOn", "vacuum.rosie", {}, "state", "docked", "cleaning"),
        ("TurnOn", "media_player.tv", {}, "state", "off", "on"),
        ("TurnOn", "input_boolean.guest_mode", {}, "state", "off", "on"),
        ("LightSet", "light.desk_lamp", {"brightness": 20}, "brightness", 65, 20),
        ("LightSet", "light.desk_lamp", {"brightness": 0}, "state", "on", "off"),
        ("LightSet", "light.kitchen_ceiling", {"brightness": 20}, "state", "off", "on"),
        ("LightSet", "light.desk_lamp", {"color": "red"}, "color", None, "red"),
        ("LightSet", "light.desk_lamp", {"temperature": 2700}, "color_temperature", 4000, 2700),
        ("LightSet", "light.desk_lamp", {"step": "up"}, "brightness", 65, 75),
        ("LightSet", "light.desk_lamp", {"step": "down"}, "brightness", 65, 55),
        ("LightSet", "light.desk_lamp", {"step": "up", "brightness": 50}, "brightness", 65, 100),
        ("LightSet", "light.desk_lamp", {"step": "down", "brightness": 80}, "state", "on", "off"),
        ("SetPosition", "cover.kitchen_blind", {"position": 30}, "position", 100, 30),
        ("SetPosition", "cover.kitchen_blind", {"position": 0}, "state", "open", "closed"),
        (
            "ClimateSetTemperature",
            "climate.living_room",
            {"temperature": 19.5},
            "temperature",
            21,
            19.5,
        ),
        ("ClimateSetFanMode", "climate.bedroom", {"fan_mode": "high"}, "fan_mode", "auto", "high"),
        ("FanSetSpeed", "fan.living_room", {"percentage": 40}, "percentage", 0, 40),
        ("FanSetSpeed", "fan.living_room", {"percentage": 40}, "state", "off", "on"),
        ("VacuumStart", "vacuum.rosie", {}, "state", "docked", "cleaning"),
        ("VacuumCleanArea", "vacuum.rosie", {"area": "kitchen"}, "cleaning_area", None, "kitchen"),
        ("LawnMowerStartMowing", "lawn_mower.shaun", {}, "state", "docked", "mowing"),
        ("MediaPause", "media_player.kitchen_speaker", {}, "state", "playing", "paused"),
        ("MediaUnpause", "media_player.bedroom_speaker", {}, "state", "idle", "playing"),
        ("MediaNext", "media_player.kitchen_speaker", {}, "media_track", 3, 4),
        ("MediaPrevious", "media_player.kitchen_speaker", {}, "media_track", 3, 2),
        ("MediaPlayerMute", "media_player.kitchen_speaker", {}, "muted", False, True),
        ("MediaSearchAndPlay", "media_player.tv", {"query": "news"}, "media_title", None, "news"),
        ("SetVolume", "media_player.tv", {"volume": 80}, "volume", 30, 80),
        ("SetVolumeRelative", "media_player.tv", {"step": "up"}, "volume", 30, 40),
        ("SetVolumeRelative", "media_player.tv", {"step": "down", "volume": 50}, "volume", 30, 0),
        ("Broadcast", "media_player.kitchen_speaker", {"message": "hi"}, "announced", None, "hi"),
        (
            "ShoppingListAddItem",
            "todo.shopping_list",
            {"item": "eggs"},
            "items",
            ("milk", "bread"),
            ("milk", "bread", "eggs"),
        ),
        (
            "ShoppingListCompleteItem",
            "todo.shopping_list",
            {"item": "milks"},
            "done_items",
            (),
            ("milk",),
        ),
        (
            "ListRemoveItem",
            "todo.shopping_list",
            {"item": "bread"},
            "items",
            ("milk", "bread"),
            ("milk",),
        ),
    ],
)
def test_an_act_and_its_way_back(
    home: Home,
    intent: str,
    target: str,
    values: dict[str, Any],
    field: str,
    before: Any,
    after: Any,
) -> None:
    was = home.snapshot()
    outcome = do(home, intent, target, **values)
    assert outcome.refusal is None
    assert outcome.changed[0].fields()[field] == (before, after)
    assert home.state(target).get(field) == after
    back = undo(outcome, home)
    assert back.refusal is None
    assert home.snapshot() == was


@pytest.mark.parametrize(
    ("intent", "target", "values", "reason"),
    [
        ("LightSet", "light.desk_lamp", {"brightness": 130}, "range"),
        ("LightSet", "light.desk_lamp", {"brightness": -1}, "range"),
        ("LightSet", "light.desk_lamp", {"temperature": 9000}, "range"),
        ("LightSet", "light.garage", {"color": "red"}, "lacks"),
        ("LightSet", "light.laundry", {"brightness": 5}, "lacks"),
        ("ClimateSetTemperature", "climate.bedroom", {"temperature": 12}, "range"),
        ("ClimateSetTemperature", "climate.living_room", {"temperature": 30.5}, "range"),
        ("ClimateSetTemperature", "climate.living_room", {}, "missing"),
        ("ClimateSetFanMode", "climate.bedroom", {"fan_mode": "focus"}, "mode"),
        ("ClimateSetFanMode", "climate.bathroom", {"fan_mode": "low"}, "mode"),
        ("SetPosition", "cover.kitchen_blind", {"position": 101}, "range"),
        ("FanSetSpeed", "fan.bedroom", {"percentage": 200}, "range"),
        ("SetVolume", "media_player.tv", {"volume": 101}, "range"),
        ("MediaPause", "media_player.tv", {}, "is_off"),
        ("ShoppingListCompleteItem", "todo.shopping_list", {"item": "eggs"}, "item"),
        ("StartTimer", "", {"seconds": 9e9}, "timer_range"),
        ("CancelTimer", "timer.9", {}, "no_timer"),
    ],
)
def test_a_refusal_changes_nothing(
    home: Home, intent: str, target: str, values: dict[str, Any], reason: str
) -> None:
    was = home.snapshot()
    outcome = do(home, intent, *filter(None, [target]), **values)
    assert outcome.refusal is not None
    assert outcome.refusal.reason == reason
    assert outcome.changes == ()
    assert home.snapshot() == was


def test_a_range_is_told(home: Home) -> None:
    outcome = do(home, "ClimateSetTemperature", "climate.bedroom", temperature=12)
    assert outcome.refusal is not None
    assert (outcome.refusal.about["low"], outcome.refusal.about["high"]) == (16, 30)


def test_all_or_nothing(home: Home) -> None:
    was = home.snapshot()
    outcome = do(
        home, "ClimateSetTemperature", "climate.living_room", "climate.bathroom", temperature=29
    )
    assert outcome.refusal is not None
    assert home.snapshot() == was


def test_all_lists_are_each_of_them(home: Home) -> None:
    both = ("todo.chores", "todo.shopping_list")
    added = do(home, "ListAddItem", *both, item="eggs")
    assert [change.id for change in added.changed] == list(both)
    assert reply(added, home) == "Added eggs to Chores and Shopping list."
    assert [change.id for change in do(home, "ListRemoveItem", *both, item="bread").changed] == [
        "todo.shopping_list"
    ]
    refused = do(home, "ListCompleteItem", *both, item="snow")
    assert refused.refusal
    assert refused.refusal.reason == "item"


def test_what_is_so_already_is_no_change(home: Home) -> None:
    outcome = do(home, "TurnOn", "light.desk_lamp", "light.kitchen_ceiling")
    assert [change.id for change in outcome.changed] == ["light.kitchen_ceiling"]
    assert len(outcome.changes) == 2
    assert do(home, "TurnOff", "vacuum.rosie").changed == ()
    assert do(home, "ShoppingListAddItem", "todo.shopping_list", item="Milk").changed == ()


def test_a_group_dims_only_what_is_lit_and_able(home: Home) -> None:
    office = do(
        home,
        "LightSet",
        "light.office_ceiling",
        "light.desk_lamp",
        "light.night_light",
        step="down",
    )
    assert [change.id for change in office.changed] == ["light.desk_lamp", "light.office_ceiling"]
    color = do(home, "LightSet", "light.garage", "light.desk_lamp", color="red")
    assert [change.id for change in color.changed] == ["light.desk_lamp"]


def test_a_scene_sets_its_things_and_is_undone_whole(home: Home) -> None:
    was = home.snapshot()
    outcome = do(home, "TurnOn", "scene.movie_night")
    assert home.state("light.floor_lamp")["brightness"] == 20
    assert home.state("cover.living_curtains")["position"] == 0
    undo(outcome, home)
    assert home.snapshot() == was


def test_undo_is_refused_when_the_world_moved_on(home: Home) -> None:
    outcome = do(home, "TurnOn", "light.kitchen_ceiling")
    do(home, "LightSet", "light.kitchen_ceiling", brightness=5)
    was = home.snapshot()
    assert undo(outcome, home).refusal is not None
    assert home.snapshot() == was
    nothing = undo(do(home, "TurnOn", "light.desk_lamp"), home)
    assert nothing.refusal is not None
    assert nothing.refusal.reason == "nothing"


def test_timers(home: Home, clock: Any) -> None:
    (started,) = do(home, "StartTimer", seconds=300, name="pizza").changes
    assert home.timers[started.id].name == "pizza"
    clock.wind(100)
    answer = do(home, "TimerStatus", started.id).answer
    assert answer is not None
    assert answer.facts == {started.id: 200}
    do(home, "IncreaseTimer", started.id, seconds=60)
    do(home, "PauseTimer", started.id)
    clock.wind(1000)
    assert home.seconds_left(home.timers[started.id]) == 260
    assert do(home, "PauseTimer", started.id).changed == ()
    do(home, "UnpauseTimer", started.id)
    clock.wind(10)
    assert home.seconds_left(home.timers[started.id]) == 250
    assert do(home, "DecreaseTimer", started.id, seconds=500).refusal is not None
    cancelled = do(home, "CancelTimer", started.id)
    assert home.timers == {}
    undo(cancelled, home)
    assert home.timers[started.id].name == "pizza"


@pytest.mark.parametrize(
    ("values", "targets", "matching"),
    [
        ({"state": "on", "ask": "any"}, "light.desk_lamp light.mirror", "light.desk_lamp"),
        ({"state": "off", "ask": "all"}, "light.desk_lamp light.mirror", "light.mirror"),
        ({"state": "locked"}, "lock.front_door lock.back_door", "lock.front_door"),
        (
            {"state": "open"},
            "binary_sensor.bedroom_window binary_sensor.kitchen_window",
            "binary_sensor.bedroom_window",
        ),
        ({"state": "closed"}, "cover.awning cover.kitchen_blind", "cover.awning"),
        ({"state": "open"}, "lock.front_door lock.back_door", "lock.back_door"),
        (
            {"state": "on"},
            "media_player.tv media_player.kitchen_speaker",
            "media_player.kitchen_speaker",
        ),
        ({"zone": "home"}, "person.anna person.wei", "person.anna"),
    ],
)
def test_questions_are_answered_from_the_state(
    home: Home, values: dict[str, str], targets: str, matching: str
) -> None:
    was = home.snapshot()
    answer = do(home, "GetState", *targets.split(), **values).answer
    assert answer is not None
    assert answer.matching == tuple(matching.split())
    assert home.snapshot() == was


def test_temperature_weather_and_clock(home: Home) -> None:
    assert do(home, "ClimateGetTemperature", "climate.living_room").answer.facts == {
        "climate.living_room": 20.5
    }  # type: ignore[union-attr]
    assert do(home, "ClimateGetTemperature", "sensor.garden_temperature").answer.facts == {
        "sensor.garden_temperature": 12.5
    }  # type: ignore[union-attr]
    assert do(home, "GetWeather", "weather.home").answer.facts["state"] == "sunny"  # type: ignore[union-attr]
    assert do(home, "GetCurrentTime").answer.facts["hour"] == 20  # type: ignore[union-attr]


def test_a_thing_that_cannot_be_reached_refuses() -> None:
    home = Home.of({"entity": [{"id": "light.a", "name": "A", "state": "unavailable"}]})
    refusal = do(home, "TurnOn", "light.a").refusal
    assert refusal is not None
    assert refusal.reason == "unavailable"
