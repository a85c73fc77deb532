"""Target: one device that is acted on, and what was said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tumen.assistant.acts.outcomes import ActRefused
from tumen.assistant.values import SHARE, Value, plain
from tumen.home import Entity, State

STEP_PERCENT = 10
"""Percent of a relative change that is said without a number."""

SlotValues = Mapping[str, Any]
"""slot -> number or text."""


def needed(values: SlotValues, slot: str) -> Any:
    """Return the value of a slot.

    Raises:
        ActRefused: the value was not said.
    """
    # the act names its missing value instead of guessing one
    if slot not in values:
        raise ActRefused("missing", slot=slot)
    return values[slot]


@dataclass(frozen=True)
class Target:
    """One device that is acted on.

    Attributes:
        entity: the device.
        state: its fields before the act.
        values: what was said, slot -> number or text.
    """

    entity: Entity
    state: State
    values: SlotValues

    @property
    def domain(self) -> str:
        """The domain of the device."""
        return self.entity.domain

    @property
    def state_word(self) -> str:
        """The state of the device, such as `on`."""
        return str(self.state["state"])

    def refused(self, reason: str, **about: Value) -> ActRefused:
        """Return a refusal about this device, to raise.

        Args:
            reason: key of the reply.
            about: what the reply fills in besides the device.
        """
        return ActRefused(reason, entity=self.entity.id, **about)

    def needed(self, slot: str) -> Any:
        """Return the value of a slot.

        Raises:
            ActRefused: the value was not said.
        """
        return needed(self.values, slot)

    def percent(self, slot: str, default: float | None = None) -> float:
        """Return the percent that were said for a slot, 0 to 100.

        Args:
            slot: such as `brightness`.
            default: taken if the value was not said; None if it must be said.

        Raises:
            ActRefused: the value was not said, or lies outside.
        """
        value = self.values.get(slot, default)
        if value is None:
            value = self.needed(slot)
        return self.in_range(slot, value, (0, 100), "%")

    def stepped(self, slot: str, now: float, step: float = STEP_PERCENT) -> float:
        """Return the percent after a change up or down, from 0 to 100.

        Args:
            slot: what is changed; its value is the difference.
            now: percent before.
            step: the difference if none was said.

        Raises:
            ActRefused: the direction is missing, or the difference lies outside.
        """
        by = self.percent(slot, default=step)
        if SHARE in self.values:
            by = now * self.values[SHARE]
        if self.needed("step") == "down":
            by = -by
        return plain(max(0, min(100, now + by)))

    def in_range(self, field: str, value: float, limits: tuple[float, float], unit: str) -> float:
        """Return a value that lies within the limits of the device.

        Args:
            field: the field that is set, for the refusal.
            value: what was said.
            limits: lowest and highest value.
            unit: of the value and the limits.

        Raises:
            ActRefused: the value lies outside.
        """
        low, high = limits
        if low <= value <= high:
            return plain(value)
        raise self.refused(
            "range", slot=field, value=plain(value), low=plain(low), high=plain(high), unit=unit
        )
