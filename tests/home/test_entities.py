"""Entities: what may be said about a thing, and its state before anybody used it."""

from __future__ import annotations

from typing import Any

import pytest

from tumen.core.errors import InputError
from tumen.home.entities import DOMAINS, STATE_FIELDS, STATES, Entity, Timer
from tumen.home.home import Home


def entity(id_: str, **fields: Any) -> Entity:
    return Entity(id=id_, name="Thing", **fields)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_a_state_when_the_file_says_none(domain: str) -> None:
    state = entity(f"{domain}.a").initial_state()
    known = STATES.get(domain, ("unknown",))
    assert state["state"] == known[0]


@pytest.mark.parametrize(
    ("domain", "state"), [(d, s) for d, known in STATES.items() for s in known]
)
def test_every_state_of_a_domain_is_taken(domain: str, state: str) -> None:
    assert entity(f"{domain}.a", state=state).state == state


@pytest.mark.parametrize(
    ("domain", "state"),
    [
        ("light", "open"),
        ("lock", "open"),
        ("cover", "on"),
        ("climate", "warm"),
        ("media_player", "loud"),
        ("vacuum", "mowing"),
        ("switch", "ON"),
    ],
)
def test_a_state_of_another_domain_is_refused(domain: str, state: str) -> None:
    with pytest.raises(ValueError, match="has no state"):
        entity(f"{domain}.a", state=state)


@pytest.mark.parametrize("state", ["unknown", "unavailable"])
@pytest.mark.parametrize("domain", ["light", "lock", "climate"])
def test_every_device_may_be_out_of_reach(domain: str, state: str) -> None:
    assert entity(f"{domain}.a", state=state).initial_state()["state"] == state


@pytest.mark.parametrize("state", ["21.5", "rainy", "home", "anything at all"])
def test_sensors_and_people_may_be_in_any_state(state: str) -> None:
    for domain in ("sensor", "person", "weather"):
        assert entity(f"{domain}.a", state=state).initial_state()["state"] == state


@pytest.mark.parametrize(("given", "state"), [(21.5, "21.5"), (3, "3"), ("3", "3")])
def test_a_number_is_a_state_as_text(given: object, state: str) -> None:
    assert entity("sensor.a", state=given).state == state


@pytest.mark.parametrize(
    ("fields", "position", "state"),
    [
        ({}, 0, "closed"),
        ({"state": "closed"}, 0, "closed"),
        ({"state": "open"}, 100, "open"),
        ({"state": "opening"}, 100, "open"),
        ({"position": 40}, 40, "open"),
        ({"position": 1}, 1, "open"),
        ({"position": 0}, 0, "closed"),
        # the position decides
        ({"state": "open", "position": 0}, 0, "closed"),
        ({"state": "closed", "position": 30}, 30, "open"),
    ],
)
@pytest.mark.parametrize("domain", ["cover", "valve"])
def test_a_cover_is_as_open_as_its_position(
    domain: str, fields: dict[str, Any], position: float, state: str
) -> None:
    initial = entity(f"{domain}.a", **fields).initial_state()
    assert (initial["position"], initial["state"]) == (position, state)


def test_a_list_has_items_from_the_start() -> None:
    assert entity("todo.a").initial_state() == {"state": "unknown", "items": (), "done_items": ()}
    filled = entity("todo.a", items=["tea"], done_items=["milk"], brightness=5).initial_state()
    assert filled == {"state": "unknown", "items": ("tea",), "done_items": ("milk",)}


def test_a_state_has_the_fields_that_are_set_and_whole_numbers_are_whole() -> None:
    initial = entity("light.a", state="on", brightness=80, color="red").initial_state()
    assert initial == {"state": "on", "brightness": 80, "color": "red"}
    assert isinstance(initial["brightness"], int)
    assert entity("climate.a", temperature=20.5).initial_state()["temperature"] == 20.5
    assert entity("media_player.a", muted=False).initial_state()["muted"] is False
    assert "area" not in entity("light.a", area="den").initial_state()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"id": "lamp.a"}, "unknown domain 'lamp'"),
        ({"id": "ligth.a"}, "did you mean 'light'?"),
        ({"id": "light"}, "id"),
        ({"id": "light.a b"}, "id"),
        ({"id": "Light.a"}, "id"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"brightness": 101}, "brightness"),
        ({"brightness": -1}, "brightness"),
        ({"volume": 100.5}, "volume"),
        ({"position": "half"}, "position"),
        ({"color_temperature": 0}, "color_temperature"),
        ({"min_temperature": 30, "max_temperature": 20}, "min_temperature is above"),
        ({"min_color_temperature": 7000}, "min_color_temperature is above"),
        ({"brightnes": 5}, "did you mean 'brightness'?"),
        ({"aliases": {"en": "lamp"}}, "aliases"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], fault: str) -> None:
    block = {"id": "light.a", "name": "A"} | fields
    with pytest.raises(InputError) as caught:
        Home.of({"entity": [block]}, where="home.toml")
    line = str(caught.value)
    assert line.startswith("home.toml: ")
    assert fault in line
    assert "\n" not in line


def test_limits_may_be_equal() -> None:
    assert entity("climate.a", min_temperature=20, max_temperature=20).max_temperature == 20
    fixed = entity("light.a", min_color_temperature=2700, max_color_temperature=2700)
    assert fixed.min_color_temperature == 2700


def test_names_are_the_name_and_every_alias_once() -> None:
    plain = Entity(id="light.a", name="Lamp", aliases=("Light", "Lamp", "Bulb"))
    assert plain.names == ("Lamp", "Light", "Bulb")
    by_language = Entity(
        id="light.a", name="Lamp", aliases={"en": ("Light",), "de": ("Lampe", "Light")}
    )
    assert by_language.names == ("Lamp", "Light", "Lampe")


def test_a_reply_uses_the_alias_of_its_language() -> None:
    lamp = Entity(id="light.a", name="Lamp", aliases={"de": ("Leuchte", "Lampe"), "zh": ()})
    assert lamp.name_in("de") == "Leuchte"
    # without an alias of its own, a language uses the name
    assert lamp.name_in("en") == "Lamp"
    assert lamp.name_in("zh") == "Lamp"
    assert Entity(id="light.a", name="Lamp", aliases=("Light",)).name_in("de") == "Lamp"


def test_the_fields_that_change_are_fields_of_an_entity() -> None:
    assert set(STATE_FIELDS) <= set(Entity.model_fields)
    assert len(set(STATE_FIELDS)) == len(STATE_FIELDS)
    fixed = {"id", "name", "aliases", "area", "device_class", "supports", "sets", "unit", "mode"}
    assert not fixed & set(STATE_FIELDS)


def test_a_timer_tells_the_fields_it_has() -> None:
    timer = Timer(id="timer.1", seconds=60, ends=90.0)
    assert timer.fields() == {"name": "", "seconds": 60.0, "ends": 90.0, "command": ""}
    with pytest.raises(ValueError, match="greater than 0"):
        Timer(id="timer.1", seconds=0)
