"""Intents that follow rules of their own: temperature, vacuums, broadcasts, weather, lists."""

from __future__ import annotations

import pytest
from tests.assistant.speech import meant, question, refusal, resolved
from tests.homes import home_of, thing

from tumen.assistant import resolve
from tumen.home.home import Home
from tumen.language.action import Action

# -- temperature ---------------------------------------------------------------------------------


def climates() -> Home:
    """A heater in the den, a sensor there and one outside, nothing in the hall."""
    return home_of(
        thing("climate.den", "Heater", "den"),
        thing("sensor.den", "Den thermometer", "den", device_class="temperature"),
        thing("sensor.yard", "Frost sensor", "yard", device_class="temperature"),
        thing("sensor.damp", "Damp sensor", "cellar", device_class="humidity"),
        thing("light.hall", "Lamp", "hall"),
    )


@pytest.mark.parametrize(
    ("said", "here", "expected"),
    [
        # a climate device first, a sensor where there is none
        ("ClimateGetTemperature area=den", None, "climate.den"),
        ("ClimateGetTemperature area=yard", None, "sensor.yard"),
        ("ClimateGetTemperature area=hall", None, "!absent"),
        ("ClimateGetTemperature area=cellar", None, "!absent"),
        ("ClimateGetTemperature area=attic", None, "!place"),
        ("ClimateGetTemperature area=den and yard", None, "climate.den"),
        # without a place: the speaker's room, else the heating of the home
        ("ClimateGetTemperature", "den", "climate.den"),
        ("ClimateGetTemperature", "yard", "sensor.yard"),
        ("ClimateGetTemperature", "hall", "climate.den"),
        ("ClimateGetTemperature", None, "climate.den"),
        ("ClimateGetTemperature area=everywhere", None, "climate.den"),
        ("ClimateGetTemperature area=here", "yard", "sensor.yard"),
        # a name means just that
        ("ClimateGetTemperature name=frost sensor", None, "sensor.yard"),
        ("ClimateGetTemperature name=den thermometer", None, "sensor.den"),
        ("ClimateGetTemperature name=unicorn", None, "!absent"),
    ],
)
def test_who_measures_the_temperature(said: str, here: str | None, expected: str) -> None:
    assert meant(climates(), said, here=here) == expected


def test_several_that_measure_are_asked_about() -> None:
    home = home_of(
        thing("climate.den", "Heater", "den"),
        thing("climate.hall", "Radiator", "hall"),
        thing("sensor.hall", "Hall thermometer", "hall", device_class="temperature"),
        thing("light.yard", "Lamp", "yard"),
    )
    assert question(home, "ClimateGetTemperature").shown == ("Heater", "Radiator")
    assert meant(home, "ClimateGetTemperature", here="hall") == "climate.hall"
    # nothing measures in the yard: which of the others is meant?
    assert meant(home, "ClimateGetTemperature", here="yard") == "?climate.den climate.hall"
    only_sensors = home_of(
        thing("sensor.a", "Red", "den", device_class="temperature"),
        thing("sensor.b", "Blue", "hall", device_class="temperature"),
    )
    assert question(only_sensors, "ClimateGetTemperature").shown == ("Red", "Blue")


def test_where_nothing_measures_the_refusal_says_so() -> None:
    home = climates()
    assert refusal(home, "ClimateGetTemperature area=hall").about == {
        "kind": "temperature",
        "place": "hall",
    }
    nothing = home_of(thing("light.hall", "Lamp", "hall"))
    assert refusal(nothing, "ClimateGetTemperature").about == {"kind": "temperature"}


# -- vacuums -------------------------------------------------------------------------------------

FLOORS = {"kitchen": "ground", "hall": "ground", "bedroom": "upper", "study": "upper"}


def one_vacuum() -> Home:
    return home_of(thing("vacuum.rosie", "Rosie", "hall"), floors=FLOORS)


def two_vacuums() -> Home:
    return home_of(
        thing("vacuum.rosie", "Rosie", "hall"), thing("vacuum.ruth", "Ruth", "study"), floors=FLOORS
    )


@pytest.mark.parametrize(
    ("said", "here", "areas"),
    [
        ("VacuumCleanArea area=kitchen", None, "kitchen"),
        ("VacuumCleanArea area=kitchen and bedroom", None, "bedroom,kitchen"),
        ("VacuumCleanArea area=ground", None, "hall,kitchen"),
        ("VacuumCleanArea area=kithcen", None, "kitchen"),
        ("VacuumCleanArea area=here", "study", "study"),
        # `clean up` in a room means this room
        ("VacuumCleanArea", "study", "study"),
        ("VacuumCleanArea", None, None),
        ("VacuumCleanArea area=everywhere", "study", None),
        ("VacuumCleanArea name=rosie area=bedroom", None, "bedroom"),
        # `start the vacuum in the kitchen`: it is to clean there
        ("VacuumStart area=kitchen", None, "kitchen"),
        # where it stands, it starts
        ("VacuumStart area=hall", None, None),
        ("VacuumStart", None, None),
        ("VacuumStart", "study", None),
    ],
)
def test_a_vacuum_comes_from_wherever_it_is(said: str, here: str | None, areas: str | None) -> None:
    result = resolved(one_vacuum(), said, here=here)
    assert result.targets == ("vacuum.rosie",)
    assert result.values.get("area") == areas


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("VacuumCleanArea area=kitchen", "vacuum.rosie"),
        ("VacuumCleanArea area=hall", "vacuum.rosie"),
        ("VacuumCleanArea area=bedroom", "vacuum.ruth"),
        ("VacuumCleanArea area=upper", "vacuum.ruth"),
        ("VacuumStart area=bedroom", "vacuum.ruth"),
        ("VacuumStart area=study", "vacuum.ruth"),
        ("VacuumStart name=ruth", "vacuum.ruth"),
        ("VacuumCleanArea name=ruth area=kitchen", "vacuum.ruth"),
        ("VacuumCleanArea area=kitchen and bedroom", "?vacuum.rosie vacuum.ruth"),
        ("VacuumCleanArea", "?vacuum.rosie vacuum.ruth"),
        ("VacuumStart", "?vacuum.rosie vacuum.ruth"),
        ("VacuumCleanArea area=attic", "!place"),
        ("VacuumStart area=attic", "!place"),
    ],
)
def test_the_vacuum_of_the_floor_cleans(said: str, expected: str) -> None:
    assert meant(two_vacuums(), said) == expected


def test_a_vacuum_without_a_room_cleans_where_it_is_the_only_one() -> None:
    home = home_of(thing("vacuum.rosie", "Rosie"), floors=FLOORS)
    assert resolved(home, "VacuumCleanArea area=kitchen").targets == ("vacuum.rosie",)
    assert meant(home_of(floors=FLOORS), "VacuumCleanArea area=kitchen") == "!absent"


def test_a_result_of_cleaning_names_the_place() -> None:
    assert resolved(one_vacuum(), "VacuumCleanArea area=ground").place == "ground"
    assert resolved(one_vacuum(), "VacuumCleanArea", here="study").place is None


# -- broadcasts, weather, lists ------------------------------------------------------------------


def test_a_broadcast_goes_to_speakers_and_else_to_every_player() -> None:
    speaker = thing("media_player.a", "Box", "den", device_class="speaker")
    other = thing("media_player.b", "Screen", "hall", device_class="tv")
    second = thing("media_player.c", "Cube", "hall", device_class="speaker")
    said = "Broadcast message=dinner"
    assert meant(home_of(speaker, other, second), said) == "media_player.a media_player.c"
    assert meant(home_of(speaker, other, second), said, here="den") == (
        "media_player.a media_player.c"
    )
    assert meant(home_of(speaker, other, second), f"{said} area=hall") == "media_player.c"
    assert meant(home_of(speaker, other), f"{said} area=hall") == "media_player.b"
    assert meant(home_of(thing("light.a", "Lamp", "den")), said) == "!absent"
    assert resolved(home_of(speaker), said).values == {"message": "dinner"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("GetWeather", "weather.home"),
        ("GetWeather name=garden", "weather.home"),
        ("GetWeather name=in the garden", "weather.home"),
        ("GetWeather name=forecast", "weather.home"),
        ("GetWeather name=outlook", "weather.home"),
        ("GetWeather name=london", "!absent"),
    ],
)
def test_the_weather_is_that_of_the_home(said: str, expected: str) -> None:
    home = home_of(thing("weather.home", "Outlook"), thing("light.a", "Lamp", "garden"))
    assert meant(home, said) == expected


def test_the_weather_of_a_place_of_the_home_is_told_there() -> None:
    home = home_of(thing("weather.home", "Outlook"), thing("light.a", "Lamp", "garden"))
    assert resolved(home, "GetWeather name=garden").place == "garden"
    assert resolved(home, "GetWeather").place is None


def test_the_shopping_list_is_always_there() -> None:
    empty = Home.of({})
    for said in ("ShoppingListAddItem item=tea", "ShoppingListCompleteItem item=tea"):
        result = resolved(empty, said)
        assert result.targets == ("todo.shopping_list",)
        assert result.values == {"item": "tea"}
    assert meant(empty, "ListAddItem name=shopping list item=tea") == "todo.shopping_list"
    assert meant(empty, "ListAddItem name=einkaufsliste item=tee", "de") == "todo.shopping_list"
    assert meant(empty, "ListAddItem name=购物清单 item=茶", "zh") == "todo.shopping_list"


@pytest.mark.parametrize("intent", ["Nevermind", "Respond", "GetCurrentTime", "GetCurrentDate"])
def test_intents_about_nothing_in_the_home_are_resolved_at_once(intent: str) -> None:
    result = resolved(Home.of({}), intent)
    assert (result.intent, result.targets, result.values) == (f"Hass{intent}", (), {})


def test_what_is_not_for_the_home_is_refused() -> None:
    home = home_of(thing("light.a", "Lamp", "den"))
    assert meant(home, "none") == "!not_home"
    unknown = resolve(Action("HassMakeTea", "en", {"name": "lamp"}), home)
    assert unknown.key() == ("refusal", "HassMakeTea", "not_home", (), ())


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("LightSet name=lamp brightness=half", {"brightness": 50}),
        ("LightSet name=lamp color=navy", {"color": "darkblue"}),
        ("LightSet name=lamp temperature=warm white", {"temperature": 2700}),
        ("LightSet name=lamp step=up", {"step": "up"}),
        ("LightSet name=lamp step=down brightness=ten", {"step": "down", "brightness": 10}),
        ("StartTimer duration=two minutes", {"seconds": 120}),
        ("StartTimer duration=two minutes name=tea  pot", {"seconds": 120, "name": "tea pot"}),
        ("StartTimer duration=1 hour command=turn off lamp", {"seconds": 3600, "command": "turn off lamp"}),
        ("GetState name=lamp state=on", {"state": "on"}),
    ],
)  # fmt: skip
def test_values_are_numbers_and_text(said: str, values: dict[str, object]) -> None:
    home = home_of(thing("light.lamp", "Lamp", "den"))
    assert resolved(home, said).values == values


@pytest.mark.parametrize(
    ("said", "slot", "words"),
    [
        ("LightSet name=lamp brightness=loud", "brightness", "loud"),
        ("LightSet name=lamp color=blurple", "color", "blurple"),
        ("StartTimer duration=soon", "duration", "soon"),
        ("CancelTimer start=yesterday", "start", "yesterday"),
    ],
)
def test_a_value_that_is_not_understood_is_refused(said: str, slot: str, words: str) -> None:
    home = home_of(thing("light.lamp", "Lamp", "den"))
    refused = refusal(home, said)
    assert refused.reason == "value"
    assert refused.about == {"slot": slot, "words": words}
