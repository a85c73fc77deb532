"""The result of planning: a `Plan`, which `plan.json` holds, made of figures with error bars."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tumen.core.shape import Frozen
from tumen.plan.facts.card_table import Grade


class Figure(Frozen):
    """One number with its unit, its error bar, and the evidence it rests on."""

    value: float
    low: float
    high: float
    unit: str
    grade: Grade = "datasheet"

    @classmethod
    def scaled(cls, value: float, low: float, high: float, unit: str, grade: Grade) -> Figure:
        """Return a figure whose error bar is given as multiples of its value.

        Args:
            value: of the figure.
            low: lower end of the error bar, as a multiple of the value.
            high: upper end of the error bar, as a multiple of the value.
            unit: such as s or B.
            grade: what the figure rests on.
        """
        return cls(value=value, low=value * low, high=value * high, unit=unit, grade=grade)


class StageBytes(Frozen):
    """Bytes of one accelerator on one pipeline stage, by kind."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    working: float
    logits: float
    total: float


class PlannedLayout(Frozen):
    """One layout with its time, memory and cost."""

    layout: dict[str, int | str | bool]
    cards: int
    idle_cards: int
    step_seconds: Figure
    parts_seconds: dict[str, float]
    bound_seconds: float
    bound_by: str
    mfu: float
    memory_bytes: Figure
    stages: tuple[StageBytes, ...]
    tokens_per_day: Figure
    goodput: Figure
    days: Figure
    card_hours: Figure
    energy_kwh: Figure
    money: Figure
    hours_per_trillion: Figure


class Loser(Frozen):
    """A layout one decision away from the best, and why it is worse."""

    change: str
    reason: str
    step_seconds: float | None = None


class Failures(Frozen):
    """What failures do to the run."""

    between_failures_hours: float
    save_seconds: float
    save_every_seconds: float
    save_every_steps: int
    spare_nodes: int
    failures_per_day: float
    waiting_goodput: float
    elastic_goodput: float


class Plan(Frozen):
    """The answer of `solve`. `tumen train` and `tumen launch` use `choices[0]`."""

    schema_version: Literal[1] = 1
    name: str
    card: str
    fleet_cards: int
    node_cards: int
    precision: str
    sequence_tokens: int
    batch_sequences: int
    tokens: float
    parameters: int
    active_parameters: int
    software: str
    software_factor: float
    currency: str
    price: float
    choices: tuple[PlannedLayout, ...] = Field(min_length=1)
    losers: tuple[Loser, ...] = ()
    failures: Failures
    considered: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> PlannedLayout:
        """The layout to run."""
        return self.choices[0]


def layout_text(layout: dict[str, int | str | bool]) -> str:
    """Return a layout as one short line, such as `dp8 tp2 mb1 zero1 1f1b`."""
    degrees = ("dp", "tp", "pp", "vpp", "ep", "cp")
    words = [f"{name}{layout[name]}" for name in degrees if layout[name] != 1]
    words += [f"mb{layout['micro_batch']}", f"zero{layout['zero']}", str(layout["schedule"])]
    if layout["recompute"] != "none":
        words.append(f"recompute {layout['recompute']}")
    return " ".join(words)
