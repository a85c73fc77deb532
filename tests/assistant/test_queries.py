"""Questions: answered from the states of the home, and told in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from tests.assistant.speech import answer, do
from tests.homes import Clock, home_of, thing

from tumen.assistant.acts.queries import is_so
from tumen.home.entities import Entity
from tumen.home.home import Home


@pytest.mark.parametrize(
    ("id_", "device_class", "state", "true_of"),
    [
        ("light.a", "", "on", "on"),
        ("light.a", "", "off", "off"),
        ("light.a", "", "unavailable", "off"),
        ("light.a", "", "unknown", "off"),
        ("media_player.a", "", "playing", "on"),
        ("media_player.a", "", "paused", "on"),
        ("media_player.a", "", "idle", "on"),
        ("media_player.a", "", "standby", "off"),
        ("climate.a", "", "heat", "on"),
        ("climate.a", "", "off", "off"),
        ("vacuum.a", "", "cleaning", "on"),
        ("vacuum.a", "", "docked", "off"),
        ("cover.a", "", "open", "open on"),
        ("cover.a", "", "closed", "closed off"),
        ("cover.a", "", "opening", "opening on"),
        ("cover.a", "", "closing", "closing on"),
        # a locked door is closed, an unlocked one open
        ("lock.a", "", "locked", "locked closed on"),
        ("lock.a", "", "unlocked", "unlocked open off"),
        # a sensor is on when its window is open
        ("binary_sensor.a", "window", "on", "open on"),
        ("binary_sensor.a", "window", "off", "closed off"),
    ],
)
def test_what_is_true_of_a_state(id_: str, device_class: str, state: str, true_of: str) -> None:
    entity = Entity(id=id_, name="A", device_class=device_class)
    words = ("on", "off", "open", "closed", "opening", "closing", "locked", "unlocked")
    found = [word for word in words if is_so(entity, {"state": state}, word)]
    assert sorted(found) == sorted(true_of.split())


def house() -> Home:
    return home_of(
        thing("light.a", "Red lamp", "den", state="on", brightness=40),
        thing("light.b", "Blue lamp", "den", state="off"),
        thing("light.c", "Hall lamp", "hall", state="off"),
        thing("lock.f", "Front door", "hall", state="locked"),
        thing("lock.b", "Back door", "kitchen", state="unlocked"),
        thing("binary_sensor.w", "Kitchen window", "kitchen", device_class="window", state="on"),
        thing("binary_sensor.m", "Hall motion", "hall", device_class="motion", state="on"),
        thing("cover.g", "Garage", "garage", device_class="garage", position=40),
        thing("climate.d", "Heater", "den", state="heat", temperature=21, current_temperature=19.5),
        thing("media_player.t", "Television", "den", device_class="tv", state="off", volume=30),
        thing("fan.f", "Fan", "den", state="on", percentage=60),
        thing("sensor.h", "Damp", "cellar", device_class="humidity", state=61, unit="%"),
        thing("sensor.t", "Frost", "yard", device_class="temperature", state=-2.5, unit="°C"),
        thing("person.a", "Anna", state="home"),
        thing("person.b", "Bea", state="work"),
        thing("weather.w", "Weather", state="rainy", temperature=8, humidity=90),
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        # is it so?
        ("GetState name=red lamp state=on", "Yes, Red lamp is on."),
        ("GetState name=red lamp state=off", "No, Red lamp is on."),
        ("GetState name=front door state=locked", "Yes, Front door is locked."),
        ("GetState name=back door state=locked", "No, Back door is unlocked."),
        ("GetState name=back door state=open", "Yes, Back door is unlocked."),
        ("GetState name=kitchen window state=open", "Yes, Kitchen window is open."),
        ("GetState name=kitchen window state=closed", "No, Kitchen window is open."),
        ("GetState name=garage state=open", "Yes, Garage is open."),
        ("GetState name=television state=on", "No, Television is off."),
        ("GetState name=anna ask=where zone=home", "Yes, Anna is at home."),
        ("GetState name=bea zone=home", "No, Bea is work."),
        # any, all, which, how many
        ("GetState domain=light state=on ask=any", "Yes: Red lamp."),
        ("GetState domain=light state=on ask=any area=hall", "No, Hall lamp is off."),
        ("GetState domain=light state=on ask=which area=hall", "None of 1 light."),
        ("GetState domain=light state=on ask=all", "No, not Blue lamp and Hall lamp (2 of 3 lights)."),
        ("GetState domain=light state=off ask=which", "Blue lamp and Hall lamp."),
        ("GetState domain=light state=off ask=how_many", "2 of 3 lights: Blue lamp and Hall lamp."),
        ("GetState domain=light state=on ask=how_many area=hall", "0 of 1 light."),
        ("GetState domain=lock state=locked ask=all", "No, not Back door (1 of 2 locks)."),
        ("GetState domain=lock state=locked ask=any", "Yes: Front door."),
        ("GetState domain=lock state=locked", "No, not Back door (1 of 2 locks)."),
        ("GetState device_class=window state=open ask=any", "Yes, Kitchen window is open."),
        ("GetState domain=person zone=home ask=any", "Yes: Anna."),
        ("GetState domain=person zone=work ask=which", "Bea."),
        ("GetState domain=person zone=home ask=how_many", "1 of 2 people: Anna."),
        # without a kind, `on` is about what is switched, `open` about covers and openings
        ("GetState state=on ask=which area=den", "Fan and Red lamp."),
        ("GetState state=on ask=which area=hall", "None of 1 light."),
        ("GetState state=open ask=which", "Kitchen window and Garage."),
        # what is it?
        ("GetState name=red lamp", "Red lamp is on, brightness 40 %."),
        ("GetState name=fan", "Fan is on, speed 60 %."),
        ("GetState name=television", "Television is off, volume 30 %."),
        ("GetState name=damp", "Damp is 61 %."),
        ("GetState name=frost", "Frost is -2.5 °C."),
        ("GetState name=kitchen window", "Kitchen window is open."),
        ("GetState name=garage", "Garage is open, position 40 %."),
        ("GetState name=heater", "Heater is heating, 21 °C, measured 19.5 °C."),
        ("GetState name=anna ask=where", "Anna is at home."),
        ("GetState domain=lock", "Back door: unlocked and Front door: locked."),
        ("GetState name=unicorn state=on", "There is no unicorn here."),
        # weather and temperature
        ("GetWeather", "Rainy, 8 °C, humidity 90 %."),
        ("ClimateGetTemperature", "Den: 19.5 °C."),
        ("ClimateGetTemperature area=yard", "Frost: -2.5 °C."),
        ("GetCurrentTime", "It is 20:15."),
        ("GetCurrentDate", "It is Sunday, November 22, 2026."),
    ],
)  # fmt: skip
def test_a_question_is_answered(said: str, told: str) -> None:
    home = house()
    was = home.snapshot()
    assert answer(home, said) == told
    assert home.snapshot() == was


def test_an_answer_holds_what_is_true_and_what_was_looked_at() -> None:
    result = do(house(), "GetState", "light.a", "light.b", state="on", ask="any").answer
    assert result is not None
    assert result.matching == ("light.a",)
    assert result.among == ("light.a", "light.b")
    assert result.facts == {"asked": "on"}


def test_a_zone_is_compared_without_case() -> None:
    home = home_of(
        thing("person.a", "Anna", state="Office"), thing("person.b", "Bea", state="home")
    )
    result = do(home, "GetState", "person.a", "person.b", zone="OFFICE").answer
    assert result is not None
    assert result.matching == ("person.a",)


@pytest.mark.parametrize(
    ("fields", "degrees"),
    [
        ({"id_": "climate.a", "current_temperature": 20}, 20),
        ({"id_": "climate.a", "current_temperature": 20.25}, 20.25),
        # its target is nothing it measures
        ({"id_": "climate.a", "temperature": 20}, None),
        ({"id_": "sensor.a", "state": "12.5"}, 12.5),
        ({"id_": "sensor.a", "state": "unknown"}, None),
        ({"id_": "weather.a", "temperature": 8}, 8),
        ({"id_": "weather.a"}, None),
    ],
)
def test_what_measures_the_temperature(fields: dict[str, Any], degrees: float | None) -> None:
    id_ = fields["id_"]
    rest = {name: value for name, value in fields.items() if name != "id_"}
    outcome = do(home_of(thing(id_, "A", "den", **rest)), "ClimateGetTemperature", id_)
    if degrees is None:
        assert outcome.refusal is not None
        assert outcome.refusal.reason == "unknown"
        assert outcome.refusal.about == {"entity": id_}
    else:
        assert outcome.answer is not None
        assert outcome.answer.facts == {id_: degrees}


def test_several_temperatures_are_told_one_by_one() -> None:
    home = home_of(
        thing("climate.a", "One", "den", current_temperature=20),
        thing("climate.b", "Two", "hall"),
        thing("climate.c", "Three", current_temperature=18),
    )
    result = do(home, "ClimateGetTemperature", "climate.a", "climate.b", "climate.c")
    assert result.answer is not None
    assert result.answer.facts == {"climate.a": 20, "climate.c": 18}
    assert answer(home, "ClimateGetTemperature name=one and three") == "Den: 20 °C. Three: 18 °C."


@pytest.mark.parametrize(
    ("hour", "minute", "told"),
    [(0, 0, "It is 0:00."), (9, 5, "It is 9:05."), (23, 59, "It is 23:59.")],
)
def test_the_time(hour: int, minute: int, told: str) -> None:
    clock = Clock()
    clock.now = clock.now.replace(hour=hour, minute=minute)
    assert answer(home_of(clock=clock), "GetCurrentTime") == told


@pytest.mark.parametrize(
    ("month", "day", "lang", "told"),
    [
        (1, 1, "en", "It is Thursday, January 1, 2026."),
        (12, 31, "en", "It is Thursday, December 31, 2026."),
        (3, 2, "de", "Heute ist Montag, der 2. März 2026."),
        (11, 22, "de", "Heute ist Sonntag, der 22. November 2026."),
        (3, 2, "zh", "今天是2026年3月2日，星期一。"),
        (11, 22, "zh", "今天是2026年11月22日，星期日。"),
    ],
)
def test_the_date(month: int, day: int, lang: str, told: str) -> None:
    clock = Clock()
    clock.now = clock.now.replace(month=month, day=day)
    assert answer(home_of(clock=clock), "GetCurrentDate", lang) == told
