"""The home: floors, areas and entities from a TOML file, and the state of every one of them.

    name = "..."                                   here = "kitchen"      # where the speaker stands, optional
    [[floor]]   id, name, aliases
    [[area]]    id, name, aliases, floor
    [[entity]]  id = "light.kitchen_ceiling", name, aliases, area, device_class, state, and what it can say about itself

The domain of an entity is the part of its id before the dot, as in Home Assistant. Aliases are a list, or a table by
language (`aliases = {zh = ["厨房灯"], de = ["Küchenlicht"]}`), which lets replies use the speaker's own words. Timers
are state; a home always has a shopping list. What things are called never changes while a home lives, so words are
indexed once.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from tumen.core.artifact import write_text
from tumen.core.errors import InputError
from tumen.core.shape import Frozen
from tumen.home.index import Index

DOMAINS = (
    *(
        "light",
        "switch",
        "fan",
        "cover",
        "lock",
        "climate",
        "media_player",
        "vacuum",
        "lawn_mower",
        "todo",
        "scene",
        "script",
    ),
    *("person", "sensor", "binary_sensor", "weather", "timer", "button", "input_boolean", "valve"),
)
STATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("light", "switch", "fan", "input_boolean", "binary_sensor", "script"), ("off", "on")
    ),
    **dict.fromkeys(("cover", "valve"), ("closed", "open", "opening", "closing")),
    "lock": ("locked", "unlocked"),
    "climate": ("off", "heat", "cool", "heat_cool", "auto", "dry", "fan_only"),
    "media_player": ("off", "on", "idle", "playing", "paused", "standby"),
    "vacuum": ("docked", "cleaning", "returning", "paused", "idle", "error"),
    "lawn_mower": ("docked", "mowing", "returning", "paused", "error"),
}
"""What the state of a domain may be, the first when the file says nothing; other domains say anything."""
SHOPPING = "todo.shopping_list"
Percent = Annotated[float, Field(ge=0, le=100)]
Id = Annotated[str, Field(pattern=r"^[^\s.]+$", max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, (int, float)) else value)
]
State = dict[str, Any]
"""The changing fields of one entity, such as {"state": "on", "brightness": 80}."""


class Called(Frozen):
    """Something with a name and other names, in any language."""

    name: Name
    aliases: tuple[Name, ...] | dict[str, tuple[Name, ...]] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name, then every alias."""
        flat = (
            self.aliases
            if isinstance(self.aliases, tuple)
            else tuple(n for names in self.aliases.values() for n in names)
        )
        return tuple(dict.fromkeys((self.name, *flat)))

    def called(self, lang: str) -> str:
        """The name a reply in `lang` uses: its first alias if aliases are given by language, else the name."""
        if isinstance(self.aliases, dict) and self.aliases.get(lang):
            return self.aliases[lang][0]
        return self.name


class Floor(Called):
    """A storey."""

    id: Id


class Area(Called):
    """A room or another part of the home."""

    id: Id
    floor: str | None = None


class Entity(Called):
    """One thing, with its limits and its state when the home is loaded.

    Percent: brightness, position, percentage (fan speed), volume. Degrees Celsius: temperature (target; of a weather
    the measured one), current_temperature, min_temperature, max_temperature. Kelvin: color_temperature and its
    limits. `supports` names what a light can do (brightness, color, color_temperature); left out, it can do
    everything. `sets` of a scene: entity id -> the fields it gets. `mode` is the state a climate device goes to when
    it is turned on.
    """

    id: Annotated[str, Field(pattern=r"^[a-z_]+\.[^\s.]+$", max_length=200)]
    area: str | None = None
    device_class: str = ""
    supports: tuple[str, ...] | None = None
    unit: str = ""
    min_temperature: float = 7
    max_temperature: float = 35
    min_color_temperature: float = 2000
    max_color_temperature: float = 6500
    fan_modes: tuple[str, ...] = ("auto", "low", "medium", "high")
    mode: str = "heat"
    sets: dict[str, dict[str, Any]] = Field(default_factory=dict)

    state: Text = ""  # left out: what a device of its domain is when nobody has used it
    brightness: Percent | None = None
    color: str | None = None
    color_temperature: Annotated[float, Field(gt=0)] | None = None
    temperature: float | None = None
    current_temperature: float | None = None
    humidity: Percent | None = None
    position: Percent | None = None
    percentage: Percent | None = None
    volume: Percent | None = None
    muted: bool | None = None
    media_title: str | None = None
    media_track: int | None = None
    fan_mode: str | None = None
    cleaning_area: str | None = None
    items: tuple[str, ...] | None = None
    done_items: tuple[str, ...] | None = None
    announced: str | None = None

    @property
    def domain(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @model_validator(mode="after")
    def _sound(self) -> Entity:
        if self.domain not in DOMAINS:
            raise ValueError(f"no domain {self.domain!r}{_near(self.domain, DOMAINS)}")
        allowed = STATES.get(self.domain)
        if allowed and self.state not in ("", "unknown", "unavailable", *allowed):
            raise ValueError(
                f"state of a {self.domain} cannot be {self.state!r}; it is one of {', '.join(allowed)}"
            )
        if (
            self.min_temperature > self.max_temperature
            or self.min_color_temperature > self.max_color_temperature
        ):
            raise ValueError("a minimum lies above its maximum")
        return self

    def start(self) -> State:
        """The changing fields when the home is loaded, with those its state implies."""
        state = {
            name: _plain(getattr(self, name))
            for name in CHANGING
            if getattr(self, name) is not None
        }
        state["state"] = self.state or STATES.get(self.domain, ("unknown",))[0]
        if self.domain in ("cover", "valve"):
            state.setdefault("position", 0 if state["state"] == "closed" else 100)
            state["state"] = "open" if state["position"] > 0 else "closed"
        if self.domain == "todo":
            state = {
                "state": state["state"],
                "items": self.items or (),
                "done_items": self.done_items or (),
            }
        return state


CHANGING = (
    *(
        "state",
        "brightness",
        "color",
        "color_temperature",
        "temperature",
        "current_temperature",
        "humidity",
        "position",
    ),
    *(
        "percentage",
        "volume",
        "muted",
        "media_title",
        "media_track",
        "fan_mode",
        "cleaning_area",
        "items",
        "done_items",
        "announced",
    ),
)


class Timer(Frozen):
    """A timer. While it runs `ends` is its end in seconds since 1970; while it is paused `left_seconds` are left."""

    id: str
    name: str = ""
    area: str | None = None
    seconds: float = Field(gt=0, description="the length it was started with")
    ends: float | None = None
    left_seconds: float | None = None
    command: str = ""

    def fields(self) -> State:
        """Its changing fields, those it has."""
        return self.model_dump(exclude={"id"}, exclude_none=True)


class Plan(Frozen):
    """A home file, checked."""

    name: str = "Home"
    here: str | None = None
    floor: tuple[Floor, ...] = ()
    area: tuple[Area, ...] = ()
    entity: tuple[Entity, ...] = ()
    timer: tuple[Timer, ...] = ()

    def faults(self) -> list[str]:
        """What the parts say about each other that is not so."""
        floors, areas, ids = (
            [p.id for p in self.floor],
            [p.id for p in self.area],
            [e.id for e in self.entity],
        )
        found = [
            f"{kind} {id_!r} is there twice"
            for kind, all_ in _kinds(floors, areas, ids)
            for id_ in _twice(all_)
        ]
        found += [
            f"area {a.id!r}: no floor {a.floor!r}{_near(a.floor, floors)}"
            for a in self.area
            if a.floor and a.floor not in floors
        ]
        found += [
            f"entity {e.id!r}: no area {e.area!r}{_near(e.area, areas)}"
            for e in self.entity
            if e.area and e.area not in areas
        ]
        if self.here and self.here not in areas:
            found.append(f"here: no area {self.here!r}{_near(self.here, areas)}")
        known = set(ids)
        for scene in self.entity:
            for target, fields in scene.sets.items():
                if target not in known:
                    found.append(
                        f"entity {scene.id!r}: sets no entity {target!r}{_near(target, ids)}"
                    )
                found += [
                    f"entity {scene.id!r}: sets no field {f!r}{_near(f, CHANGING)}"
                    for f in fields
                    if f not in CHANGING
                ]
        return found


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _kinds(
    floors: list[str], areas: list[str], ids: list[str]
) -> tuple[tuple[str, list[str]], ...]:
    return (("floor", floors), ("area", areas), ("entity", ids))


def _twice(ids: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [id_ for id_ in ids if id_ in seen or seen.add(id_)]  # type: ignore[func-returns-value]


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _now() -> datetime:
    return datetime.now().astimezone()


class Home:
    """A home and its state. Reading is free; `put` is how state changes, and `act` is who calls it.

    Args:
        plan: the checked file.
        clock: what time it is, with a time zone; tests bring their own.
    """

    def __init__(self, plan: Plan, clock: Callable[[], datetime] = _now) -> None:
        if not any(entity.id == SHOPPING for entity in plan.entity):
            plan = plan.model_copy(update={"entity": (*plan.entity, _SHOPPING_LIST)})
        self.plan, self.clock = plan, clock
        self.here = plan.here
        self.entities = {entity.id: entity for entity in plan.entity}
        self.areas = {area.id: area for area in plan.area}
        self.floors = {floor.id: floor for floor in plan.floor}
        self._states: dict[str, State] = {entity.id: entity.start() for entity in plan.entity}
        for timer in plan.timer:
            self.put(timer.id, timer.fields())

    @classmethod
    def load(cls, path: Path | None = None, clock: Callable[[], datetime] = _now) -> Home:
        """Read a home file; without a path the example home that ships with tumen.

        Raises:
            InputError: the file is missing, no UTF-8, no TOML, or has faults; all of them are in the one line.
        """
        if path is None:
            text = (
                resources.files("tumen.home")
                .joinpath("homes/example.toml")
                .read_text(encoding="utf-8")
            )
            return cls.of(tomllib.loads(text), clock)
        try:
            tree = tomllib.loads(path.read_bytes().decode("utf-8"))
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
        return cls.of(tree, clock, str(path))

    @classmethod
    def of(
        cls, tree: Mapping[str, Any], clock: Callable[[], datetime] = _now, where: str = "home"
    ) -> Home:
        """A home from plain data of the file's form; `where` names it in errors.

        Raises:
            InputError: with every fault, in one line.
        """
        try:
            plan = Plan.model_validate(tree)
        except ValidationError as error:
            raise InputError(
                _line(where, [_fault(detail, tree) for detail in error.errors()])
            ) from None
        faults = plan.faults()
        if faults:
            raise InputError(_line(where, faults))
        return cls(plan, clock)

    @cached_property
    def index(self) -> Index:
        """How words find the things of this home; built on first use."""
        spots = [(area, frozenset((area.id,))) for area in self.plan.area]
        on_floor = {
            f.id: frozenset(a.id for a in self.plan.area if a.floor == f.id)
            for f in self.plan.floor
        }
        return Index(
            [*spots, *((floor, on_floor[floor.id]) for floor in self.plan.floor)], self.plan.entity
        )

    def state(self, id_: str) -> State:
        """A copy of the changing fields of an entity or timer; empty when there is none."""
        return dict(self._states.get(id_, {}))

    def put(self, id_: str, fields: State | None) -> None:
        """Set the changing fields of an entity or timer; None takes a timer away."""
        if fields is None:
            self._states.pop(id_, None)
        else:
            self._states[id_] = {name: value for name, value in fields.items() if value is not None}

    @property
    def timers(self) -> dict[str, Timer]:
        """The timers that run or are paused, by id, in the order they were started."""
        return {
            id_: Timer(id=id_, **fields)
            for id_, fields in self._states.items()
            if id_ not in self.entities
        }

    def seconds_left(self, timer: Timer) -> float:
        """Seconds until a timer ends; 0 when it has."""
        if timer.ends is None:
            return timer.left_seconds or 0.0
        return max(0.0, timer.ends - self.clock().timestamp())

    def finished(self) -> list[Timer]:
        """Take away and return the timers that have run out."""
        done = [
            timer
            for timer in self.timers.values()
            if timer.ends is not None and self.seconds_left(timer) <= 0
        ]
        for timer in done:
            self.put(timer.id, None)
        return done

    def title(self, id_: str, lang: str) -> str:
        """What a reply calls an entity, area, floor or timer."""
        for things in (self.entities, self.areas, self.floors):
            if id_ in things:
                return things[id_].called(lang)
        return str(self._states.get(id_, {}).get("name") or id_)

    def snapshot(self) -> dict[str, Any]:
        """The home as plain data of the file's form; `Home.of(home.snapshot())` is the same home."""
        tree = self.plan.model_dump(exclude_defaults=True, mode="json", exclude={"entity", "timer"})
        tree["entity"] = []
        for entity in self.plan.entity:
            fixed = entity.model_dump(exclude_defaults=True, mode="json", exclude=set(CHANGING))
            state = {
                name: list(v) if isinstance(v, tuple) else v
                for name, v in self._states[entity.id].items()
            }
            tree["entity"].append(fixed | state)
        tree["timer"] = [timer.model_dump(exclude_none=True) for timer in self.timers.values()]
        return tree

    def save(self, path: Path) -> None:
        """Write the home as TOML, the old file or the new one, never half of it.

        Raises:
            DiskError: the disk refuses; the old file stands.
        """
        write_text(path, _toml(self.snapshot()))


_SHOPPING_LIST = Entity(
    id=SHOPPING,
    name="Shopping list",
    aliases={"en": ("Shopping list",), "zh": ("购物清单",), "de": ("Einkaufsliste",)},
)


def _line(where: str, faults: Sequence[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{where}: {count}: " + "; ".join(faults)


def _fault(detail: Any, tree: Mapping[str, Any]) -> str:
    """One fault with the id of the thing it is in, what is wrong, and the nearest known field."""
    loc = [part for part in detail["loc"] if not str(part).startswith(("tuple[", "dict["))]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {
            "floor": Floor,
            "area": Area,
            "entity": Entity,
            "timer": Timer,
        }
        model = models.get(str(loc[0]), Plan)
        message = f"unknown field{_near(str(loc[-1]), list(model.model_fields))}"
    elif detail["type"] == "missing":
        message = "missing"
    elif not isinstance(detail.get("input"), (dict, BaseModel)):
        message = f"{message}, not {str(detail.get('input'))[:60]!r}"
    return f"{_path(loc, tree)}: {message}" if loc else message


def _path(loc: Sequence[Any], tree: Mapping[str, Any]) -> str:
    """`entity.3.state` as `entity light.hall state` where the file says an id."""
    if len(loc) > 1 and isinstance(loc[1], int):
        things = tree.get(str(loc[0]))
        thing = (
            things[loc[1]] if isinstance(things, (list, tuple)) and loc[1] < len(things) else None
        )
        name = str(thing.get("id", loc[1])) if isinstance(thing, Mapping) else str(loc[1])
        return " ".join([str(loc[0]), name, ".".join(str(part) for part in loc[2:])]).strip()
    return ".".join(str(part) for part in loc)


def _toml(tree: Mapping[str, Any]) -> str:
    """A snapshot as TOML: simple fields first, then one block a thing."""
    lines = [
        f"{name} = {_value(value)}" for name, value in tree.items() if not isinstance(value, list)
    ]
    for kind in ("floor", "area", "entity", "timer"):
        for thing in tree.get(kind, []):
            lines += [
                "",
                f"[[{kind}]]",
                *(f"{_key(name)} = {_value(value)}" for name, value in thing.items()),
            ]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
