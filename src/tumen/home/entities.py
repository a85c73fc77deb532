"""Entities: what a home is made of, with the fields a home file may give each thing.

Names, domains and states are those of Home Assistant. Aliases are a list, or a table by language
(`aliases = {de = ["Küchenlicht"]}`), which lets replies use the speaker's own words.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from tumen.core.shape import Frozen

DOMAINS = (
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
    "person",
    "sensor",
    "binary_sensor",
    "weather",
    "timer",
    "button",
    "input_boolean",
    "valve",
)
_OFF_ON = ("off", "on")
_CLOSED_OPEN = ("closed", "open", "opening", "closing")
STATES: dict[str, tuple[str, ...]] = {
    "light": _OFF_ON,
    "switch": _OFF_ON,
    "fan": _OFF_ON,
    "input_boolean": _OFF_ON,
    "binary_sensor": _OFF_ON,
    "script": _OFF_ON,
    "cover": _CLOSED_OPEN,
    "valve": _CLOSED_OPEN,
    "lock": ("locked", "unlocked"),
    "climate": ("off", "heat", "cool", "heat_cool", "auto", "dry", "fan_only"),
    "media_player": ("off", "on", "idle", "playing", "paused", "standby"),
    "vacuum": ("docked", "cleaning", "returning", "paused", "idle", "error"),
    "lawn_mower": ("docked", "mowing", "returning", "paused", "error"),
}
"""The states of a domain; the first is the default. Domains that are not here take any state."""

_ANY_DOMAIN = ("", "unknown", "unavailable")  # states that every entity may have
SHOPPING = "todo.shopping_list"
"""The id of the list that every home has."""


def _number_as_text(value: Any) -> Any:
    """Return a number as text: Home Assistant's states are text (`state = 12.5`)."""
    return str(value) if isinstance(value, (int, float)) else value


Percent = Annotated[float, Field(ge=0, le=100)]
Id = Annotated[str, Field(pattern=r"^[^\s.]+$", max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, BeforeValidator(_number_as_text)]
State = dict[str, Any]
"""The changing fields of one entity or timer, such as {"state": "on", "brightness": 80}."""


class NamedThing(Frozen):
    """Something with a name and other names, in any language."""

    name: Name
    aliases: tuple[Name, ...] | dict[str, tuple[Name, ...]] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name, then every alias, each once."""
        # the name comes first: replies use it where a language has no alias
        names = [self.name]
        if isinstance(self.aliases, dict):
            for aliases in self.aliases.values():
                names += aliases
        else:
            names += self.aliases
        return tuple(dict.fromkeys(names))

    def name_in(self, lang: str) -> str:
        """Return the name a reply in a language uses: its first alias in it, else the name."""
        # an empty list of aliases is none
        if isinstance(self.aliases, dict) and self.aliases.get(lang):
            return self.aliases[lang][0]
        return self.name


class Floor(NamedThing):
    """A storey."""

    id: Id


class Area(NamedThing):
    """A room or another part of the home."""

    id: Id
    floor: str | None = None


class Entity(NamedThing):
    """One device or service, with its limits and its state when the home is loaded.

    Units: percent for brightness, position, percentage (fan speed), volume and humidity; degrees
    Celsius for temperatures; kelvin for color temperatures.

    Attributes:
        supports: what a light can do (brightness, color, color_temperature); None: everything.
        temperature: target of a climate device; measured by a weather service.
        mode: the state that a climate device goes to when it is turned on.
        modes: the states that a climate device can be in; empty: not known.
        sets: of a scene: entity id -> the fields the entity gets.
        state: left out, it is the default of the domain.
    """

    # what it is, and what it can do
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
    modes: tuple[str, ...] = ()
    sets: dict[str, dict[str, Any]] = Field(default_factory=dict)

    # from here on: the fields that change, `STATE_FIELDS`
    state: Text = ""
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
        """The part of the id before the dot, as in Home Assistant."""
        return self.id.partition(".")[0]

    @model_validator(mode="after")
    def _check(self) -> Entity:
        """Check what fields say about each other."""
        if self.domain not in DOMAINS:
            raise ValueError(f"unknown domain {self.domain!r}{did_you_mean(self.domain, DOMAINS)}")
        # an empty state is the default
        allowed = STATES.get(self.domain)
        if allowed and self.state not in (*_ANY_DOMAIN, *allowed):
            known = ", ".join(allowed)
            raise ValueError(f"a {self.domain} has no state {self.state!r}; use one of {known}")
        # limits that exclude everything would refuse every command
        if self.min_temperature > self.max_temperature:
            raise ValueError("min_temperature is above max_temperature")
        if self.min_color_temperature > self.max_color_temperature:
            raise ValueError("min_color_temperature is above max_color_temperature")
        return self

    def initial_state(self) -> State:
        """Return the changing fields when the home is loaded, with those its state implies."""
        state_word = self.state or STATES.get(self.domain, ("unknown",))[0]
        if self.domain == "todo":
            items = self.items or ()
            return {"state": state_word, "items": items, "done_items": self.done_items or ()}
        state = self._set_fields()
        state["state"] = state_word
        if self.domain in ("cover", "valve"):
            # the position decides: a cover that is partly closed counts as open
            state.setdefault("position", 0 if state_word == "closed" else 100)
            state["state"] = "open" if state["position"] > 0 else "closed"
        return state

    def _set_fields(self) -> State:
        """Return the changing fields that the file sets."""
        fields = {name: getattr(self, name) for name in STATE_FIELDS}
        return {name: _whole_as_int(value) for name, value in fields.items() if value is not None}


STATE_FIELDS = (
    "state",
    "brightness",
    "color",
    "color_temperature",
    "temperature",
    "current_temperature",
    "humidity",
    "position",
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
)
"""The fields of an entity that change while the home runs."""


class Timer(Frozen):
    """A timer, running or paused.

    Attributes:
        ends: end in seconds since 1970; None while it is paused.
        left_seconds: what is left of a paused timer.
        command: a sentence that is carried out at the end; empty for an alarm only.
    """

    id: str
    name: str = ""
    area: str | None = None
    seconds: float = Field(gt=0, description="the length it was started with")
    ends: float | None = None
    left_seconds: float | None = None
    command: str = ""

    def fields(self) -> State:
        """Return the changing fields that are set."""
        return self.model_dump(exclude={"id"}, exclude_none=True)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or an empty text.

    Args:
        word: what was written.
        known: the words there are.
    """
    # 0.6: one or two slips in a word of usual length
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _whole_as_int(value: Any) -> Any:
    """Return a whole number as int: replies show `80 %`, not `80.0 %`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
