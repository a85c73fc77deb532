"""By name: what wins where several names fit, and what is never invented."""

from __future__ import annotations

import pytest
from tests.assistant.speech import meant, refusal
from tests.homes import home_of, thing

from tumen.home.home import Home


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the whole name wins over place and kind
        ("kitchen light", "light.one"),
        ("the kitchen light", "light.one"),
        ("Kitchen Light", "light.one"),
        ("light in the kitchen", "light.one"),
        # the plural means all lights of the kitchen
        ("kitchen lights", "light.one light.two"),
        ("lights in the kitchen", "light.one light.two"),
        ("all lights in the kitchen", "light.one light.two"),
        ("kitchen spots", "light.two"),
        ("the spots", "light.two"),
        ("spot", "light.two"),
        # one more word is another device
        ("blue kitchen light", "!absent"),
        ("kitchen light bulb holder", "!absent"),
    ],
)
def test_the_whole_name_wins(name: str, expected: str) -> None:
    home = home_of(
        thing("light.one", "Kitchen light", "kitchen"),
        thing("light.two", "Kitchen spots", "kitchen"),
        thing("light.far", "Hall light", "hall"),
    )
    assert meant(home, f"TurnOn name={name}") == expected


def test_a_room_and_its_kind_are_one_device_only_if_one_is_called_so() -> None:
    home = home_of(
        thing("light.one", "Kitchen light", "kitchen"),
        thing("light.two", "Kitchen lamp", "kitchen"),
        thing("light.three", "Red spot", "kitchen"),
    )
    # two are called by room and kind, with different words
    assert meant(home, "TurnOn name=light area=kitchen") == "light.one"
    assert meant(home, "TurnOn name=lamp area=kitchen") == "light.two"
    assert meant(home, "TurnOn domain=light area=kitchen") == "light.one light.three light.two"
    # nobody is called `bulb` of the kitchen: all lights
    assert meant(home, "TurnOn name=bulb area=kitchen") == "light.one light.three light.two"
    # on a floor of one room and `here` a kind means all of it
    assert meant(home, "TurnOn name=light here", here="kitchen") == (
        "light.one light.three light.two"
    )
    assert meant(home, "TurnOn name=light area=kitchen scope=all") == "light.one"


def test_an_alias_is_a_name_in_every_language() -> None:
    home = home_of(
        thing(
            "switch.mill",
            "Grinder",
            "kitchen",
            aliases={"en": ["coffee mill"], "de": ["Kaffeemühle"], "zh": ["磨豆机"]},
        )
    )
    for words, lang in (
        ("grinder", "en"),
        ("coffee mill", "en"),
        ("the coffee mills", "en"),
        ("kaffeemühle", "de"),
        ("die Kaffeemuehle", "de"),
        ("磨豆机", "zh"),
        ("那个磨豆机", "zh"),
        ("厨房的磨豆机", "zh"),
        ("coffee mill", "zh"),
    ):
        expected = "!absent" if words.startswith("厨房") else "switch.mill"
        assert meant(home, f"TurnOn name={words}", lang) == expected, words


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # the words of name and area are one bag
        ("TurnOn name=left area=bed", "light.left"),
        ("TurnOn name=left bed lamp", "light.left"),
        ("TurnOn name=bed lamp on the left", "light.left"),
        ("TurnOn name=lamp left", "light.left"),
        ("TurnOn area=left lamp", "light.left"),
        ("TurnOn domain=light area=left", "light.left"),
        ("TurnOn domain=light name=left", "light.left"),
        ("TurnOn domain=light name=left area=attic", "light.left"),
        ("TurnOn domain=fan name=left", "fan.left"),
        # a name of just this word wins over a longer one
        ("TurnOn name=left", "fan.left"),
        ("TurnOn name=left lamp and right lamp", "light.left light.right"),
        ("TurnOn name=left bed lamp and the fan", "fan.left light.left"),
        ("TurnOn name=left lamp and unicorn", "!absent"),
        ("TurnOn name=unicorn and left lamp", "!absent"),
    ],
)
def test_words_that_tell_devices_apart(said: str, expected: str) -> None:
    home = home_of(
        thing("light.left", "Left bed lamp", "attic"),
        thing("light.right", "Right bed lamp", "attic"),
        thing("fan.left", "Left fan", "attic"),
    )
    assert meant(home, said) == expected


def test_just_these_words_win_over_these_and_more() -> None:
    home = home_of(
        thing("light.a", "Reading lamp", "den"), thing("light.b", "Old reading lamp", "den")
    )
    assert meant(home, "TurnOn name=reading light") == "light.a"
    assert meant(home, "TurnOn name=old light") == "light.b"
    assert meant(home, "TurnOn name=old reading light") == "light.b"


def test_a_thing_without_a_room_is_called_by_its_name_from_anywhere() -> None:
    home = home_of(
        thing("input_boolean.guests", "Guest mode"),
        thing("light.den", "Den lamp", "den"),
        thing("light.loose", "Loose lamp"),
    )
    assert meant(home, "TurnOn name=guest mode area=den") == "input_boolean.guests"
    assert meant(home, "TurnOn name=loose lamp area=den") == "light.loose"
    # but it is not one of the lamps of the room
    assert meant(home, "TurnOn domain=light area=den") == "light.den"
    assert meant(home, "TurnOn name=loose area=den") == "!absent"


def test_a_thing_of_another_room_is_not_called_from_here() -> None:
    home = home_of(thing("light.den", "Red lamp", "den"), thing("light.hall", "Blue lamp", "hall"))
    assert meant(home, "TurnOn name=red lamp area=hall") == "!absent"
    assert meant(home, "TurnOn name=red lamp", here="hall") == "light.den"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # `door` is a lock, a cover or a sensor, as the action has it
        ("TurnOn domain=lock name=door", "lock.door"),
        ("SetPosition name=door position=40", "cover.door"),
        ("TurnOn name=door", "?cover.door lock.door"),
        ("GetState name=door state=locked", "lock.door"),
        ("GetState name=door state=open", "?binary_sensor.door cover.door"),
        ("GetState name=door state=open ask=any", "binary_sensor.door cover.door"),
        # a sensor of the class door is a door more than a garage door is
        ("GetState device_class=door state=open", "binary_sensor.door"),
    ],
)
def test_the_kind_and_the_intent_narrow_a_name(said: str, expected: str) -> None:
    home = home_of(
        thing("lock.door", "Door", "hall"),
        thing("cover.door", "Door", "garage", device_class="garage"),
        thing("binary_sensor.door", "Door", "hall", device_class="door"),
    )
    assert meant(home, said) == expected


def test_a_kind_that_no_namesake_has_does_not_hide_them() -> None:
    home = home_of(thing("switch.lamp", "Corner lamp", "den"))
    # people say light to a lamp on a smart plug
    assert meant(home, "TurnOn domain=light name=corner lamp") == "switch.lamp"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blinds", "cover.blind"),
        ("shutters", "cover.shutter"),
        ("curtains", "cover.curtain"),
        ("covers", "cover.blind cover.curtain cover.shutter"),
        # the home does not have shades: the nearest sense will do
        ("shades", "cover.blind cover.shutter"),
        ("awning", "!absent"),
        ("garage door", "!absent"),
    ],
)
def test_the_sense_of_a_kind_word(name: str, expected: str) -> None:
    home = home_of(
        thing("cover.blind", "East", "den", device_class="blind"),
        thing("cover.shutter", "West", "den", device_class="shutter"),
        thing("cover.curtain", "South", "den", device_class="curtain"),
    )
    assert meant(home, f"TurnOff name={name} area=den") == expected


def test_a_sense_that_a_device_says_itself_wins() -> None:
    home = home_of(
        thing("media_player.tv", "Big screen", "den", device_class="tv"),
        thing("media_player.box", "Box", "den", device_class="speaker"),
        thing("media_player.any", "Old thing", "den"),
    )
    assert meant(home, "TurnOn name=television area=den") == "media_player.tv"
    assert meant(home, "TurnOn name=speaker area=den") == "media_player.box"
    without = home_of(thing("media_player.any", "Old thing", "den"))
    # a player that does not say what it is may be a television
    assert meant(without, "TurnOn name=television area=den") == "media_player.any"


def test_among_devices_of_one_word_the_sense_decides() -> None:
    home = home_of(
        thing("climate.heat", "Blue radiator", "den"),
        thing("climate.cool", "Blue air conditioner", "den"),
        thing("climate.open", "Blue box", "den"),
    )
    assert meant(home, "TurnOn name=blue heating") == "climate.heat"
    assert meant(home, "TurnOn name=blue aircon") == "climate.cool"


def test_names_in_another_number_or_case() -> None:
    home = home_of(
        thing("switch.fairy", "Fairy string", "den"),
        thing("switch.pump", "Teichpumpe", "garden"),
        thing("switch.sets", "Tea sets", "den"),
    )
    assert meant(home, "TurnOn name=fairy strings") == "switch.fairy"
    assert meant(home, "TurnOn name=der Teichpumpen", "de") == "switch.pump"
    assert meant(home, "TurnOn name=tea set") == "switch.sets"


def test_an_exact_name_wins_over_an_inflected_one() -> None:
    home = home_of(thing("switch.a", "Jet", "den"), thing("switch.b", "Jets", "den"))
    assert meant(home, "TurnOn name=jet") == "switch.a"
    assert meant(home, "TurnOn name=jets") == "switch.b"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("TurnOn name=coffe machine", "switch.coffee"),
        ("TurnOn name=cofee machine", "switch.coffee"),
        ("TurnOn name=coffee mashine", "switch.coffee"),
        ("TurnOn name=coffee machine area=kithcen", "switch.coffee"),
        ("TurnOn name=cofee mashine area=kitchne", "switch.coffee"),
        ("TurnOn name=koffee machine", "!absent"),
        ("TurnOn name=cffe machine", "!absent"),
        ("TurnOn name=tv", "!absent"),
    ],
)
def test_small_typos_are_corrected(said: str, expected: str) -> None:
    home = home_of(thing("switch.coffee", "Coffee machine", "kitchen"))
    assert meant(home, said) == expected


@pytest.mark.parametrize(
    ("said", "reason", "about"),
    [
        # it is there, but this is nothing it does
        ("LightSet name=kettle brightness=50", "cannot", {"entity": "switch.kettle"}),
        (
            "LightSet name=the kettle area=kitchen brightness=5",
            "cannot",
            {"entity": "switch.kettle"},
        ),
        ("LightSet name=kettel brightness=50", "cannot", {"entity": "switch.kettle"}),
        ("TurnOff name=party", "cannot", {"entity": "scene.party"}),
        ("SetVolume name=kettle volume=5", "cannot", {"entity": "switch.kettle"}),
        # it is not there
        (
            "LightSet name=kettle area=hall brightness=5",
            "absent",
            {"words": "kettle", "place": "hall"},
        ),
        ("TurnOn name=toaster", "absent", {"words": "toaster"}),
        ("TurnOn domain=fan", "absent", {"kind": "fan"}),
        ("TurnOn domain=cover device_class=awning", "absent", {"kind": "awning"}),
        ("FanSetSpeed percentage=5", "absent", {"kind": "fan"}),
        ("MediaPause", "absent", {"kind": "media_player"}),
        ("GetState state=locked", "absent", {"kind": ""}),
        ("SetPosition position=4", "absent", {"kind": "cover"}),
        # it could be several others: then it is simply not there
        ("LightSet name=box brightness=50", "absent", {"words": "box"}),
    ],
)
def test_why_nothing_is_done(said: str, reason: str, about: dict[str, str]) -> None:
    home = home_of(
        thing("switch.kettle", "Kettle", "kitchen"),
        thing("scene.party", "Party", "kitchen"),
        thing("switch.a", "Red box", "hall"),
        thing("switch.b", "Blue box", "hall"),
    )
    refused = refusal(home, said)
    assert (refused.reason, refused.about) == (reason, about)


def test_it_is_what_the_turn_before_was_about() -> None:
    home = home_of(
        thing("light.a", "Red lamp", "den"),
        thing("light.b", "Blue lamp", "den"),
        thing("lock.c", "Safe", "den"),
    )
    for word, lang in (("it", "en"), ("that one", "en"), ("sie", "de"), ("它", "zh")):
        said = f"LightSet name={word} color=red"
        assert meant(home, said, lang, last=("light.b",)) == "light.b"
        # a lock has no colour, and a thing that is gone is nothing
        assert meant(home, said, lang, last=("lock.c",)) == "!absent"
        assert meant(home, said, lang, last=("light.gone",)) == "!absent"
        assert meant(home, said, lang) == "!absent"
    assert meant(home, "LightSet name=them step=up", last=("light.a", "lock.c", "light.b")) == (
        "light.a light.b"
    )
    # a name is never `it`
    assert meant(home, "LightSet name=red lamp step=up", last=("light.b",)) == "light.a"


def test_the_words_of_all_are_no_name() -> None:
    home = home_of(thing("light.a", "Red lamp", "den"), thing("fan.b", "Fan", "den"))
    for word, lang in (("everything", "en"), ("alles", "de"), ("所有", "zh"), ("all", "en")):
        assert meant(home, f"TurnOff name={word}", lang) == "fan.b light.a"
        assert meant(home, f"TurnOff name={word} domain=light", lang) == "light.a"


def test_a_home_without_things_refuses_everything() -> None:
    empty = Home.of({})
    assert meant(empty, "TurnOn name=lamp") == "!absent"
    assert meant(empty, "TurnOn domain=light") == "!absent"
    assert meant(empty, "TurnOn area=kitchen") == "!place"
    assert meant(empty, "GetState domain=light state=on ask=any") == "!absent"
    assert meant(empty, "TurnOff name=everything") == "!absent"
