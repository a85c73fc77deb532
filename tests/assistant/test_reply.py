"""Replies: every template in every language, and no outcome without words."""

import string
from typing import Any

import pytest

from tumen.assistant import Candidate, Question, Refusal, Resolved, act
from tumen.assistant.replies import reply
from tumen.assistant.replies.catalogue import catalogues
from tumen.home.home import Home


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_language_has_every_reply_with_the_same_parts() -> None:
    english = catalogues()["en"]
    for lang, catalogue in catalogues().items():
        assert catalogue.replies.keys() == english.replies.keys(), lang
        assert catalogue.nouns.keys() == english.nouns.keys(), lang
        for key, text in catalogue.replies.items():
            # of a long list some languages tell the rest, some the total
            allowed = fields(english.replies[key]) | ({"total"} if key == "more" else set())
            assert fields(text) <= allowed, (lang, key)
        told = {"on", "off", "open", "closed", "locked", "unlocked", "brightness"}
        assert told <= catalogue.words.keys(), lang


@pytest.mark.parametrize(
    ("lang", "intent", "targets", "values", "told"),
    [
        ("en", "TurnOn", "cover.garage_door", {}, "Opened Garage door."),
        ("en", "TurnOn", "lock.back_door", {}, "Locked Back door."),
        ("en", "TurnOff", "lock.front_door", {}, "Unlocked Front door."),
        ("en", "TurnOn", "scene.movie_night", {}, "Activated Movie night."),
        ("en", "TurnOn", "button.doorbell_test", {}, "Pressed Doorbell test."),
        ("en", "LightSet", "light.desk_lamp", {"brightness": 20, "color": "red"}, "Set Desk lamp to 20 %, red."),
        (
            *("en", "LightSet", "light.desk_lamp light.garage", {"color": "red"}),
            "Set Desk lamp to red. Not Garage light: no colour to set.",
        ),
        (
            *("en", "ClimateSetTemperature", "climate.bedroom", {"temperature": 20}),
            "Set Bedroom air conditioner to 20 °C. It is off at the moment.",
        ),
        (
            *("en", "VacuumCleanArea", "vacuum.rosie", {"area": "kitchen,living_room"}),
            "Rosie: cleaning Kitchen and Living room.",
        ),
        ("en", "MediaSearchAndPlay", "media_player.tv", {"query": "jazz"}, "Playing jazz on Living room TV."),
        ("en", "StartTimer", "", {"seconds": 3900, "name": "pizza"}, "Started the pizza timer for 1 h 5 min."),
        (
            *("en", "GetState", "lock.front_door lock.back_door", {"state": "locked", "ask": "all"}),
            "No, not Back door (1 of 2 locks).",
        ),
        ("en", "GetState", "lock.front_door", {"state": "locked"}, "Yes, Front door is locked."),
        ("en", "GetState", "lock.back_door", {"state": "locked"}, "No, Back door is unlocked."),
        ("en", "GetState", "binary_sensor.bedroom_window", {"state": "closed"}, "No, Bedroom window is open."),
        ("en", "GetState", "sensor.bathroom_humidity", {}, "Bathroom humidity is 55 %."),
        ("en", "GetState", "person.anna", {"ask": "where"}, "Anna is at home."),
        ("en", "GetState", "light.mirror light.bathroom", {"state": "on", "ask": "how_many"}, "0 of 2 lights."),
        ("en", "GetWeather", "weather.home", {}, "Sunny, 14 °C, humidity 60 %."),
        ("en", "GetCurrentDate", "", {}, "It is Sunday, November 22, 2026."),
        ("zh", "TurnOn", "cover.garage_door", {}, "已打开车库门。"),
        ("zh", "LightSet", "light.desk_lamp", {"brightness": 20, "color": "red"}, "已把台灯调到20 %, 红。"),
        ("zh", "GetCurrentTime", "", {}, "现在20点15分。"),
        ("zh", "GetCurrentDate", "", {}, "今天是2026年11月22日，星期日。"),
        ("de", "TurnOff", "light.desk_lamp", {}, "Schreibtischlampe ausgeschaltet."),
        (
            *("de", "ClimateSetTemperature", "climate.living_room", {"temperature": 19.5}),
            "Wohnzimmerthermostat auf 19.5 °C gestellt.",
        ),
        ("de", "GetState", "lock.front_door", {"state": "locked"}, "Ja, Haustür ist abgeschlossen."),
        ("de", "GetCurrentTime", "", {}, "Es ist 20:15 Uhr."),
    ],
)  # fmt: skip
def test_a_reply(
    home: Home, lang: str, intent: str, targets: str, values: dict[str, Any], told: str
) -> None:
    assert (
        reply(act(Resolved(f"Hass{intent}", lang, tuple(targets.split()), values), home), home)
        == told
    )


def test_large_groups_are_counted(home: Home) -> None:
    lights = tuple(id_ for id_ in home.entities if id_.startswith("light."))
    assert (
        reply(act(Resolved("HassTurnOff", "en", lights), home), home)
        == "Turned off 4 lights. The other 16 already were."
    )
    assert (
        reply(act(Resolved("HassTurnOff", "en", lights), home), home)
        == "20 lights were already off."
    )
    some = tuple(id_ for id_ in lights if "bed" in id_ or "kit" in id_)
    assert (
        reply(act(Resolved("HassTurnOn", "en", some, place="upper"), home), home)
        == "Turned on 5 lights in Upstairs."
    )


@pytest.mark.parametrize("lang", ["en", "zh", "de"])
def test_questions_and_refusals_have_words(home: Home, lang: str) -> None:
    options = tuple(Candidate(f"Lamp {n}", (f"light.{n}",)) for n in range(7))
    asked = reply(Question("HassTurnOn", lang, options), home)
    assert "Lamp 4" in asked
    assert "Lamp 5" not in asked
    for reason in ("what", "where", "how_long"):
        assert reply(Question("HassTurnOn", lang, (), {}, reason), home)
    for refusal in (
        Refusal("none", lang, "not_home"),
        Refusal("HassTurnOn", lang, "absent", {"kind": "fan", "place": "kitchen"}),
        Refusal("HassTurnOn", lang, "place", {"words": "narnia"}),
        Refusal("HassTurnOn", lang, "cannot", {"entity": "light.mirror"}),
        Refusal("HassLightSet", lang, "value", {"slot": "brightness", "words": "loud"}),
    ):
        assert reply(refusal, home)
