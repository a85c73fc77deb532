"""Steps: what a change makes of a device, with and without an amount."""

from typing import Any

import pytest
from tests.assistant.speech import answer, do
from tests.homes import home_of, thing

from tumen.assistant import Refusal, resolve
from tumen.assistant.replies import reply
from tumen.home.home import Home
from tumen.language.action import Action


def changed(home: Home, intent: str, id_: str, **values: Any) -> dict[str, Any]:
    do(home, intent, id_, **values)
    return home.state(id_)


def test_a_thermostat_goes_by_degrees_and_within_its_range() -> None:
    home = home_of(thing("climate.h", "Heater", "den", temperature=20, state="heat"))
    assert changed(home, "ClimateSetTemperature", "climate.h", step="up")["temperature"] == 21
    by = {"step": "down", "temperature": 1.5}
    assert changed(home, "ClimateSetTemperature", "climate.h", **by)["temperature"] == 19.5
    too_far = do(home, "ClimateSetTemperature", "climate.h", step="up", temperature=40)
    assert too_far.refusal is not None
    assert too_far.refusal.reason == "range"


def test_what_is_off_and_cools_is_turned_on_where_it_is_hot() -> None:
    home = home_of(thing("climate.ac", "AC", "den", temperature=24, state="off", mode="cool"))
    assert changed(home, "ClimateSetTemperature", "climate.ac", step="up")["state"] == "off"
    assert changed(home, "ClimateSetTemperature", "climate.ac", step="down")["state"] == "cool"


def test_a_thermostat_without_a_temperature_is_refused() -> None:
    home = home_of(thing("climate.h", "Heater", "den"))
    refused = do(home, "ClimateSetTemperature", "climate.h", step="up").refusal
    assert refused is not None
    assert refused.reason == "unknown"


def test_a_fan_starts_from_rest() -> None:
    home = home_of(thing("fan.f", "Fan", "den", state="off", percentage=60))
    assert changed(home, "FanSetSpeed", "fan.f", step="up") == {"state": "on", "percentage": 25}
    assert changed(home, "FanSetSpeed", "fan.f", step="down") == {"state": "off", "percentage": 0}


def test_a_cover_moves_a_bit_and_stops() -> None:
    home = home_of(thing("cover.c", "Blind", "den", position=40, state="open"))
    assert changed(home, "SetPosition", "cover.c", step="up", position=20)["position"] == 60
    assert changed(home, "SetPosition", "cover.c", step="down")["position"] == 50
    assert not do(home, "StopMoving", "cover.c").changed
    home.put("cover.c", {"state": "closing", "position": 30})
    assert changed(home, "StopMoving", "cover.c") == {"state": "open", "position": 30}


@pytest.mark.parametrize(("step", "level"), [("down", 40), ("up", 100)])
def test_a_share_is_one_of_what_is_set(step: str, level: float) -> None:
    home = home_of(thing("light.l", "Lamp", "den", state="on", brightness=80))
    assert changed(home, "LightSet", "light.l", step=step, share=0.5)["brightness"] == level


def test_words_for_a_share_and_for_percent_differ() -> None:
    home = home_of(thing("light.l", "Lamp", "den", state="on", brightness=80))
    share = resolve(
        Action("HassLightSet", "en", {"step": "down", "name": "lamp", "brightness": "half"}), home
    )
    percent = resolve(
        Action("HassLightSet", "en", {"step": "down", "name": "lamp", "brightness": "50 %"}), home
    )
    assert getattr(share, "values", {}) == {"step": "down", "share": 0.5}
    assert getattr(percent, "values", {}) == {"step": "down", "brightness": 50}


def test_a_mode_must_be_known() -> None:
    home = home_of(thing("climate.ac", "AC", "den", state="off", modes=["cool", "dry"]))
    dry = resolve(Action("ClimateSetMode", "en", {"mode": "dry", "name": "ac"}), home)
    assert getattr(dry, "targets", ()) == ("climate.ac",)
    assert answer_mode(home, "dry") == "Set AC to drying."
    assert answer_mode(home, "heat") == "AC has no mode heat; it has cool, dry."


def answer_mode(home: Home, mode: str) -> str:
    from tumen.assistant import Resolved, act

    return reply(act(Resolved("ClimateSetMode", "en", ("climate.ac",), {"mode": mode}), home), home)


@pytest.mark.parametrize("lang", ["en", "zh", "de"])
def test_a_wish_that_no_home_carries_out_is_a_result_of_its_own(lang: str) -> None:
    home = home_of(thing("light.l", "Lamp", "den"))
    refused = resolve(Action("NotPossible", lang, {"wish": "alarm"}), home)
    assert isinstance(refused, Refusal)
    assert refused.reason == "not_possible"
    assert "{" not in reply(refused, home)


def test_lists_and_what_plays_are_read() -> None:
    home = home_of(
        thing("todo.chores", "Chores", items=["mow", "dust"]),
        thing("todo.empty", "Nothing"),
        thing("media_player.a", "Radio", "den", state="playing", media_title="News"),
        thing("media_player.b", "TV", "den", state="off"),
        thing("sensor.h", "Moist", "den", device_class="humidity", state="55", unit="%"),
    )
    assert answer(home, "GetState name=chores") == "On Chores: mow and dust."
    assert answer(home, "GetState name=nothing") == "Nothing is empty."
    assert "News" in answer(home, "GetState domain=media_player ask=which")
    assert "55" in answer(home, "GetState device_class=humidity area=den ask=which")
