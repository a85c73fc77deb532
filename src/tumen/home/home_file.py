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

_MOST_SHOWN = 60  # characters of a wrong value in an error
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
        """Return what is wrong between the blocks: ids that are double or unknown."""
        return [*self._double_ids(), *self._unknown_places(), *self._scene_faults()]

    def _double_ids(self) -> Iterator[str]:
        yield from _double("floor", [floor.id for floor in self.floor])
        yield from _double("area", [area.id for area in self.area])
        yield from _double("entity", [entity.id for entity in self.entity])

    def _unknown_places(self) -> Iterator[str]:
        floors = [floor.id for floor in self.floor]
        areas = [area.id for area in self.area]
        for area in self.area:
            yield from _unknown(f"area {area.id!r}", "floor", area.floor, floors)
        for entity in self.entity:
            yield from _unknown(f"entity {entity.id!r}", "area", entity.area, areas)
        yield from _unknown("here", "area", self.here, areas)

    def _scene_faults(self) -> Iterator[str]:
        entities = [entity.id for entity in self.entity]
        for entity in self.entity:
            yield from _scene_faults(entity, entities)


def _unknown(where: str, kind: str, id_: str | None, known: Sequence[str]) -> Iterator[str]:
    """Yield the fault of an id that no block has.

    Args:
        where: the block that names it.
        kind: what it should be.
        id_: the id; None or empty if the block leaves it out.
        known: the ids there are.
    """
    if id_ and id_ not in known:
        yield f"{where}: unknown {kind} {id_!r}{did_you_mean(id_, known)}"


def _double(kind: str, ids: Sequence[str]) -> Iterator[str]:
    """Yield the fault of an id that several blocks have, once for each repetition."""
    for id_, count in Counter(ids).items():
        # three blocks with one id are two faults
        for _ in range(count - 1):
            yield f"{kind} id {id_!r} is used twice"


def _scene_faults(scene: Entity, entities: Sequence[str]) -> Iterator[str]:
    """Yield the faults of what a scene sets."""
    where = f"entity {scene.id!r}"
    for target, fields in scene.sets.items():
        if target not in entities:
            near = did_you_mean(target, entities)
            yield f"{where}: sets an unknown entity {target!r}{near}"
        for name in fields:
            if name not in STATE_FIELDS:
                near = did_you_mean(name, STATE_FIELDS)
                yield f"{where}: sets an unknown field {name!r}{near}"


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
    # first each block by itself, then what blocks say about each other
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
    """Return all faults in one line."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{where}: {count}: " + "; ".join(faults)


def _fault(detail: Any, tree: Mapping[str, Any]) -> str:
    """Return one fault that pydantic found: where it is and what is wrong.

    Args:
        detail: an entry of `ValidationError.errors()`.
        tree: the content of the file.
    """
    # pydantic names the branches of a union as well, such as `tuple[str, ...]`
    branches = ("tuple[", "dict[")
    location = [part for part in detail["loc"] if not str(part).startswith(branches)]
    message = _message(detail, location)
    if not location:
        return message
    return f"{_path(location, tree)}: {message}"


def _message(detail: Any, location: Sequence[Any]) -> str:
    """Return what is wrong, with the nearest known field or the value that was given."""
    if detail["type"] == "extra_forbidden":
        model = _BLOCKS.get(str(location[0]), HomeFile)
        near = did_you_mean(str(location[-1]), list(model.model_fields))
        return f"unknown field{near}"
    if detail["type"] == "missing":
        return "missing"
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    # a whole block would not fit into the line
    if isinstance(given, (dict, BaseModel)):
        return message
    return f"{message}, not {str(given)[:_MOST_SHOWN]!r}"


def _path(location: Sequence[Any], tree: Mapping[str, Any]) -> str:
    """Return `entity.3.state` as `entity light.hall state` where the file has an id."""
    parts = [str(part) for part in location]
    if len(parts) < 2 or not isinstance(location[1], int):
        return ".".join(parts)
    kind = parts[0]
    name = _id_of_block(tree.get(kind), location[1])
    field = ".".join(parts[2:])
    return f"{kind} {name} {field}".strip()


def _id_of_block(blocks: Any, number: int) -> str:
    """Return the id of a block of the file, or its number where it does not have one."""
    # the file has faults, so a block may be anything
    if isinstance(blocks, (list, tuple)) and number < len(blocks):
        block = blocks[number]
        if isinstance(block, Mapping):
            return str(block.get("id", number))
    return str(number)


# -- writing -------------------------------------------------------------------------------------


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return plain data of a home file as TOML: simple fields, then one block for each thing."""
    # fields come first: after a block they would belong to it
    fields = {name: value for name, value in tree.items() if not isinstance(value, list)}
    lines = [f"{name} = {_value(value)}" for name, value in fields.items()]
    for kind in _BLOCKS:
        for block in tree.get(kind, []):
            lines += ["", f"[[{kind}]]", *_block_lines(block)]
    return "\n".join(lines) + "\n"


def _block_lines(block: Mapping[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in block.items()]


def _key(name: str) -> str:
    """Return the name of a field, quoted where TOML needs it."""
    if name.isidentifier() and name.isascii():
        return name
    return json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    """Return a value in TOML; JSON writes numbers, booleans and text the same way."""
    if isinstance(value, Mapping):
        pairs = [f"{_key(name)} = {_value(inner)}" for name, inner in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        items = [_value(inner) for inner in value]
        return "[" + ", ".join(items) + "]"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        # JSON leaves DEL as it is; TOML forbids it
        return text.replace("\x7f", "\\u007f")
    return json.dumps(value)
