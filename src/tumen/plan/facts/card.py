"""Cards and fleets: figures with their sources (`cards.toml`), and `h800:10000` read into counts."""

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
class Card:
    """One kind of accelerator. Rates per second, links one way and per card, sizes in bytes."""

    name: str
    generation: str
    bf16_flops: float
    fp8_flops: float
    fp4_flops: float
    best_matmul: float  # measured share of the bf16 peak
    memory_bytes: float  # what the driver can give
    memory_rate: float
    link_rate: float
    nic_rate: float
    node: int
    domain: int
    watts: float
    price: float
    source: str
    conflict: str = ""
    aliases: tuple[str, ...] = field(default=())
    grade: Grade = "datasheet"
    speed: float = 1.0  # measured step time over the predicted one, from a calibration

    def flops(self, precision: str) -> float:
        """Dense peak of a precision; a card without 8- or 4-bit units runs it at the next wider rate."""
        eight = self.fp8_flops or self.bf16_flops
        return {"fp8": eight, "fp8-row": eight, "fp4": self.fp4_flops or eight}.get(
            precision, self.bf16_flops
        )


@dataclass(frozen=True)
class Group:
    """Cards of one kind in a fleet."""

    card: Card
    count: int


@cache
def cards() -> dict[str, Card]:
    """Every card of `cards.toml` by name."""
    table = tomllib.loads(
        resources.files("tumen.plan.facts").joinpath("cards.toml").read_text("utf-8")
    )
    return {name: _card(name, _inherited(table, name)) for name in table}


def _inherited(table: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    entry = table[name]
    if "like" not in entry:
        return entry
    parent = {
        key: value
        for key, value in _inherited(table, entry["like"]).items()
        if key not in ("names", "conflict")
    }
    return {**parent, **entry}


def _card(name: str, entry: dict[str, Any]) -> Card:
    return Card(
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


def card_of(name: str, profile: Path | None = None) -> Card:
    """The card called `name` (or one of its long names), corrected by a calibration profile if one is given.

    Raises:
        PlanError: no such card; names the nearest.
    """
    known = {
        alias.lower(): card for card in cards().values() for alias in (card.name, *card.aliases)
    }
    card = known.get(name.strip().lower())
    if card is None:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
        hint = (
            f"did you mean {known[near[0]].name}?" if near else "add it to cards.toml with a source"
        )
        raise PlanError(f"unknown card {name!r}; {hint} Known: {', '.join(cards())}")
    return calibrated(card, profile) if profile else card


def calibrated(card: Card, profile: Path) -> Card:
    """The card with the figures a calibration measured.

    Raises:
        PlanError: the profile is missing, no JSON, or of another card.
    """
    try:
        found = json.loads(profile.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{profile}: no calibration profile ({error}); make one with `tumen plan calibrate`"
        ) from None
    if found.get("card") != card.name:
        raise PlanError(
            f"{profile}: measured on {found.get('card')!r}, not on {card.name!r}; calibrate this card"
        )
    rates = {
        key: found["rates"][key]
        for key in ("bf16_flops", "memory_rate", "link_rate")
        if key in found["rates"]
    }
    best = {"best_matmul": found["rates"]["best_matmul"]} if "best_matmul" in found["rates"] else {}
    memory = {"memory_bytes": found["memory_bytes"]} if found.get("memory_bytes") else {}
    return replace(
        card,
        **rates,
        **best,
        **memory,
        speed=found.get("speed", 1.0),
        grade="calibrated",
        conflict="",
    )


def fleet_of(text: str, profile: Path | None = None) -> list[Group]:
    """Read `h800:10000` or `h800:6500,a100:1000`.

    Raises:
        PlanError: no count, an unknown card, or fewer than one card.
    """
    groups = []
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        try:
            count = int(number.replace("_", "")) if colon else 1
        except ValueError:
            raise PlanError(
                f"--fleet {part!r}: {number!r} is no count; write card:count, such as h800:10000"
            ) from None
        if count < 1:
            raise PlanError(
                f"--fleet {part!r}: {count} cards cannot train; the smallest fleet is {name}:1"
            )
        groups.append(Group(card_of(name, profile), count))
    return groups


def cheapest_first(groups: Sequence[Group]) -> list[Group]:
    """Groups by price of a bf16 flop, for mixed fleets."""
    return sorted(groups, key=lambda group: group.card.price / group.card.bf16_flops)
