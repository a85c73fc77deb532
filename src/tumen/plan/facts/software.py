"""What frameworks do and how fast a release was measured to be.

`software.toml` holds the facts of each release, `physics.toml` one fitted factor a release.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tumen.core.errors import PlanError

KERNELS = ("unfused", "flash1", "flash2", "flash3")
FUSIONS = ("eager", "hand", "compiled")


@dataclass(frozen=True)
class Software:
    """One release of a framework. `software.toml` explains the facts."""

    framework: str
    release: str
    kernel: str
    fusion: str
    tp_overlap: bool
    dp_overlap: bool
    pp_overlap: bool
    ep_overlap: bool
    scatter_sends: bool
    rails: int
    reduce_bytes: float
    gradient_bytes: float
    keeps_8bit_inputs: bool
    live_weights: float
    loss_bytes: float
    buffer_bytes: float
    unfused_accumulation: bool
    launch_factor: float
    dropout: bool
    sequence_parallel: bool
    factor: float = 1.0  # measured step time over the predicted one
    factor_known: bool = False

    @property
    def name(self) -> str:
        """Framework and release, as printed."""
        return f"{self.framework} {self.release}".strip()

    def fields(self) -> dict[str, float]:
        """Return the fields of a scenario that come from the software; names become indices."""
        return {
            "kernel": KERNELS.index(self.kernel),
            "fusion": FUSIONS.index(self.fusion),
            "tp_overlap": self.tp_overlap,
            "dp_overlap": self.dp_overlap,
            "pp_overlap": self.pp_overlap,
            "ep_overlap": self.ep_overlap,
            "scatter_sends": self.scatter_sends,
            "rails": self.rails,
            "reduce_bytes": self.reduce_bytes,
            "gradient_bytes": self.gradient_bytes,
            "keeps_8bit_inputs": self.keeps_8bit_inputs,
            "live_weights": self.live_weights,
            "loss_bytes": self.loss_bytes,
            "buffer_bytes": self.buffer_bytes,
            "unfused_accumulation": self.unfused_accumulation,
            "launch_factor": self.launch_factor,
            "dropout": self.dropout,
            "factor": self.factor,
        }


@cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("tumen.plan.facts").joinpath(name).read_text("utf-8"))


@cache
def factors() -> dict[str, float]:
    """Return the fitted factor of each `framework release`."""
    found: dict[str, float] = _table("physics.toml").get("factors", {})
    return found


def framework_of(source: str) -> str:
    """Return the framework behind a source of published runs; "default" if none lists it."""
    for name, entry in _table("software.toml").items():
        if source in entry.get("sources", ()):
            return str(name)
    return "default"


def software(framework: str = "default", release: str = "") -> Software:
    """Return facts and factor of a release.

    A release that is not listed takes the newest entry before it, and the factor 1.

    Args:
        framework: a name of `software.toml`.
        release: a date such as 2026-04; empty for the newest entry.

    Raises:
        PlanError: `software.toml` does not have the framework.
    """
    table = _table("software.toml")
    if framework not in table:
        near = difflib.get_close_matches(framework, table, n=1, cutoff=0.0)
        raise PlanError(
            f"unknown framework {framework!r}; did you mean {near[0]!r}? Known: {', '.join(table)}"
        )
    factor = factors().get(f"{framework} {release}".strip())
    return Software(
        framework,
        release,
        **_facts(framework, release),
        factor=factor or 1.0,
        factor_known=factor is not None,
    )


def _facts(framework: str, release: str) -> dict[str, Any]:
    """Join the entries of a framework up to a release; one older than all takes the first entry."""
    table = _table("software.toml")
    facts = dict(table["default"])
    entries = table[framework].get("release", [])
    for entry in sorted(entries, key=lambda entry: str(entry["since"])):
        first = entry is entries[0]
        if not release or str(entry["since"]) <= release or first:
            facts |= {key: value for key, value in entry.items() if key != "since"}
    return facts
