"""Small homes for tests, and a clock that a test winds on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tumen.home.home import Home


class Clock:
    """A clock that stands still until a test winds it on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wind(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def thing(id_: str, name: str, area: str = "", **fields: Any) -> dict[str, Any]:
    """An entity of a home file."""
    block = {"id": id_, "name": name, **fields}
    return block | {"area": area} if area else block


def home_of(
    *things: dict[str, Any],
    floors: dict[str, str] | None = None,
    clock: Callable[[], datetime] | None = None,
    **fields: Any,
) -> Home:
    """A home of these things.

    Its areas are those the things are in, called by their ids (`living_room`: `Living room`).

    Args:
        things: entities, see `thing`.
        floors: area id -> floor id; floors are called by their ids as well.
        clock: the time of the home.
        fields: other fields of the home file.
    """
    floors = floors or {}
    ids = dict.fromkeys([*(block["area"] for block in things if "area" in block), *floors])
    areas = []
    for id_ in ids:
        area = {"id": id_, "name": title(id_)}
        areas.append(area | {"floor": floors[id_]} if id_ in floors else area)
    storeys = [{"id": id_, "name": title(id_)} for id_ in dict.fromkeys(floors.values())]
    tree = {"floor": storeys, "area": areas, "entity": list(things), **fields}
    return Home.of(tree, clock or Clock())


def title(id_: str) -> str:
    """`living_room` -> `Living room`."""
    return id_.replace("_", " ").capitalize()
