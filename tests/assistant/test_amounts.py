"""Amounts: whether a number is reached or a difference, of what, and which way."""

import pytest
from tests.assistant.speech import action_of
from tests.homes import home_of, thing

from tumen.assistant.values import Values
from tumen.assistant.wording.amounts import amount_spans, with_amount
from tumen.assistant.wording.said_kinds import with_said_kind
from tumen.home.home import Home
from tumen.language.action import Action, normalise


@pytest.fixture(scope="module")
def house() -> Home:
    return home_of(
        thing("light.comet", "Comet", "den"),
        thing("light.lamp", "落地灯", "den"),
        thing("fan.big", "Big fan", "den"),
        thing("cover.sun", "Helios", "den", device_class="blind"),
        thing("climate.heat", "Heater", "den"),
        thing("media_player.radio", "Radio", "den"),
        thing("lock.front", "Front door", "den"),
    )


def read(house: Home, sentence: str, lang: str, heard: str) -> Action:
    return with_amount(normalise(sentence), action_of(heard, lang), house, Values())


@pytest.mark.parametrize(
    ("sentence", "lang", "heard", "meant"),
    [
        # a comparison changes by what is said
        ("make comet 20 percent brighter", "en", "none", "LightSet step=up brightness=20 percent"),
        (
            "heater one degree cooler",
            "en",
            "ClimateSetTemperature name=heater temperature=1",
            "ClimateSetTemperature step=down temperature=one degree",
        ),
        (
            "落地灯调暗三成",
            "zh",
            "LightSet brightness=三",
            "LightSet step=down brightness=三成",
        ),
        ("radio um zehn leiser", "de", "none", "SetVolumeRelative step=down volume=zehn"),
        # without a number it is one step
        ("comet a bit darker", "en", "TurnOff name=comet", "LightSet step=down"),
        ("big fan one step faster", "en", "none", "FanSetSpeed step=up"),
        ("落地灯稍微亮一点点", "zh", "none", "LightSet step=up"),
        # what is reached
        ("comet auf ein drittel runter", "de", "none", "LightSet brightness=ein drittel"),
        ("slow the big fan down to forty", "en", "none", "FanSetSpeed percentage=forty"),
        ("comet to 2700 kelvin", "en", "none", "LightSet temperature=2700 kelvin"),
        ("big fan on low", "en", "none", "FanSetSpeed percentage=low"),
        # a cover opens and closes by a part
        ("helios halb zu", "de", "TurnOff name=helios", "SetPosition position=50"),
        ("open the helios a third of the way", "en", "TurnOn name=helios", "SetPosition position=a third of the way"),
        ("open the helios another 20 percent", "en", "none", "SetPosition step=up position=20 percent"),
        ("close the helios a bit", "en", "TurnOff name=helios", "SetPosition step=down"),
        # a kind instead of a name
        (
            "open the blinds halfway",
            "en",
            "TurnOn device_class=blind",
            "SetPosition domain=cover device_class=blind position=halfway",
        ),
    ],
)  # fmt: skip
def test_amounts(house: Home, sentence: str, lang: str, heard: str, meant: str) -> None:
    assert read(house, sentence, lang, heard) == action_of(meant, lang)


def test_modes_and_stops(house: Home) -> None:
    cool = read(house, "put the heater in cool mode", "en", "none")
    assert cool == Action("ClimateSetMode", "en", {"mode": "cool"})
    assert read(house, "helios stopp", "de", "none") == action_of("StopMoving", "de")


@pytest.mark.parametrize(
    ("sentence", "lang", "heard"),
    [
        # nothing is said about how much
        ("turn on comet", "en", "TurnOn name=comet"),
        ("open the helios", "en", "TurnOn name=helios"),
        # a question changes nothing
        ("is it warmer in the den", "en", "ClimateGetTemperature area=den"),
        ("客厅几度", "zh", "ClimateGetTemperature area=客厅"),
        # a time, and what a number counts
        ("turn on comet at 8", "en", "TurnOn name=comet"),
        ("turn on two lights", "en", "TurnOn domain=light"),
        ("timer for 5 minutes", "en", "StartTimer duration=5 minutes"),
        # a lock has no amount
        ("front door a bit more", "en", "none"),
        # it says so already
        ("comet to 40", "en", "LightSet name=comet brightness=40"),
    ],
)
def test_other_commands_stay(house: Home, sentence: str, lang: str, heard: str) -> None:
    assert read(house, sentence, lang, heard) == action_of(heard, lang)


def test_an_unknown_name_is_kept(house: Home) -> None:
    found = read(house, "make the frobnicator brighter", "en", "LightSet name=frobnicator")
    assert found.slots["name"] == "frobnicator"
    found = read(house, "make it brighter", "en", "LightSet name=it brighter step=up")
    assert "name" not in found.slots


@pytest.mark.parametrize(
    ("said", "protected"),
    [
        ("küchenlautsprecher um 15 lauter", "um 15"),
        ("turn it up by 20 make it louder", "by 20"),
        ("um 15 uhr lauter", ""),
        ("licht aus um 8", ""),
    ],
)
def test_a_difference_is_no_time_of_day(said: str, protected: str) -> None:
    assert [said[start:end] for start, end in amount_spans(said)] == [protected][: bool(protected)]


def test_the_kind_that_was_said_is_acted_on(house: Home) -> None:
    heard = action_of("TurnOff device_class=curtain", "de")
    found = with_said_kind("schließ das gartentor ab", heard, house)
    assert found == action_of("TurnOff device_class=gate", "de")
    assert with_said_kind("mach die vorhänge zu", heard, house) == heard
    assert with_said_kind("helios zu", heard, house) == heard
