"""Limits: values that an act needs, inside the range of the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tumen.assistant.acts.outcomes import ActRefused
from tumen.assistant.values import plain
from tumen.home import Entity

STEP_PERCENT = 10
"""Percent of a relative change that is said without a number."""


def needed(values: Mapping[str, Any], slot: str) -> Any:
    """Return the value of a slot.

    Raises:
        ActRefused: the value was not said.
    """
    if slot not in values:
        raise ActRefused("missing", slot=slot)
    return values[slot]


def in_range(
    entity: Entity, slot: str, value: float, limits: tuple[float, float], unit: str
) -> float:
    """Return a value that lies within the limits of an entity.

    Raises:
        ActRefused: it does not.
    """
    low, high = limits
    if low <= value <= high:
        return plain(value)
    raise ActRefused(
        "range",
        entity=entity.id,
        slot=slot,
        value=plain(value),
        low=plain(low),
        high=plain(high),
        unit=unit,
    )


def percent(entity: Entity, slot: str, value: float) -> float:
    """Return a value of 0 to 100.

    Raises:
        ActRefused: it lies outside.
    """
    return in_range(entity, slot, value, (0, 100), "%")
