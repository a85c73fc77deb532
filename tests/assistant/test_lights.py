"""Lights: brightness, colour, what a light cannot do, and groups of lights."""

from __future__ import annotations

from typing import Any

import pytest
from tests.assistant.speech import answer, do, states
from tests.homes import home_of, thing

from tumen.assistant import undo
from tumen.home.home import Home


def lamp(state: str = "on", **fields: Any) -> Home:
    return home_of(thing("light.a", "Lamp", "den", state=state, **fields))


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        # a brightness turns the light on; none turns it off and keeps what it had
        ({"state": "off"}, {"brightness": 20}, {"state": "on", "brightness": 20}),
        ({"state": "on", "brightness": 60}, {"brightness": 20}, {"state": "on", "brightness": 20}),
        ({"state": "on", "brightness": 60}, {"brightness": 0}, {"state": "off", "brightness": 60}),
        ({"state": "on"}, {"brightness": 100}, {"state": "on", "brightness": 100}),
        ({"state": "on"}, {"brightness": 33.5}, {"state": "on", "brightness": 33.5}),
        # a step is ten percent, or what was said
        ({"state": "on", "brightness": 60}, {"step": "up"}, {"state": "on", "brightness": 70}),
        ({"state": "on", "brightness": 60}, {"step": "down"}, {"state": "on", "brightness": 50}),
        ({"state": "on", "brightness": 60}, {"step": "up", "brightness": 25}, {"state": "on", "brightness": 85}),
        ({"state": "on", "brightness": 60}, {"step": "down", "brightness": 25}, {"state": "on", "brightness": 35}),
        # never beyond its ends; down to nothing is off
        ({"state": "on", "brightness": 95}, {"step": "up"}, {"state": "on", "brightness": 100}),
        ({"state": "on", "brightness": 60}, {"step": "down", "brightness": 60}, {"state": "off", "brightness": 60}),
        ({"state": "on", "brightness": 5}, {"step": "down"}, {"state": "off", "brightness": 5}),
        # a light that is off has no brightness, whatever it remembers
        ({"state": "off", "brightness": 60}, {"step": "up"}, {"state": "on", "brightness": 10}),
        ({"state": "off", "brightness": 60}, {"step": "down"}, {"state": "off", "brightness": 60}),
        # a light that does not say how bright it is, is fully on
        ({"state": "on"}, {"step": "down"}, {"state": "on", "brightness": 90}),
        ({"state": "on"}, {"step": "up"}, {"state": "on", "brightness": 100}),
        # colours
        ({"state": "off"}, {"color": "red"}, {"state": "on", "color": "red"}),
        ({"state": "on"}, {"temperature": 2700}, {"state": "on", "color_temperature": 2700}),
        ({"state": "on"}, {"brightness": 5, "color": "blue"}, {"state": "on", "brightness": 5, "color": "blue"}),
        ({"state": "on"}, {"temperature": 2000}, {"state": "on", "color_temperature": 2000}),
        ({"state": "on"}, {"temperature": 6500}, {"state": "on", "color_temperature": 6500}),
    ],
)  # fmt: skip
def test_a_light_is_set(before: dict[str, Any], values: dict[str, Any], after: dict[str, Any]) -> None:  # fmt: skip
    home = lamp(**before)
    outcome = do(home, "LightSet", "light.a", **values)
    assert outcome.refusal is None
    assert home.state("light.a") == after
    if outcome.changed:
        undo(outcome, home)
        assert home.state("light.a") == before


@pytest.mark.parametrize(
    ("values", "reason", "about"),
    [
        ({"brightness": 101}, "range", {"value": 101, "low": 0, "high": 100, "unit": "%"}),
        ({"brightness": -0.5}, "range", {"value": -0.5}),
        ({"step": "up", "brightness": 101}, "range", {"value": 101}),
        ({"temperature": 1999}, "range", {"low": 2000, "high": 6500, "unit": "K"}),
        ({"temperature": 6501}, "range", {"slot": "color_temperature", "value": 6501}),
    ],
)
def test_a_value_out_of_range_is_refused(
    values: dict[str, Any], reason: str, about: dict[str, Any]
) -> None:
    home = lamp(brightness=50)
    refused = do(home, "LightSet", "light.a", **values).refusal
    assert refused is not None
    assert refused.reason == reason
    assert about.items() <= refused.about.items()
    assert refused.about["entity"] == "light.a"
    assert home.state("light.a") == {"state": "on", "brightness": 50}


@pytest.mark.parametrize(
    ("supports", "values", "lacking"),
    [
        ([], {"brightness": 5}, "brightness"),
        ([], {"step": "up"}, "brightness"),
        (["color"], {"brightness": 5}, "brightness"),
        (["brightness"], {"color": "red"}, "color"),
        (["brightness", "color"], {"temperature": 2700}, "color_temperature"),
        (["brightness"], {"brightness": 5, "color": "red"}, "color"),
        (["brightness"], {"brightness": 5}, None),
        (["color_temperature"], {"temperature": 2700}, None),
        (["color"], {"color": "red"}, None),
        (None, {"brightness": 5, "color": "red", "temperature": 2700}, None),
    ],
)
def test_a_light_does_what_it_supports(
    supports: list[str] | None, values: dict[str, Any], lacking: str | None
) -> None:
    home = lamp(**({} if supports is None else {"supports": supports}))
    refused = do(home, "LightSet", "light.a", **values).refusal
    if lacking is None:
        assert refused is None
    else:
        assert refused is not None
        assert refused.about == {"entity": "light.a", "slot": lacking}


def group(**fields: str) -> Home:
    """Lights of a den by what they can do: everything, brightness alone, on and off alone."""
    return home_of(
        thing("light.any", "Any", "den", state=fields.get("any", "on"), brightness=50),
        thing("light.dim", "Dim", "den", state=fields.get("dim", "on"), brightness=50, supports=["brightness"]),
        thing("light.bulb", "Bulb", "den", state=fields.get("bulb", "on"), supports=[]),
    )  # fmt: skip


ALL = ("light.any", "light.bulb", "light.dim")


def changed(home: Home, intent: str, *targets: str, **values: Any) -> list[str]:
    return [change.id for change in do(home, intent, *targets, **values).changed]


def test_of_a_group_those_that_can_are_set() -> None:
    assert changed(group(), "LightSet", *ALL, brightness=20) == ["light.any", "light.dim"]
    assert changed(group(), "LightSet", *ALL, color="red") == ["light.any"]
    assert changed(group(), "LightSet", "light.any", "light.bulb", step="up") == ["light.any"]


def test_of_a_group_those_that_are_on_get_brighter() -> None:
    assert changed(group(any="off"), "LightSet", *ALL, step="up") == ["light.dim"]
    assert changed(group(any="off"), "LightSet", *ALL, step="down") == ["light.dim"]
    # brightness without a step is for all of them
    assert changed(group(any="off"), "LightSet", *ALL, brightness=20) == ["light.any", "light.dim"]
    # if none is on, they are turned on with the first step
    assert changed(group(any="off", dim="off"), "LightSet", *ALL, step="up") == [
        "light.any",
        "light.dim",
    ]


def test_where_none_of_a_group_can_the_reason_is_told() -> None:
    home = home_of(
        thing("light.a", "One", "den", supports=[]), thing("light.b", "Two", "den", supports=[])
    )
    refused = do(home, "LightSet", "light.a", "light.b", color="red").refusal
    assert refused is not None
    assert refused.reason == "lacks"
    assert refused.about == {"entity": "light.a", "slot": "color"}


def test_one_light_that_cannot_is_told() -> None:
    assert answer(group(), "LightSet name=bulb color=red") == "Bulb has no colour to set."
    assert answer(group(), "LightSet area=den color=red") == (
        "Set Any to red. Not Bulb and Dim: no colour to set."
    )


@pytest.mark.parametrize(
    ("before", "intent", "after"),
    [
        ({"state": "off", "brightness": 60}, "TurnOn", {"state": "on", "brightness": 60}),
        ({"state": "off", "brightness": 0}, "TurnOn", {"state": "on", "brightness": 100}),
        ({"state": "off"}, "TurnOn", {"state": "on"}),
        ({"state": "on", "brightness": 60}, "TurnOff", {"state": "off", "brightness": 60}),
    ],
)
def test_on_and_off(before: dict[str, Any], intent: str, after: dict[str, Any]) -> None:
    home = lamp(**before)
    do(home, intent, "light.a")
    assert home.state("light.a") == after


def test_lights_that_are_already_so_are_not_changed() -> None:
    home = group()
    assert changed(home, "TurnOn", *ALL) == []
    assert changed(home, "LightSet", *ALL, brightness=50) == []
    assert states(home, *ALL) == "on on on"
