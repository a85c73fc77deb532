"""The card table: accelerators with their figures and sources (`cards.toml`), and fleets of them.

A fleet is written `h800:10000`, a card and a count.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from tumen.core.errors import PlanError

GENERATIONS = ("ampere", "hopper", "blackwell", "other")
Grade = Literal["measured", "calibrated", "datasheet"]


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator. Rates are a second; links count one way and per accelerator."""

    name: str
    generation: str
    bf16_flops: float  # dense peaks, FLOP/s
    fp8_flops: float
    fp4_flops: float
    best_matmul: float  # measured share of the bf16 peak of a large matmul
    memory_bytes: float  # that the driver can allocate
    memory_rate: float  # bytes/s
    link_rate: float  # scale-up link, bytes/s
    nic_rate: float  # network, bytes/s
    node: int  # accelerators of a node
    domain: int  # accelerators of a scale-up domain
    watts: float
    price: float  # USD an hour
    source: str
    conflict: str = ""
    aliases: tuple[str, ...] = field(default=())
    grade: Grade = "datasheet"
    speed: float = 1.0  # measured step time over the predicted one, from a calibration

    def flops(self, precision: str) -> float:
        """Return the dense peak of a precision, in FLOP/s.

        Without 8- or 4-bit units the next wider format's rate holds.
        """
        eight = self.fp8_flops or self.bf16_flops
        peaks = {"fp8": eight, "fp8-row": eight, "fp4": self.fp4_flops or eight}
        return peaks.get(precision, self.bf16_flops)


@dataclass(frozen=True)
class FleetGroup:
    """Accelerators of one kind in a fleet."""

    accelerator: Accelerator
    count: int


@cache
def cards() -> dict[str, Accelerator]:
    """Return every accelerator of `cards.toml` by name."""
    text = resources.files("tumen.plan.facts").joinpath("cards.toml").read_text("utf-8")
    table = tomllib.loads(text)
    return {name: _accelerator(name, _inherited(table, name)) for name in table}


def _inherited(table: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Join an entry with the one it is `like`; names and conflicts are not inherited."""
    entry = table[name]
    if "like" not in entry:
        return entry
    parent = _inherited(table, entry["like"])
    shared = {key: value for key, value in parent.items() if key not in ("names", "conflict")}
    return {**shared, **entry}


def _accelerator(name: str, entry: dict[str, Any]) -> Accelerator:
    """Convert an entry from the units of the file (TFLOP/s, GB, TB/s, GB/s)."""
    return Accelerator(
        name=name,
        generation=entry["generation"],
        bf16_flops=entry["bf16"] * 1e12,
        fp8_flops=entry.get("fp8", 0) * 1e12,
        fp4_flops=entry.get("fp4", 0) * 1e12,
        best_matmul=entry["best_matmul"],
        memory_bytes=entry["usable_gb"] * 1e9,
        memory_rate=entry["memory_tb_s"] * 1e12,
        link_rate=entry["link_gb_s"] * 1e9,
        nic_rate=entry["nic_gb_s"] * 1e9,
        node=entry["node"],
        domain=entry["domain"],
        watts=entry["watts"],
        price=entry["price"],
        source=entry["source"],
        conflict=entry.get("conflict", ""),
        aliases=tuple(entry["names"]),
    )


def card_of(name: str, profile: Path | None = None) -> Accelerator:
    """Return the accelerator called `name`, or by one of its long names.

    Args:
        name: a name of the card table, such as h800 or H800-80GB-SXM; case does not matter.
        profile: a calibration profile whose measured figures replace those of the table.

    Raises:
        PlanError: the card table does not have it, or the profile is unusable.
    """
    known: dict[str, Accelerator] = {}
    for accelerator in cards().values():
        for alias in (accelerator.name, *accelerator.aliases):
            known[alias.lower()] = accelerator
    found = known.get(name.strip().lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
        hint = "add it to cards.toml with a source"
        if near:
            hint = f"did you mean {known[near[0]].name}?"
        raise PlanError(f"unknown card {name!r}; {hint} Known: {', '.join(cards())}")
    return calibrated(found, profile) if profile else found


def calibrated(accelerator: Accelerator, profile: Path) -> Accelerator:
    """Return the accelerator with the figures that a calibration measured.

    Raises:
        PlanError: the profile is missing, not JSON, or of another accelerator.
    """
    try:
        found = json.loads(profile.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{profile}: not a calibration profile ({error}); make one with `tumen plan calibrate`"
        ) from None
    if found.get("card") != accelerator.name:
        raise PlanError(
            f"{profile}: measured on {found.get('card')!r}, not on {accelerator.name!r}; "
            "calibrate this card"
        )
    names = ("bf16_flops", "memory_rate", "link_rate", "best_matmul")
    measured = {name: found["rates"][name] for name in names if name in found["rates"]}
    if found.get("memory_bytes"):
        measured["memory_bytes"] = found["memory_bytes"]
    return replace(
        accelerator, **measured, speed=found.get("speed", 1.0), grade="calibrated", conflict=""
    )


def fleet_of(text: str, profile: Path | None = None) -> list[FleetGroup]:
    """Read a fleet such as `h800:10000` or `h800:6500,a100:1000`.

    Args:
        text: card:count, separated by commas; a card alone counts once.
        profile: a calibration profile for every card of the fleet.

    Raises:
        PlanError: a count that is not a number, an unknown card, or fewer than one accelerator.
    """
    return [_group(part.strip(), profile) for part in text.split(",")]


def _group(part: str, profile: Path | None) -> FleetGroup:
    name, colon, number = part.partition(":")
    try:
        count = int(number.replace("_", "")) if colon else 1
    except ValueError:
        raise PlanError(
            f"--fleet {part!r}: {number!r} is not a count; write card:count, such as h800:10000"
        ) from None
    if count < 1:
        raise PlanError(
            f"--fleet {part!r}: {count} accelerators cannot train; the smallest fleet is {name}:1"
        )
    return FleetGroup(card_of(name, profile), count)


def one_kind(groups: Sequence[FleetGroup]) -> FleetGroup:
    """Return the accelerators of a fleet as one group.

    Raises:
        PlanError: the fleet mixes kinds; one synchronous training run needs one.
    """
    if len({group.accelerator.name for group in groups}) > 1:
        fleet = ",".join(f"{group.accelerator.name}:{group.count}" for group in groups)
        raise PlanError(
            f"--fleet {fleet} mixes cards; plan one kind at a time, "
            f"or compare them with --compare {fleet}"
        )
    return replace(groups[0], count=sum(group.count for group in groups))
