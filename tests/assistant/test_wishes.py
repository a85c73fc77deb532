"""Wishes: how it is, instead of what to do."""

import pytest
from tests.assistant.speech import action_of
from tests.homes import home_of, thing

from tumen.assistant.commands.list_commands import list_actions
from tumen.assistant.wording.wishes import wish_spans, with_wish
from tumen.home.home import Home
from tumen.language.action import Action, normalise


@pytest.fixture(scope="module")
def house() -> Home:
    return home_of(
        thing("switch.coffee", "Coffee machine", "kitchen"),
        thing("cover.awning", "Awning", "patio", device_class="awning"),
        thing("cover.blind", "Blind", "den", device_class="blind"),
        thing("cover.gate", "Gate", "patio", device_class="gate"),
    )


@pytest.mark.parametrize(
    ("sentence", "lang", "heard", "meant"),
    [
        ("I'm freezing", "en", "none", "ClimateSetTemperature step=up"),
        ("Mir ist kalt", "de", "ClimateGetTemperature", "ClimateSetTemperature step=up"),
        ("热得受不了了", "zh", "none", "ClimateSetTemperature step=down"),
        ("it's stuffy in the den", "en", "none area=den", "TurnOn domain=fan area=den"),
        ("the air is blowing in my face", "en", "none", "FanSetSpeed step=down"),
        ("der krach nervt", "de", "none", "SetVolumeRelative step=down"),
        ("地上好脏", "zh", "none", "VacuumStart"),
        ("the grass is getting awfully long", "en", "none", "LawnMowerStartMowing"),
        ("I can't see a thing", "en", "Nevermind", "LightSet domain=light step=up"),
        ("I fancy a coffee", "en", "none", "TurnOn name=Coffee machine"),
        ("we're out of oat milk", "en", "none", "ShoppingListAddItem item=oat milk"),
        ("wir haben keine zahnpasta mehr", "de", "none", "ShoppingListAddItem item=zahnpasta"),
        ("家里牙膏用完了", "zh", "TurnOff name=家里牙膏", "ShoppingListAddItem item=牙膏"),
    ],
)
def test_wishes(house: Home, sentence: str, lang: str, heard: str, meant: str) -> None:
    found = with_wish(normalise(sentence), action_of(heard, lang), house, None)
    assert found == action_of(meant, lang)


@pytest.mark.parametrize(
    ("sentence", "heard"),
    [
        ("how cold is it in here", "ClimateGetTemperature"),
        ("is it too dark", "none"),
        ("it's too cold set the heating to 22", "ClimateSetTemperature temperature=22"),
        ("we are out of the house", "none"),
        ("the coffee machine is broken", "none"),
    ],
)
def test_other_sentences_stay(house: Home, sentence: str, heard: str) -> None:
    action = action_of(heard)
    assert with_wish(normalise(sentence), action, house, None) is action


def test_an_awning_is_let_out_and_blinds_are_closed(house: Home) -> None:
    said = "the sun is in my eyes"
    nothing = Action("none", "en")
    assert with_wish(said, nothing, house, "patio") == action_of("TurnOn device_class=awning")
    assert with_wish(said, nothing, house, "den") == action_of("TurnOff domain=cover")


def test_the_words_of_a_wish_forbid_nothing() -> None:
    assert wish_spans("wir haben keine milch mehr")
    assert wish_spans("ich seh nichts")
    assert not wish_spans("do not open the door")


@pytest.mark.parametrize(
    ("said", "lang"),
    [
        ("what is on the shopping list", "en"),
        ("was steht auf der einkaufsliste", "de"),
        ("购物清单上有什么", "zh"),
    ],
)
def test_a_question_about_a_list_adds_nothing(said: str, lang: str) -> None:
    home = Home.load()
    assert list_actions(said, lang, home) == []
    assert list_actions("add milk to the shopping list", "en", home)
