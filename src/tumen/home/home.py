"""Home: the things of a home and the state of each of them.

The domain of an entity is the part of its id before the dot, as in Home Assistant. Timers are
state. Names never change while a home is loaded, so the index of names is built once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from tumen.core.artifact import write_text
from tumen.home.entities import SHOPPING, STATE_FIELDS, Entity, State, Timer
from tumen.home.home_file import HomeFile, check_home, read_toml, to_toml
from tumen.home.naming import Index, NamedPlace, common_words

EXAMPLE = "homes/example.toml"


def _now() -> datetime:
    """Return the time of the machine, with its time zone."""
    return datetime.now().astimezone()


class Home:
    """A home and its state. Reading is free; only `put` changes state, and only acts call it.

    Args:
        file: the checked home file.
        clock: returns the current time with its time zone; tests bring their own.
    """

    def __init__(self, file: HomeFile, clock: Callable[[], datetime] = _now) -> None:
        # people expect a shopping list to be there
        if not any(entity.id == SHOPPING for entity in file.entity):
            entities = (*file.entity, _shopping_list())
            file = file.model_copy(update={"entity": entities})
        self.file = file
        self.clock = clock
        self.here = file.here
        # things by id, in the order of the file
        self.entities = {entity.id: entity for entity in file.entity}
        self.areas = {area.id: area for area in file.area}
        self.floors = {floor.id: floor for floor in file.floor}
        self._states: dict[str, State] = self._initial_states()

    def _initial_states(self) -> dict[str, State]:
        """Return the changing fields of all entities and timers, as the file has them."""
        states = {entity.id: entity.initial_state() for entity in self.file.entity}
        # timers are state only
        for timer in self.file.timer:
            states[timer.id] = timer.fields()
        return states

    @classmethod
    def load(cls, path: Path | None = None, clock: Callable[[], datetime] = _now) -> Home:
        """Read a home file; without a path the example home that ships with tumen.

        Args:
            path: the home file.
            clock: returns the current time with its time zone.

        Raises:
            InputError: the file is missing, not UTF-8, not TOML, or has faults; the one line lists
                all of them.
        """
        if path is not None:
            return cls.of(read_toml(path), clock, str(path))
        text = resources.files("tumen.home").joinpath(EXAMPLE).read_text(encoding="utf-8")
        return cls.of(tomllib.loads(text), clock)

    @classmethod
    def of(
        cls, tree: Mapping[str, Any], clock: Callable[[], datetime] = _now, where: str = "home"
    ) -> Home:
        """Return a home from plain data of the file's form.

        Args:
            tree: the content of a home file.
            clock: returns the current time.
            where: what error messages call the file.

        Raises:
            InputError: the data have faults; the one line lists all of them.
        """
        return cls(check_home(tree, where), clock)

    @cached_property
    def index(self) -> Index:
        """How words find the things of this home; built on first use."""
        places = [(area, NamedPlace(area.id, frozenset((area.id,)))) for area in self.file.area]
        floors = []
        for floor in self.file.floor:
            areas = frozenset(area.id for area in self.file.area if area.floor == floor.id)
            floors.append((floor, NamedPlace(floor.id, areas)))
        return Index([*places, *floors], self.file.entity)

    def read_names(self) -> None:
        """Build the index now, so that the first sentence does not wait for it."""
        _ = self.index

    # -- state -----------------------------------------------------------------------------------

    def state(self, id_: str) -> State:
        """Return a copy of the changing fields of an entity or timer; empty for an unknown id."""
        # a copy, so that only `put` changes a state
        return dict(self._states.get(id_, {}))

    def put(self, id_: str, fields: State | None) -> None:
        """Set the changing fields of an entity or timer; None removes a timer.

        Args:
            id_: the entity or timer.
            fields: its fields from now on.
        """
        if fields is None:
            self._states.pop(id_, None)
            return
        # a field that is None is a field the entity does not have
        self._states[id_] = {name: value for name, value in fields.items() if value is not None}

    @property
    def timers(self) -> dict[str, Timer]:
        """The timers that run or are paused, by id, in the order they were started."""
        timers = {}
        for id_, fields in self._states.items():
            # whatever has a state and is no entity is a timer
            if id_ not in self.entities:
                timers[id_] = Timer(id=id_, **fields)
        return timers

    def seconds_left(self, timer: Timer) -> float:
        """Return the seconds until a timer ends; 0 if it has ended."""
        # paused
        if timer.ends is None:
            return timer.left_seconds or 0.0
        return max(0.0, timer.ends - self.clock().timestamp())

    def finished(self) -> list[Timer]:
        """Remove and return the timers that have run out."""
        done = []
        for timer in self.timers.values():
            runs = timer.ends is not None
            if runs and self.seconds_left(timer) <= 0:
                done.append(timer)
        for timer in done:
            self.put(timer.id, None)
        return done

    def title(self, id_: str, lang: str) -> str:
        """Return what a reply calls an entity, area, floor or timer.

        Args:
            id_: the entity, area, floor or timer.
            lang: the language of the reply.
        """
        # ids of entities have a dot, those of places have none
        for things in (self.entities, self.areas, self.floors):
            if id_ in things:
                return things[id_].name_in(lang)
        return str(self._states.get(id_, {}).get("name") or id_)

    # -- saving ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return the home as plain data; `Home.of(home.snapshot())` is the same home."""
        tree = self.file.model_dump(exclude_defaults=True, mode="json", exclude={"entity", "timer"})
        tree["entity"] = [self._entity_block(entity) for entity in self.file.entity]
        tree["timer"] = [timer.model_dump(exclude_none=True) for timer in self.timers.values()]
        return tree

    def _entity_block(self, entity: Entity) -> dict[str, Any]:
        """Return the block of an entity in the file, with its present state."""
        # defaults are left out, so the file stays as short as it was written
        block = entity.model_dump(exclude_defaults=True, mode="json", exclude=set(STATE_FIELDS))
        for name, value in self._states[entity.id].items():
            block[name] = list(value) if isinstance(value, tuple) else value
        return block

    def save(self, path: Path) -> None:
        """Write the home as TOML; a kill leaves the old file or the new one.

        Raises:
            DiskError: the file cannot be written; the old file is unchanged.
        """
        write_text(path, to_toml(self.snapshot()))


def _shopping_list() -> Entity:
    """The list of a home whose file has none."""
    names = common_words().shopping_list
    first = next(iter(names.values()))
    aliases = {lang: (name,) for lang, name in names.items()}
    return Entity(id=SHOPPING, name=first, aliases=aliases)
