"""People's labels become a home's actions."""

from __future__ import annotations

import pytest

from tumen.eval.suites.slurp import in_slurp
from tumen.home.slurp_labels import at_home
from tumen.language.action import HOME, Action


@pytest.mark.parametrize(
    ("said", "slots", "done", "found"),
    [
        (
            "iot_hue_lightoff",
            {"house_place": "kitchen"},
            "HassTurnOff",
            {"domain": "light", "area": "kitchen"},
        ),
        ("iot_hue_lightoff", {"device_type": "lights"}, "HassTurnOff", {"domain": "light"}),
        (
            "iot_hue_lighton",
            {"device_type": "reading lamp"},
            "HassTurnOn",
            {"domain": "light", "name": "reading lamp"},
        ),
        ("iot_hue_lightchange", {"color_type": "blue;red"}, "HassLightSet", {"color": "blue"}),
        (
            "iot_hue_lightup",
            {"house_place": "hall"},
            "HassLightSet",
            {"step": "up", "area": "hall"},
        ),
        ("iot_wemo_on", {"device_type": "socket"}, "HassTurnOn", {"name": "socket"}),
        ("iot_coffee", {"device_type": "machine"}, "HassTurnOn", {"name": "coffee"}),
        ("iot_cleaning", {"device_type": "robot vacuum cleaner"}, "HassVacuumStart", {}),
        ("iot_cleaning", {"house_place": "hall"}, "HassVacuumCleanArea", {"area": "hall"}),
        ("audio_volume_up", {}, "HassSetVolumeRelative", {"step": "up"}),
    ],
)
def test_a_label_is_a_homes_action(
    said: str, slots: dict[str, str], done: str, found: dict[str, str]
) -> None:
    home = at_home(Action(said, "en", slots))
    assert (home.intent, home.slots) == (done, found)
    assert set(home.slots) <= set(HOME.intents[done])
    assert in_slurp(home).intent == said or said == "iot_coffee"


def test_what_no_home_does_stays() -> None:
    assert at_home(Action("alarm_set", "en", {"time": "6"})) == Action(
        "alarm_set", "en", {"time": "6"}
    )
    assert at_home(Action("HassTurnOn", "en", {"name": "x"})) == Action(
        "HassTurnOn", "en", {"name": "x"}
    )
