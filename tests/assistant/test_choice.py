"""Which one is meant where several devices fit."""

from __future__ import annotations

import pytest
from tests.assistant.speech import in_order, meant, question, resolved
from tests.homes import home_of, thing

from tumen.home.home import Home


def players(*states: str) -> Home:
    """A living room with as many media players as states, called One, Two, ..."""
    names = ("One", "Two", "Three")
    things = [
        thing(f"media_player.{name.lower()}", name, "living_room", state=state)
        for name, state in zip(names, states, strict=False)
    ]
    return home_of(*things)


BOTH = "?media_player.one media_player.two"


@pytest.mark.parametrize(
    ("said", "states", "expected"),
    [
        # resuming means the player that is paused, not the others in the room
        ("MediaUnpause area=living room", "paused idle", "media_player.one"),
        ("MediaUnpause area=living room", "playing paused", "media_player.two"),
        ("MediaUnpause area=living room", "paused paused", BOTH),
        ("MediaUnpause area=living room", "idle idle", BOTH),
        ("MediaUnpause", "off paused", "media_player.two"),
        ("MediaUnpause", "paused paused", BOTH),
        # pausing means the one that plays
        ("MediaPause area=living room", "playing paused", "media_player.one"),
        ("MediaPause area=living room", "playing playing", BOTH),
        ("MediaPause area=living room", "paused paused", BOTH),
        ("MediaPause", "idle playing", "media_player.two"),
        # another track: of the one that plays, else of the one that is paused
        ("MediaNext area=living room", "playing paused", "media_player.one"),
        ("MediaNext area=living room", "off paused", "media_player.two"),
        ("MediaPrevious area=living room", "paused playing", "media_player.two"),
        ("MediaPrevious area=living room", "off idle", BOTH),
        ("MediaNext", "idle idle", BOTH),
        # to play something, one player is needed, whatever it does now
        ("MediaSearchAndPlay query=jazz area=living room", "off playing", BOTH),
        # sound is set on the one that has sound
        ("SetVolume volume=20", "off playing", "media_player.two"),
        ("SetVolume volume=20", "off on", "media_player.two"),
        ("SetVolume volume=20", "off idle", "media_player.two"),
        ("SetVolume volume=20", "idle paused", "media_player.two"),
        ("SetVolume volume=20", "on idle", "media_player.one"),
        ("SetVolume volume=20", "off off", BOTH),
        ("SetVolumeRelative step=up", "playing off", "media_player.one"),
        ("MediaPlayerMute", "paused playing", "media_player.two"),
        ("MediaPlayerUnmute", "idle on", "media_player.two"),
        # a room has one volume: all of its players
        (
            "SetVolume volume=20 area=living room",
            "off playing",
            "media_player.one media_player.two",
        ),
        ("MediaPlayerMute area=living room", "on on", "media_player.one media_player.two"),
    ],
)
def test_the_state_says_which_player_is_meant(said: str, states: str, expected: str) -> None:
    assert meant(players(*states.split()), said) == expected


def test_the_room_of_the_speaker_comes_before_the_state() -> None:
    home = home_of(
        thing("media_player.bath", "Bath radio", "bathroom", state="paused"),
        thing("media_player.hall", "Hall radio", "hall", state="playing"),
    )
    assert meant(home, "MediaPause") == "media_player.hall"
    assert meant(home, "MediaPause", here="bathroom") == "media_player.bath"
    assert meant(home, "MediaPause", here="hall") == "media_player.hall"


def test_in_the_room_of_the_speaker_the_state_decides() -> None:
    home = home_of(
        thing("media_player.tv", "Television", "lounge", state="off"),
        thing("media_player.hifi", "Stereo", "lounge", state="paused"),
        thing("media_player.hall", "Hall radio", "hall", state="paused"),
    )
    assert meant(home, "MediaUnpause", here="lounge") == "media_player.hifi"
    assert meant(home, "MediaUnpause") == "?media_player.hall media_player.hifi"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("cleaning docked", "vacuum.up"),
        ("docked cleaning", "vacuum.down"),
        ("paused docked", "vacuum.up"),
        ("paused cleaning", "vacuum.down"),
        ("cleaning cleaning", "?vacuum.down vacuum.up"),
        ("docked docked", "?vacuum.down vacuum.up"),
    ],
)
def test_the_vacuum_that_works_is_sent_home(states: str, expected: str) -> None:
    up, down = states.split()
    home = home_of(
        thing("vacuum.up", "Upper", "attic", state=up),
        thing("vacuum.down", "Lower", "hall", state=down),
    )
    assert meant(home, "VacuumReturnToBase") == expected


@pytest.mark.parametrize(
    "said",
    [
        "VacuumStart",
        "LawnMowerStartMowing",
        "LawnMowerDock",
        "ListAddItem name=list item=tea",
        "ListCompleteItem name=list item=tea",
        "ListRemoveItem name=list item=tea",
        "GetWeather",
    ],
)
def test_one_device_is_meant_even_where_several_fit(said: str) -> None:
    home = home_of(
        thing("vacuum.a", "Sweeper"),
        thing("vacuum.b", "Mopper"),
        thing("lawn_mower.a", "Shaun"),
        thing("lawn_mower.b", "Shirley"),
        thing("todo.a", "Tea list"),
        thing("todo.b", "Toy list"),
        thing("weather.a", "Here"),
        thing("weather.b", "There"),
    )
    asked = question(home, said)
    assert asked.reason == "which"
    assert len(asked.options) >= 2


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # an unknown room never means the whole house
        ("TurnOff domain=light", "?"),
        ("TurnOn domain=light", "?"),
        ("LightSet step=up", "?"),
        ("LightSet color=red", "?"),
        ("LightSet brightness=20", "?"),
        ("LightSet brightness=20 scope=all", "light.lit light.lit_too light.out"),
        ("LightSet brightness=20 name=all lights", "light.lit light.lit_too light.out"),
        ("LightSet brightness=20 area=home", "light.lit light.lit_too light.out"),
        ("LightSet brightness=20 area=hall", "light.out"),
        ("LightSet brightness=20 area=hall and attic", "light.lit_too light.out"),
    ],
)
def test_lights_where_the_room_is_not_known(said: str, expected: str) -> None:
    home = home_of(
        thing("light.lit", "Red lamp", "kitchen", state="on"),
        thing("light.lit_too", "Green lamp", "attic", state="on"),
        thing("light.out", "Blue lamp", "hall", state="off"),
    )
    assert meant(home, said) == expected


def test_the_lit_lights_of_one_room_are_the_ones_to_set() -> None:
    """Brighter, darker, red: that is about lights one can see."""
    home = home_of(
        thing("light.lit", "Red lamp", "kitchen", state="on"),
        thing("light.lit_too", "Green lamp", "kitchen", state="on"),
        thing("light.out", "Blue lamp", "hall", state="off"),
    )
    assert meant(home, "LightSet brightness=20") == "light.lit light.lit_too"
    assert meant(home, "TurnOff domain=light") == "?"


def test_the_only_light_needs_no_room() -> None:
    home = home_of(thing("light.a", "Red lamp", "kitchen"), thing("fan.b", "Fan", "hall"))
    assert meant(home, "TurnOff domain=light") == "light.a"


def test_where_no_light_is_lit_the_room_is_asked_for() -> None:
    home = home_of(
        thing("light.a", "Red lamp", "kitchen", state="off"),
        thing("light.b", "Blue lamp", "hall", state="off"),
    )
    assert question(home, "LightSet brightness=20").reason == "where"


def test_the_lights_of_the_speakers_room_are_set_lit_or_not() -> None:
    home = home_of(
        thing("light.a", "Red lamp", "kitchen", state="on"),
        thing("light.b", "Blue lamp", "kitchen", state="off"),
        thing("light.c", "Far lamp", "hall", state="on"),
    )
    assert meant(home, "LightSet brightness=20", here="kitchen") == "light.a light.b"
    assert meant(home, "TurnOff domain=light", here="kitchen") == "light.a light.b"


def test_in_a_room_without_lights_the_only_lamp_of_the_home_is_meant() -> None:
    lamp = thing("light.a", "Red lamp", "kitchen", state="on")
    other = thing("light.b", "Blue lamp", "kitchen")
    kettle = thing("switch.k", "Kettle", "hall")
    assert meant(home_of(lamp, kettle), "TurnOff domain=light", here="hall") == "light.a"
    assert meant(home_of(lamp, other, kettle), "TurnOff domain=light", here="hall") == (
        "?light.a light.b"
    )


@pytest.mark.parametrize(
    ("said", "here", "expected"),
    [
        # fans and locks are not switched all at once unless it is said
        ("TurnOn domain=fan", None, "?fan.attic fan.hall"),
        ("TurnOn domain=fan", "hall", "fan.hall"),
        ("TurnOn domain=fan", "kitchen", "?fan.attic fan.hall"),
        ("TurnOn domain=fan scope=all", None, "fan.attic fan.hall"),
        ("TurnOn domain=fan scope=all", "hall", "fan.attic fan.hall"),
        ("TurnOn domain=fan area=attic", "hall", "fan.attic"),
        ("TurnOn name=fan", None, "?fan.attic fan.hall"),
        ("TurnOn name=fans", None, "?fan.attic fan.hall"),
        ("TurnOn name=all fans", None, "fan.attic fan.hall"),
        ("TurnOn name=every fan", "hall", "fan.attic fan.hall"),
        ("TurnOn name=both fans", None, "fan.attic fan.hall"),
        ("TurnOff domain=lock", None, "lock.front"),
        ("TurnOff domain=lock", "attic", "lock.front"),
    ],
)
def test_other_kinds_without_a_place(said: str, here: str | None, expected: str) -> None:
    home = home_of(
        thing("fan.attic", "Attic fan", "attic"),
        thing("fan.hall", "Hall fan", "hall"),
        thing("lock.front", "Front lock", "hall"),
        thing("switch.kettle", "Kettle", "kitchen"),
    )
    assert meant(home, said, here=here) == expected


FULL_ROOM = (
    thing("light.den", "Den lamp", "den"),
    thing("switch.den", "Den plug", "den"),
    thing("fan.den", "Den fan", "den"),
    thing("media_player.den", "Den radio", "den"),
    thing("input_boolean.den", "Den mode", "den"),
    thing("lock.den", "Den lock", "den"),
    thing("cover.den", "Den blind", "den"),
    thing("climate.den", "Den heater", "den"),
    thing("vacuum.den", "Den robot", "den"),
    thing("scene.den", "Den scene", "den"),
    thing("light.hall", "Hall lamp", "hall"),
)
SWITCHED = "fan.den input_boolean.den light.den media_player.den switch.den"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # a place alone means its lights
        ("TurnOff area=den", "light.den"),
        ("TurnOn area=den", "light.den"),
        # everything means all that is switched; not locks, covers, heating, robots
        ("TurnOff area=den scope=all", SWITCHED),
        ("TurnOn area=den scope=all", SWITCHED),
        ("TurnOff name=everything area=den", SWITCHED),
        ("TurnOff name=everything", f"{SWITCHED} light.hall"),
        ("TurnOff scope=all", f"{SWITCHED} light.hall"),
        ("TurnOff name=everything area=house", f"{SWITCHED} light.hall"),
        ("TurnOff area=everywhere", f"{SWITCHED} light.hall"),
        ("TurnOff name=home", f"{SWITCHED} light.hall"),
    ],
)
def test_on_and_off_without_a_kind(said: str, expected: str) -> None:
    assert meant(home_of(*FULL_ROOM), said) == in_order(expected)


def test_on_and_off_without_anything_asks_what() -> None:
    for said in ("TurnOn", "TurnOff"):
        assert question(home_of(*FULL_ROOM), said).reason == "what"
        assert question(home_of(*FULL_ROOM), said, here="den").reason == "what"


def test_a_room_without_lights_means_the_one_thing_that_is_switched_there() -> None:
    kettle = thing("switch.kettle", "Kettle", "pantry")
    fan = thing("fan.pantry", "Pantry fan", "pantry")
    safe = thing("lock.safe", "Safe", "cellar")
    home = home_of(kettle, safe)
    assert meant(home, "TurnOn area=pantry") == "switch.kettle"
    assert meant(home_of(kettle, fan), "TurnOn area=pantry") == "?fan.pantry switch.kettle"
    # a lock is not what `turn on the cellar` means
    assert meant(home, "TurnOn area=cellar") == "!absent"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("TurnOn name=corner lamp", "?light.a light.b"),
        ("TurnOn name=corner lamps", "light.a light.b"),
        ("TurnOn name=all corner lamp", "light.a light.b"),
        ("TurnOn name=corner lamp scope=all", "light.a light.b"),
        ("TurnOn name=corner", "?light.a light.b"),
        ("TurnOn name=red corner lamp", "light.a"),
        ("TurnOn name=red corner lamps", "light.a"),
    ],
)
def test_a_name_means_one_device_and_its_plural_several(said: str, expected: str) -> None:
    home = home_of(
        thing("light.a", "Red corner lamp", "den"), thing("light.b", "Blue corner lamp", "hall")
    )
    assert meant(home, said) == expected


def test_the_room_of_the_speaker_decides_between_things_of_one_name() -> None:
    home = home_of(
        thing("light.a", "Corner lamp", "den"),
        thing("light.b", "Corner lamp", "hall"),
        thing("switch.c", "Kettle", "kitchen"),
    )
    assert meant(home, "TurnOn name=corner lamp") == "?light.a light.b"
    assert meant(home, "TurnOn name=corner lamp", here="hall") == "light.b"
    assert meant(home, "TurnOn name=corner lamp", here="kitchen") == "?light.a light.b"
    assert meant(home, "TurnOn name=corner lamp scope=all", here="hall") == "light.a light.b"


def test_the_home_may_say_where_its_speaker_is() -> None:
    home = home_of(
        thing("fan.a", "Red fan", "den"), thing("fan.b", "Blue fan", "hall"), here="hall"
    )
    assert meant(home, "TurnOn domain=fan") == "fan.b"
    assert meant(home, "TurnOn domain=fan", here="den") == "fan.a"


def test_a_question_about_states_means_the_whole_home() -> None:
    home = home_of(
        thing("light.a", "Red lamp", "den", state="on"), thing("light.b", "Blue lamp", "hall")
    )
    for ask in ("any", "all", "which", "how_many"):
        said = f"GetState domain=light state=on ask={ask}"
        assert meant(home, said) == "light.a light.b"
        assert meant(home, said, here="hall") == "light.a light.b"
        assert meant(home, f"{said} area=hall", here="den") == "light.b"
    # without `any` or `all` two lights are still what it is about
    assert meant(home, "GetState domain=light state=on", here="hall") == "light.a light.b"


def test_options_of_a_question_are_told_by_name_and_room() -> None:
    home = home_of(
        thing("lock.a", "Gate", "garden"),
        thing("lock.b", "Gate", "yard"),
        thing("lock.c", "Gate"),
        thing("lock.d", "Safe", "den"),
    )
    asked = question(home, "TurnOff domain=lock")
    assert asked.shown == ("Gate (Garden)", "Gate (Yard)", "Gate", "Safe")
    assert [option.targets for option in asked.options] == [
        ("lock.a",),
        ("lock.b",),
        ("lock.c",),
        ("lock.d",),
    ]
    assert asked.choose(1, 3).targets == ("lock.b", "lock.d")
    assert asked.choose(0).intent == "HassTurnOff"


def test_the_values_of_a_question_are_kept_for_its_answer() -> None:
    home = home_of(thing("fan.a", "Red fan", "den"), thing("fan.b", "Blue fan", "hall"))
    asked = question(home, "FanSetSpeed percentage=forty")
    assert asked.values == {"percentage": 40}
    assert asked.choose(1).values == {"percentage": 40}
    assert resolved(home, "FanSetSpeed percentage=forty area=hall").values == {"percentage": 40}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("TurnOn domain=cover device_class=garage", "?cover.left cover.right"),
        ("TurnOn domain=cover device_class=garage scope=all", "cover.left cover.right"),
        ("TurnOff domain=cover device_class=garage", "cover.left cover.right"),
        ("TurnOff domain=lock", "?lock.back lock.front"),
        ("TurnOn domain=lock", "lock.back lock.front"),
        ("TurnOff domain=lock scope=all", "lock.back lock.front"),
    ],
)
def test_the_house_is_opened_one_door_at_a_time(said: str, expected: str) -> None:
    home = home_of(
        thing("cover.left", "Left garage door", "hall", device_class="garage"),
        thing("cover.right", "Right garage door", "hall", device_class="garage"),
        thing("lock.front", "Front lock", "hall"),
        thing("lock.back", "Back lock", "hall"),
        here="hall",
    )
    assert meant(home, said) == expected
