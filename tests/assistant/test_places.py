"""Where: rooms, floors, `here`, several places, and the whole home."""

from __future__ import annotations

import pytest
from tests.assistant.speech import meant, question, refusal, resolved
from tests.homes import home_of, thing

from tumen.home.home import Home

FLOORS = {"kitchen": "ground", "hall": "ground", "bedroom": "upper", "study": "upper"}


def house(**fields: object) -> Home:
    """Two floors with two rooms each and one lamp in each room; a fan in the study."""
    return home_of(
        thing("light.kitchen", "Red lamp", "kitchen"),
        thing("light.hall", "Green lamp", "hall"),
        thing("light.bedroom", "Blue lamp", "bedroom"),
        thing("light.study", "White lamp", "study"),
        thing("fan.study", "Study fan", "study"),
        floors=FLOORS,
        **fields,
    )


ALL = "light.bedroom light.hall light.kitchen light.study"


@pytest.mark.parametrize(
    ("area", "lang", "expected"),
    [
        ("kitchen", "en", "light.kitchen"),
        ("the kitchen", "en", "light.kitchen"),
        ("in the kitchen", "en", "light.kitchen"),
        ("my kitchen please", "en", "light.kitchen"),
        ("KITCHEN", "en", "light.kitchen"),
        ("kitchens", "en", "light.kitchen"),
        ("upper", "en", "light.bedroom light.study"),
        ("ground", "en", "light.hall light.kitchen"),
        # two places are one
        ("kitchen and bedroom", "en", "light.bedroom light.kitchen"),
        ("the kitchen and the bedroom", "en", "light.bedroom light.kitchen"),
        ("kitchen und bedroom", "de", "light.bedroom light.kitchen"),
        ("kitchen & bedroom", "en", "light.bedroom light.kitchen"),
        ("kitchen 和 bedroom", "zh", "light.bedroom light.kitchen"),
        ("kitchen and bedroom and hall", "en", "light.bedroom light.hall light.kitchen"),
        ("ground and study", "en", "light.hall light.kitchen light.study"),
        # one of them is not there: nothing is done in the other
        ("kitchen and attic", "en", "!place"),
        ("attic and kitchen", "en", "!place"),
        # small typos
        ("kithcen", "en", "light.kitchen"),
        ("bedrom", "en", "light.bedroom"),
        ("attic", "en", "!place"),
        # the whole home
        ("everywhere", "en", ALL),
        ("the whole house", "en", ALL),
        ("all rooms", "en", ALL),
        ("überall", "de", ALL),
        ("im ganzen haus", "de", ALL),
        ("家里", "zh", ALL),
        ("全屋", "zh", ALL),
    ],
)
def test_a_place_is_found_by_its_words(area: str, lang: str, expected: str) -> None:
    assert meant(house(), f"TurnOn domain=light area={area}", lang) == expected


def test_a_place_nobody_knows_is_named_in_the_refusal() -> None:
    assert refusal(house(), "TurnOn domain=light area=attic").about == {"words": "attic"}
    assert refusal(house(), "TurnOn name=red lamp area=attic").about == {"words": "attic"}


@pytest.mark.parametrize(
    ("words", "lang"),
    [
        ("here", "en"),
        ("in here", "en"),
        ("this room", "en"),
        ("in this room", "en"),
        ("the room", "en"),
        ("hier", "de"),
        ("in diesem zimmer", "de"),
        ("这里", "zh"),
        ("这个房间", "zh"),
    ],
)
def test_here_is_the_speakers_room(words: str, lang: str) -> None:
    said = f"TurnOn domain=light area={words}"
    assert meant(house(), said, lang, here="hall") == "light.hall"
    assert meant(house(here="study"), said, lang) == "light.study"
    assert question(house(), said, lang).reason == "where"


@pytest.mark.parametrize(
    ("name", "lang"),
    [
        ("lamp in here", "en"),
        ("the lamp in this room", "en"),
        ("lampe hier", "de"),
        ("这里的灯", "zh"),
    ],
)
def test_here_may_stand_in_the_name(name: str, lang: str) -> None:
    assert meant(house(), f"TurnOn name={name}", lang, here="hall") == "light.hall"


def test_a_room_that_is_named_wins_over_here() -> None:
    assert meant(house(), "TurnOn name=lamp in the kitchen", here="hall") == "light.kitchen"
    assert meant(house(), "TurnOn name=lamp here area=kitchen", here="hall") == "light.kitchen"
    assert meant(house(), "TurnOn name=lamp here area=hall", here="hall") == "light.hall"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # the place of the slot and the place in the name hold together
        ("TurnOn name=kitchen lamp area=ground", "light.kitchen"),
        ("TurnOn name=bedroom lamp area=upper", "light.bedroom"),
        ("TurnOn name=bedroom lamp area=ground", "!absent"),
        ("TurnOn name=upper lamps area=study", "light.study"),
        ("TurnOn name=kitchen lamp area=bedroom", "!absent"),
        ("TurnOn name=red lamp area=ground", "light.kitchen"),
        ("TurnOn name=red lamp area=upper", "!absent"),
        ("TurnOn name=red lamp area=kitchen and bedroom", "light.kitchen"),
    ],
)
def test_two_places_must_agree(said: str, expected: str) -> None:
    assert meant(house(), said) == expected


def test_a_refusal_says_where_the_device_is_not() -> None:
    about = refusal(house(), "TurnOn name=red lamp area=upper").about
    assert about == {"words": "red lamp", "place": "upper"}
    about = refusal(house(), "TurnOn domain=fan area=kitchen").about
    assert about == {"kind": "fan", "place": "kitchen"}
    assert refusal(house(), "TurnOn name=unicorn").about == {"words": "unicorn"}


def test_a_result_keeps_the_place_that_was_named() -> None:
    home = house()
    assert resolved(home, "TurnOn domain=light area=kitchen").place == "kitchen"
    assert resolved(home, "TurnOn domain=light area=upper").place == "upper"
    assert resolved(home, "TurnOn name=kitchen lamp").place == "kitchen"
    assert resolved(home, "TurnOn name=lamps upper").place == "upper"
    joined = resolved(home, "TurnOn domain=light area=kitchen and hall")
    assert joined.place == "kitchen+hall"
    assert resolved(home, "TurnOn name=red lamp").place is None
    assert resolved(home, "TurnOn domain=light area=everywhere").place is None


def test_a_floor_may_be_called_like_the_whole_home() -> None:
    home = home_of(
        thing("light.a", "Red lamp", "kitchen"),
        thing("light.b", "Blue lamp", "shed"),
        floors={"kitchen": "house"},
    )
    assert meant(home, "TurnOn domain=light area=house") == "light.a"
    assert meant(home, "TurnOn domain=light area=everywhere") == "light.a light.b"


def test_two_areas_of_one_name_are_both_meant() -> None:
    areas = [{"id": id_, "name": "Bath"} for id_ in ("up", "down")]
    things = [thing("light.a", "Red lamp", "up"), thing("light.b", "Blue lamp", "down")]
    home = Home.of({"area": areas, "entity": things})
    assert meant(home, "TurnOn domain=light area=bath") == "light.a light.b"


def bedrooms(*things: dict[str, object]) -> Home:
    """A master bedroom, a guest bedroom and a hall."""
    areas = [
        {"id": "master", "name": "Master bedroom"},
        {"id": "guest", "name": "Guest bedroom"},
        {"id": "hall", "name": "Hall"},
    ]
    return Home.of({"area": areas, "entity": list(things)})


def test_part_of_a_rooms_name_asks_which_room() -> None:
    home = bedrooms(
        thing("light.m", "Red lamp", "master"),
        thing("light.g", "Blue lamp", "guest"),
        thing("fan.g", "Big fan", "guest"),
    )
    asked = question(home, "TurnOn domain=light area=bedroom")
    assert asked.reason == "which"
    assert asked.shown == ("Master bedroom", "Guest bedroom")
    assert asked.choose(1).targets == ("light.g",)
    assert question(home, "TurnOn name=bedroom light").shown == asked.shown
    assert meant(home, "TurnOn domain=light area=guest bedroom") == "light.g"
    assert meant(home, "TurnOn domain=light area=guest") == "light.g"


def test_part_of_a_rooms_name_is_enough_where_one_room_has_such_a_device() -> None:
    home = bedrooms(
        thing("light.m", "Red lamp", "master"),
        thing("light.g", "Blue lamp", "guest"),
        thing("fan.g", "Big fan", "guest"),
    )
    assert meant(home, "TurnOn domain=fan area=bedroom") == "fan.g"
    assert meant(home, "TurnOn name=fan area=bedroom") == "fan.g"
    assert meant(home, "TurnOn name=bedroom fan") == "fan.g"
    assert meant(home, "TurnOn name=blue lamp area=bedroom") == "light.g"
    assert meant(home, "TurnOn domain=lock area=bedroom") == "!place"


def test_part_of_a_rooms_name_does_not_reach_beyond_a_named_place() -> None:
    home = bedrooms(thing("light.m", "Red lamp", "master"), thing("light.h", "Blue lamp", "hall"))
    assert meant(home, "TurnOn name=bedroom light area=hall") == "!absent"


def test_a_word_of_a_device_in_the_place_of_a_room_finds_the_device() -> None:
    home = house()
    assert meant(home, "TurnOn domain=light area=red") == "light.kitchen"
    assert meant(home, "TurnOn name=lamp area=red") == "light.kitchen"
    assert meant(home, "TurnOn name=red area=lamp") == "light.kitchen"
    assert meant(home, "TurnOn area=white lamp") == "light.study"


def test_only_people_are_in_zones() -> None:
    home = home_of(thing("light.lamp", "Lamp", "kitchen"), thing("person.anna", "Anna"))
    assert meant(home, "GetState name=anna zone=school") == "person.anna"
    assert meant(home, "GetState name=lamp zone=school") == "!cannot"


def test_a_name_with_its_place_comes_before_the_name_alone() -> None:
    home = home_of(
        thing("light.whole", "Kitchen lamp", "kitchen"), thing("light.part", "Lamp", "kitchen")
    )
    assert meant(home, "TurnOn area=kitchen name=lamp") == "light.whole"
    assert meant(home, "TurnOn name=lamp") == "light.part"


def test_a_device_that_cannot_is_found_in_the_corrected_place() -> None:
    home = home_of(
        thing("lock.front", "Front door", "study"),
        thing("lock.back", "Front door", "garage"),
        thing("light.study", "Lamp", "study"),
    )
    assert meant(home, "LightSet name=front door area=study brightness=3") == "!cannot"
    refused = refusal(home, "LightSet name=front door area=here brightness=3", here="garage")
    assert (refused.reason, refused.about) == ("cannot", {"entity": "lock.back"})
    refused = refusal(home, "LightSet name=front door area=studdy brightness=3")
    assert (refused.reason, refused.about) == ("cannot", {"entity": "lock.front"})
