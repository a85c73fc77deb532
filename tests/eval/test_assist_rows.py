"""Homes of home-assistant-datasets become rows of end states."""

from __future__ import annotations

from pathlib import Path

import pytest

from tumen.assistant import Interpretation
from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.eval.states import BrokenRow, StateRow
from tumen.eval.states.assist_rows import SUITE, read_assist_rows
from tumen.home import Home
from tumen.language import Action

pytest.importorskip("yaml")

FIXTURES = """
areas:
  - {name: Den, id: den_id, floor: Ground}
entities:
  - {name: Den Lamp, id: light.den, area: den_id, state: "off", attributes: {supported_color_modes: [brightness]}}
  - {name: Phone, id: binary_sensor.phone, state: {in: charging, out: "on"}}
  - {name: Chores, id: todo.chores, state: "1"}
  - {name: Odd, id: zeppelin.odd, state: up}
"""
TESTS = """
category: light
tests:
  - sentences: [light the den lamp, den lamp on]
    setup: {light.den: {state: "off"}}
    expect_changes: {light.den: {state: "on", attributes: {brightness: 128}}}
    ignore_changes: {light.den: [color_mode]}
  - sentences: [nothing]
    expect_changes: {light.attic: {state: "on"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "_fixtures.yaml").write_text(FIXTURES)
    (tmp_path / "en" / "light.yaml").write_text(TESTS)
    return tmp_path


def test_every_sentence_is_a_row(folder: Path) -> None:
    first, second, broken = read_assist_rows(folder)
    assert isinstance(first, StateRow)
    assert isinstance(second, StateRow)
    assert (first.kind, first.turns[0].say) == ("light", "light the den lamp")
    (expected,) = first.turns[0].expect or ()
    assert expected.entities == {"light.den": {"state": "on", "brightness": {"near": 50, "by": 1}}}
    home = Home.of(first.home)
    assert {*home.entities} >= {"light.den", "binary_sensor.phone", "todo.chores"}
    assert "zeppelin.odd" not in home.entities
    assert len(home.state("todo.chores")["items"]) == 1
    assert isinstance(broken, BrokenRow)
    assert "light.attic is not in the home" in broken.why


@pytest.mark.parametrize(("percent", "exact"), [("50", 1.0), ("60", 0.0)])
def test_it_is_judged_by_the_end_state(folder: Path, percent: str, exact: float) -> None:
    action = Action("HassLightSet", "en", {"name": "den lamp", "brightness": percent})
    tests = TESTS.replace("light the den lamp, den lamp on", f"den lamp {percent} percent")
    (folder / "en" / "light.yaml").write_text(tests)
    result = SUITE.play(
        folder, lambda home, lang: lambda said: Interpretation(action, "x", "x", 1.0), Values()
    )
    assert (result["suite"], result["n"], result["broken"]) == ("assist", 1, 1)
    assert result["by"]["kind"]["light"]["exact"] == result["exact"] == exact


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no _fixtures.yaml"):
        list(read_assist_rows(tmp_path))
