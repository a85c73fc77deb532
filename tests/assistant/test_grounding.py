"""Grounding: names and places of the home that were said stand in the action, or nothing is done."""

import time

import pytest
from tests.assistant.speech import action_of

from tumen.assistant.reading.enumerations import items_of, one_thing_each
from tumen.assistant.reading.grounding import ground, unknown_qualifier, with_colour
from tumen.assistant.values import Values
from tumen.home import Home
from tumen.language import normalise


@pytest.mark.parametrize(
    ("sentence", "lang", "understood", "slots"),
    [
        # a place that was left out
        ("打开楼上所有的灯", "zh", "TurnOn domain=light scope=all", {"area": "楼上"}),
        ("Oben bitte alle Lampen an", "de", "TurnOn domain=light scope=all", {"area": "oben"}),
        ("kitchen lights on", "en", "TurnOn domain=light", {"area": "kitchen"}),
        ("mach das Küchenlicht an", "de", "TurnOn domain=light", {"area": "küchenlicht"}),
        # a second place
        (
            "lights off in the kitchen and the hallway",
            "en",
            "TurnOff domain=light area=kitchen",
            {"area": "kitchen and the hallway"},
        ),
        # a name that was cut short, or taken for a value
        (
            "make the tv light strip red",
            "en",
            "LightSet name=tv color=red",
            {"name": "tv light strip"},
        ),
        ("turn the desk lamp on", "en", "TurnOn name=lamp", {"name": "desk lamp"}),
        ("tv light strip to 20", "en", "LightSet brightness=strip", {"name": "tv light strip"}),
        # what stands there already
        (
            "turn on the kitchen light",
            "en",
            "TurnOn domain=light area=kitchen",
            {"area": "kitchen"},
        ),
        ("open the garage", "en", "TurnOn domain=cover device_class=garage", {}),
        # the words of a message are not meant
        ("announce dinner in the kitchen", "en", "Broadcast message=dinner in the kitchen", {}),
        # a question is answered as it was understood
        ("is a light on in the kitchen", "en", "GetState domain=light state=on", {}),
    ],
)
def test_names_that_were_said(
    home: Home, sentence: str, lang: str, understood: str, slots: dict[str, str]
) -> None:
    grounded = ground(normalise(sentence), action_of(understood, lang), home)
    assert not grounded.unaccounted
    found = grounded.action.slots
    assert {slot: found.get(slot) for slot in slots} == slots
    if not slots:
        assert found == action_of(understood, lang).slots


@pytest.mark.parametrize(
    ("sentence", "understood", "words"),
    [
        # two names, and only one slot
        ("move the desk lamp beside the floor lamp", "TurnOn name=desk lamp", "floor lamp"),
        # two places that nothing joins
        ("kitchen lights on for the bedroom", "TurnOn domain=light area=kitchen", "bedroom"),
        # a thing that the act cannot be about
        ("set the front door to 50", "LightSet brightness=50", "front door"),
    ],
)
def test_what_has_no_place_in_the_action_stops_it(
    home: Home, sentence: str, understood: str, words: str
) -> None:
    grounded = ground(normalise(sentence), action_of(understood), home)
    assert grounded.unaccounted == words


def test_the_shopping_list_needs_no_name(home: Home) -> None:
    action = action_of("ShoppingListAddItem item=eggs")
    grounded = ground("add eggs to the shopping list", action, home)
    assert grounded.action == action
    # another list was named
    grounded = ground(
        "add dishes to the chores", action_of("ShoppingListAddItem item=dishes"), home
    )
    assert grounded.action == action_of("ListAddItem name=chores item=dishes")


@pytest.mark.parametrize(
    ("sentence", "lang", "words"),
    [
        ("打开射灯", "zh", "射灯"),
        ("turn on the disco light", "en", "disco light"),
        ("打开灯", "zh", ""),
        ("请把所有的灯都打开", "zh", ""),
        ("turn on all the lights please", "en", ""),
        ("mach bitte alle Lampen aus", "de", ""),
        ("turn on the kitchen lights", "en", ""),
    ],
)
def test_a_word_that_narrows_a_kind(home: Home, sentence: str, lang: str, words: str) -> None:
    action = action_of("TurnOn domain=light", lang)
    assert unknown_qualifier(normalise(sentence), action, home) == words


@pytest.mark.parametrize(
    ("understood", "color"),
    [
        ("LightSet name=tv light strip", "dark red"),
        ("LightSet name=tv light strip brightness=20", None),
        ("LightSet name=tv light strip color=blue", "blue"),
        ("TurnOn name=tv light strip", None),
    ],
)
def test_a_colour_that_was_left_out(understood: str, color: str | None) -> None:
    said = "make the tv light strip dark red"
    values = Values({"en": {"color": {"dark red": "darkred"}}})
    assert with_colour(said, action_of(understood), values).slots.get("color") == color


@pytest.mark.parametrize(
    ("sentence", "lang", "sentences"),
    [
        (
            "turn off the bathroom light and fan",
            "en",
            ("turn off the bathroom light", "turn off the bathroom fan"),
        ),
        ("打开厨房的灯和卧室的空调", "zh", ("打开厨房的灯", "打开卧室的空调")),
        (
            "turn on the kitchen light and the desk lamp and the fan",
            "en",
            ("turn on the kitchen light", "turn on the desk lamp", "turn on the fan"),
        ),
        ("lights off in the kitchen and hall", "en", ("lights off in the kitchen and hall",)),
        ("关掉客厅和卧室的灯", "zh", ("关掉客厅和卧室的灯",)),
        ("turn on the light", "en", ("turn on the light",)),
    ],
)
def test_one_thing_each(home: Home, sentence: str, lang: str, sentences: tuple[str, ...]) -> None:
    assert one_thing_each(normalise(sentence), home.index, lang) == sentences


@pytest.mark.parametrize(
    ("sentence", "understood", "items"),
    [
        (
            "add eggs and butter to the list",
            "ListAddItem name=list item=butter",
            ["eggs", "butter"],
        ),
        ("add eggs and butter", "ShoppingListAddItem item=eggs and butter", ["eggs", "butter"]),
        ("add brandy", "ShoppingListAddItem item=brandy", ["brandy"]),
        ("setz eier und milch auf die liste", "ShoppingListAddItem item=milch", ["eier", "milch"]),
        ("把牛奶和面包加到购物清单", "ShoppingListAddItem item=面包", ["牛奶", "面包"]),
        ("turn on the lamp and the fan", "TurnOn name=lamp", [None]),
    ],
)
def test_items_one_by_one(sentence: str, understood: str, items: list[str | None]) -> None:
    actions = items_of(sentence, action_of(understood))
    assert [action.slots.get("item") for action in actions] == items


def test_a_large_home_costs_little(home: Home) -> None:
    """No search over all things: the time does not grow with the home."""
    large = _home_of(5_000)
    said = normalise("please turn the lamp 4999 of the attic off and on again")
    action = action_of("TurnOff name=lamp 4999")
    assert not ground(said, action, large).unaccounted
    assert _seconds(said, large) < 20 * _seconds(said, _home_of(50)) + 0.001


def _home_of(number: int) -> Home:
    entities = [{"id": f"light.l{i}", "name": f"Lamp {i}", "area": "attic"} for i in range(number)]
    home = Home.of({"area": [{"id": "attic", "name": "Attic"}], "entity": entities})
    assert home.index
    return home


def _seconds(said: str, home: Home) -> float:
    action = action_of("TurnOff name=lamp 4999")
    ground(said, action, home)
    times = []
    for _ in range(20):
        start = time.process_time()
        ground(said, action, home)
        times.append(time.process_time() - start)
    return min(times)
