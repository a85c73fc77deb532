"""Corrections: what the words of a command settle, whatever a model heard."""

import pytest
from tests.assistant.speech import action_of
from tests.homes import home_of, thing

from tumen.assistant.reading.corrections import corrected
from tumen.assistant.values import Values
from tumen.home.home import Home
from tumen.language.action import normalise


@pytest.fixture(scope="module")
def house() -> Home:
    return home_of(
        thing("light.comet", "Comet", "den"),
        thing("media_player.radio", "Radio", "den"),
        thing("fan.big", "Big fan", "den"),
        thing("lock.front", "Front door", "den"),
        thing("light.lamp", "落地灯", "den"),
        thing("climate.heat", "Heater", "den"),
    )


@pytest.mark.parametrize(
    ("sentence", "lang", "heard", "meant"),
    [
        # the way it is switched
        ("kill the lights", "en", "TurnOn domain=light", "TurnOff domain=light"),
        ("switch on the lights", "en", "TurnOff domain=light", "TurnOn domain=light"),
        ("licht im bad aus", "de", "TurnOn domain=light area=bad", "TurnOff domain=light area=bad"),
        ("把灯关掉", "zh", "TurnOn domain=light", "TurnOff domain=light"),
        # `on the desk` is a place
        ("shut down the lights on the desk", "en", "TurnOff domain=light", "TurnOff domain=light"),
        ("lights on", "en", "TurnOff domain=light", "TurnOn domain=light"),
        # both are said, or neither
        ("turn the lamp off and on", "en", "TurnOn name=comet", "TurnOn name=comet"),
        ("the lights please", "en", "TurnOn domain=light", "TurnOn domain=light"),
        # a lock that is on is locked, and a name may be anything
        ("switch off the front door", "en", "TurnOn name=front door", "TurnOn name=front door"),
        ("switch off the thing", "en", "TurnOn name=thing", "TurnOn name=thing"),
        # a number means what the device has
        (
            "comet to 80",
            "en",
            "SetVolume name=comet volume=80",
            "LightSet name=comet brightness=80",
        ),
        (
            "radio to 30",
            "en",
            "LightSet name=radio brightness=30",
            "SetVolume name=radio volume=30",
        ),
        (
            "big fan at half",
            "en",
            "LightSet name=big fan color=half",
            "FanSetSpeed name=big fan percentage=half",
        ),
        (
            "comet to full",
            "en",
            "LightSet name=comet color=full",
            "LightSet name=comet brightness=full",
        ),
        ("comet to red", "en", "LightSet name=comet color=red", "LightSet name=comet color=red"),
        # a number is whole, with its unit
        (
            "落地灯调到三分之一",
            "zh",
            "LightSet name=落地灯 brightness=一",
            "LightSet name=落地灯 brightness=三分之一",
        ),
        (
            "落地灯调到四成",
            "zh",
            "LightSet name=落地灯 brightness=四",
            "LightSet name=落地灯 brightness=四成",
        ),
        (
            "heater to 68 degrees fahrenheit",
            "en",
            "ClimateSetTemperature name=heater temperature=68",
            "ClimateSetTemperature name=heater temperature=68 degrees fahrenheit",
        ),
    ],
)
def test_corrections(house: Home, sentence: str, lang: str, heard: str, meant: str) -> None:
    found = corrected(normalise(sentence), action_of(heard, lang), house, Values())
    assert found == action_of(meant, lang)
