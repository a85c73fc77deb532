"""The home file: the TOML that describes a home, checked when it is read and written back.

    name = "..."
    here = "kitchen"        # optional: the area of the speaker
    [[floor]]               # id, name, aliases
    [[area]]                # id, name, aliases, floor
    [[entity]]              # id = "light.kitchen_ceiling", name, aliases, area, device_class, state
    [[timer]]               # id, name, area, seconds, ends or left_seconds, command

The fields of each block are those of `Floor`, `Area`, `Entity` and `Timer`. A bad file reports all
its faults in one line.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tumen.core.errors import InputError
from tumen.core.shape import Frozen
from tumen.home.entities import STATE_FIELDS, Area, Entity, Floor, Timer, did_you_mean

_BLOCKS: dict[str, type[BaseModel]] = {
    "floor": Floor,
    "area": Area,
    "entity": Entity,
    "timer": Timer,
}


class HomeFile(Frozen):
    """The content of a home file."""

    name: str = "Home"
    here: str | None = None
    floor: tuple[Floor, ...] = ()
    area: tuple[Area, ...] = ()
    entity: tuple[Entity, ...] = ()
    timer: tuple[Timer, ...] = ()

    def faults(self) -> list[str]:
        """Return what is wrong between the blocks: ids that are double or point nowhere."""
        floors = [floor.id for floor in self.floor]
        areas = [area.id for area in self.area]
        entities = [entity.id for entity in self.entity]
        found: list[str] = []
        found += _double("floor", floors)
        found += _double("area", areas)
        found += _double("entity", entities)
        for area in self.area:
            if area.floor and area.floor not in floors:
                near = did_you_mean(area.floor, floors)
                found.append(f"area {area.id!r}: unknown floor {area.floor!r}{near}")
        for entity in self.entity:
            if entity.area and entity.area not in areas:
                near = did_you_mean(entity.area, areas)
                found.append(f"entity {entity.id!r}: unknown area {entity.area!r}{near}")
        if self.here and self.here not in areas:
            found.append(f"here: unknown area {self.here!r}{did_you_mean(self.here, areas)}")
        for entity in self.entity:
            found += _scene_faults(entity, entities)
        return found


def _double(kind: str, ids: Sequence[str]) -> Iterator[str]:
    for id_, count in Counter(ids).items():
        # one fault for each repetition
        for _ in range(count - 1):
            yield f"{kind} id {id_!r} is used twice"


def _scene_faults(scene: Entity, entities: Sequence[str]) -> Iterator[str]:
    for target, fields in scene.sets.items():
        if target not in entities:
            near = did_you_mean(target, entities)
            yield f"entity {scene.id!r}: sets an unknown entity {target!r}{near}"
        for name in fields:
            if name not in STATE_FIELDS:
                near = did_you_mean(name, STATE_FIELDS)
                yield f"entity {scene.id!r}: sets an unknown field {name!r}{near}"


# -- reading -------------------------------------------------------------------------------------


def read_toml(path: Path) -> dict[str, Any]:
    """Read a home file as plain data.

    Raises:
        InputError: the file is missing, a folder, not UTF-8 or not TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such home file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the home's .toml file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None


def check_home(tree: Mapping[str, Any], where: str) -> HomeFile:
    """Return plain data of a home file as a checked `HomeFile`.

    Args:
        tree: the content of the file.
        where: what error messages call the file.

    Raises:
        InputError: the data have faults; the one line lists all of them.
    """
    try:
        content = HomeFile.model_validate(tree)
    except ValidationError as error:
        faults = [_fault(detail, tree) for detail in error.errors()]
        raise InputError(_one_line(where, faults)) from None
    faults = content.faults()
    if faults:
        raise InputError(_one_line(where, faults))
    return content


def _one_line(where: str, faults: Sequence[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{where}: {count}: " + "; ".join(faults)


def _fault(detail: Any, tree: Mapping[str, Any]) -> str:
    """Return one fault of pydantic: where it is, what is wrong, and the nearest known field."""
    # pydantic names the branches of a union in the path, such as `tuple[str, ...]`
    location = [p for p in detail["loc"] if not str(p).startswith(("tuple[", "dict["))]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        model = _BLOCKS.get(str(location[0]), HomeFile)
        known = list(model.model_fields)
        message = f"unknown field{did_you_mean(str(location[-1]), known)}"
    elif detail["type"] == "missing":
        message = "missing"
    elif not isinstance(detail.get("input"), (dict, BaseModel)):
        given = str(detail.get("input"))[:60]
        message = f"{message}, not {given!r}"
    return f"{_path(location, tree)}: {message}" if location else message


def _path(location: Sequence[Any], tree: Mapping[str, Any]) -> str:
    """Return `entity.3.state` as `entity light.hall state` where the file has an id."""
    if len(location) < 2 or not isinstance(location[1], int):
        return ".".join(str(part) for part in location)
    kind, number = str(location[0]), location[1]
    blocks = tree.get(kind)
    name = str(number)
    if isinstance(blocks, (list, tuple)) and number < len(blocks):
        block = blocks[number]
        if isinstance(block, Mapping):
            name = str(block.get("id", number))
    rest = ".".join(str(part) for part in location[2:])
    return f"{kind} {name} {rest}".strip()


# -- writing -------------------------------------------------------------------------------------


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return plain data of a home file as TOML: simple fields, then one block for each thing."""
    lines = []
    for name, value in tree.items():
        if not isinstance(value, list):
            lines.append(f"{name} = {_value(value)}")
    for kind in _BLOCKS:
        for block in tree.get(kind, []):
            lines += ["", f"[[{kind}]]"]
            lines += [f"{_key(name)} = {_value(value)}" for name, value in block.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    if name.isidentifier() and name.isascii():
        return name
    return json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = [f"{_key(name)} = {_value(inner)}" for name, inner in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    if isinstance(value, str):
        # JSON leaves DEL as it is; TOML forbids it
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
