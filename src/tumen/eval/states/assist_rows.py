"""Suite `assist`: homes and sentences of home-assistant-datasets, judged by the end state.

Data: a folder of github.com/allenporter/home-assistant-datasets (Apache-2.0) such as
datasets/assist: `_fixtures.yaml` (areas and entities) beside files with a category and tests
(sentences, setup, expect_changes, ignore_changes); folders below it are read as well. Every
sentence is a row, its category the row's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.eval.states.expectation import Expected
from tumen.eval.states.state_rows import BrokenRow, StateRow, StateTurn
from tumen.eval.states.states_suite import evaluate_rows, states_lines
from tumen.eval.states.turn_player import Understanding
from tumen.eval.suites import DialogueSuite
from tumen.home import Home

FIXTURES = "_fixtures.yaml"
MOST_BRIGHT = 255  # Home Assistant counts brightness from 0 to 255, a home here in percent
WARMEST = 95.0  # fixtures count in degrees Fahrenheit
COLORS = {
    (255, 0, 0): "red",
    (0, 255, 0): "green",
    (0, 128, 0): "green",
    (0, 0, 255): "blue",
    (255, 255, 0): "yellow",
    (255, 165, 0): "orange",
    (128, 0, 128): "purple",
    (255, 192, 203): "pink",
    (255, 255, 255): "white",
}
FEATURES = {"color_temp": "color_temperature", "brightness": "brightness"}
COLOR_MODES = ("hs", "rgb", "rgbw", "rgbww", "xy")


def read_assist_rows(path: Path) -> Iterator[StateRow | BrokenRow]:
    """Yield a row for each sentence of a folder; a test that cannot be used is a `BrokenRow`.

    Raises:
        InputError: there is no `_fixtures.yaml` in the folder or below it, or it is damaged.
        MissingExtra: pyyaml is not installed.
    """
    yaml = need("yaml", "the suite assist")
    homes = sorted(path.rglob(FIXTURES))
    if not homes:
        raise InputError(f"{path}: holds no {FIXTURES}; name a folder of home-assistant-datasets")
    for fixtures in homes:
        try:
            home = _home(yaml.safe_load(fixtures.read_text("utf-8")))
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{fixtures}: no home ({type(error).__name__} {error})") from None
        for file in sorted(fixtures.parent.glob("*.yaml")):
            if file != fixtures:
                yield from _rows(yaml, file, home)


def _rows(yaml: Any, file: Path, home: Mapping[str, Any]) -> Iterator[StateRow | BrokenRow]:
    """Yield the rows of one file."""
    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
        tests = list(tree.get("tests") or ())
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        yield BrokenRow(str(file), f"no tests ({type(error).__name__})")
        return
    for number, test in enumerate(tests, start=1):
        where = f"{file}, test {number}"
        try:
            yield from _sentences(test, str(tree.get("category", "")), where, home)
        except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            yield BrokenRow(where, f"{type(error).__name__}: {error}".splitlines()[0])


def _sentences(
    test: Mapping[str, Any], category: str, where: str, home: Mapping[str, Any]
) -> Iterator[StateRow]:
    """Yield a row for each sentence of a test."""
    tree = deepcopy(dict(home))
    blocks = {block["id"]: block for block in tree["entity"]}
    for id_, given in (test.get("setup") or {}).items():
        blocks[id_].update(_fields(id_, given))
    wanted = {
        id_: _wanted(_fields(id_, given))
        for id_, given in (test.get("expect_changes") or {}).items()
    }
    unknown = wanted.keys() - blocks.keys()
    if unknown:
        raise InputError(f"{min(unknown)} is not in the home")
    # a fault of what a test sets must show here, not in the middle of the suite
    Home.of(tree)
    ignored = frozenset((test.get("ignore_changes") or {}).keys() - wanted.keys())
    for sentence in test["sentences"]:
        turn = StateTurn(str(sentence), expect=(Expected(wanted),), ignore=ignored)
        yield StateRow(f"{where}: {sentence}", where, "en", category, tree, (turn,))


def _home(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fixtures as the tree of a home file."""
    floors = {str(area["floor"]) for area in tree["areas"] if area.get("floor")}
    ids = {name: f"floor_{number}" for number, name in enumerate(sorted(floors))}
    areas = []
    for area in tree["areas"]:
        block = {"id": area["id"], "name": area["name"]}
        if area.get("floor"):
            block["floor"] = ids[str(area["floor"])]
        areas.append(block)
    return {
        "name": "fixtures",
        "floor": [{"id": id_, "name": name} for name, id_ in ids.items()],
        "area": areas,
        "entity": list(_entities(tree["entities"])),
    }


def _entities(blocks: Any) -> Iterator[dict[str, Any]]:
    """Yield the entities; one of a kind that no home here has is left out."""
    for block in blocks:
        entity = {"id": block["id"], "name": block["name"], **_fields(block["id"], block)}
        if block.get("area"):
            entity["area"] = block["area"]
        try:
            Home.of({"name": "x", "area": [], "entity": [{**entity, "area": None}]})
        except InputError:
            # a state that is not known here is the default of its domain
            entity.pop("state", None)
            try:
                Home.of({"name": "x", "area": [], "entity": [{**entity, "area": None}]})
            except InputError:
                continue
        yield entity


def _fields(id_: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of Home Assistant in the fields of a home: percent instead of 0 to 255."""
    domain = id_.partition(".")[0]
    found = _state(domain, block.get("state"))
    if domain == "climate":
        found["max_temperature"] = WARMEST
    for name, value in (block.get("attributes") or {}).items():
        if name in CONVERTED and value is not None:
            field, convert = CONVERTED[name]
            found[field] = convert(value)
    return found


def _state(domain: str, state: Any) -> dict[str, Any]:
    """Return the field that a state says; that of a list is the number of its items."""
    if isinstance(state, Mapping):
        state = state.get("out")
    if state is None:
        return {}
    if domain == "todo":
        return {"items": [f"item {number}" for number in range(int(state))]}
    return {"state": str(state)}


def _supports(modes: Any) -> list[str]:
    """Return what a light can do; one with colors can be dimmed."""
    features = {FEATURES[mode] for mode in modes if mode in FEATURES}
    if {*modes} & {*COLOR_MODES}:
        features.add("color")
    if features:
        features.add("brightness")
    return sorted(features)


CONVERTED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "device_class": ("device_class", str),
    "brightness": ("brightness", lambda value: round(100 * float(value) / MOST_BRIGHT)),
    "current_position": ("position", float),
    "volume_level": ("volume", lambda value: round(100 * float(value))),
    "percentage": ("percentage", float),
    "temperature": ("temperature", float),
    "current_temperature": ("current_temperature", float),
    "fan_mode": ("fan_mode", str),
    "media_title": ("media_title", str),
    "rgb_color": ("color", lambda value: COLORS.get(tuple(value), "other")),
    "todo_items": ("items", lambda value: [str(item) for item in value]),
    "supported_color_modes": ("supports", _supports),
}
"""Attribute of Home Assistant -> field of a home, and how it is read."""


def _wanted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that must be there after a turn."""
    wanted: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "items":
            wanted[name] = {"count": len(value)}
        elif name in ("brightness", "volume"):
            wanted[name] = {"near": value, "by": 1}
        elif name not in ("max_temperature", "device_class", "supports"):
            wanted[name] = value
    return wanted


def _play(path: Path, understanding: Understanding, values: Values) -> dict[str, Any]:
    return evaluate_rows("assist", path, read_assist_rows(path), understanding, values)


SUITE = DialogueSuite(_play, states_lines)
