"""What every room keeps: a docstring with its five headings, a door, and no torch where it is light."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contracts import structure

SOURCE = Path(__file__).parents[2] / "src" / "tumen"
ROOMS = sorted(
    path.parent.name for path in SOURCE.glob("*/__init__.py") if path.parent.name != "cli"
)
HEAVY = {"model", "train", "shrink"}
HEADINGS = ("What:", "In:", "Out:", "Never:", "Read next:")


@pytest.mark.parametrize("room", ROOMS)
def test_says_what_it_is_in_five_headings(room: str) -> None:
    text = importlib.import_module(f"tumen.{room}").__doc__ or ""
    places = [text.find(heading) for heading in HEADINGS]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("room", ROOMS)
def test_its_door_is_open(room: str) -> None:
    module = importlib.import_module(f"tumen.{room}")
    if room == "core":
        pytest.skip("core has no door: its modules are imported")
    assert module.__all__
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        assert hasattr(module, name)


def test_light_rooms_load_no_torch() -> None:
    light = [room for room in ROOMS if room not in HEAVY]
    code = f"import importlib, sys\nfor room in {light}: importlib.import_module('tumen.' + room)\nprint('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_the_command_line_loads_no_torch_to_say_its_version() -> None:
    code = (
        "import sys; sys.argv = ['tumen', '--version']\n"
        "from tumen.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.endswith("False\n")


@pytest.mark.parametrize(
    "check", [structure.broken_imports, structure.circles, structure.passed_doors]
)
def test_the_structure_holds(check: Callable[[], list[str]]) -> None:
    assert check() == []
