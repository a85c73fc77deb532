"""What frameworks do (facts of `software.toml`) and how fast a release was measured to be (factors of
`physics.toml`).
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
FUSED = ("eager", "hand", "compiled")


@dataclass(frozen=True)
class Software:
    """One release of a framework."""

    framework: str
    release: str
    kernel: str
    fused: str
    tp_overlap: bool
    dp_overlap: bool
    pp_overlap: bool
    ep_overlap: bool
    scatter: bool
    rails: int
    reduce_bytes: float
    gradient_bytes: float
    slim: bool
    live_weights: float
    loss_bytes: float
    buffer_bytes: float
    loose_gradients: bool
    launch: float
    dropout: bool
    sequence_parallel: bool
    factor: float = 1.0
    factor_known: bool = False

    @property
    def name(self) -> str:
        """How its factor is printed."""
        return f"{self.framework} {self.release}".strip()

    def fields(self) -> dict[str, float]:
        """The fields of a case that come from the software."""
        return {
            "kernel": KERNELS.index(self.kernel),
            "fused": FUSED.index(self.fused),
            "tp_overlap": self.tp_overlap,
            "dp_overlap": self.dp_overlap,
            "pp_overlap": self.pp_overlap,
            "ep_overlap": self.ep_overlap,
            "scatter": self.scatter,
            "rails": self.rails,
            "reduce_bytes": self.reduce_bytes,
            "gradient_bytes": self.gradient_bytes,
            "slim": self.slim,
            "live_weights": self.live_weights,
            "loss_bytes": self.loss_bytes,
            "buffer_bytes": self.buffer_bytes,
            "loose_gradients": self.loose_gradients,
            "launch": self.launch,
            "dropout": self.dropout,
            "factor": self.factor,
        }


@cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("tumen.plan.facts").joinpath(name).read_text("utf-8"))


@cache
def factors() -> dict[str, float]:
    """Fitted factor of each `framework release`."""
    found: dict[str, float] = _table("physics.toml").get("factors", {})
    return found


def framework_of(source: str) -> str:
    """The framework behind a source of published runs; "default" when nobody said."""
    for name, entry in _table("software.toml").items():
        if source in entry.get("sources", ()):
            return str(name)
    return "default"


def software(framework: str = "default", release: str = "") -> Software:
    """Facts and factor of a release; an unknown one takes the defaults of its framework and the middle factor 1.

    Raises:
        PlanError: nobody described the framework.
    """
    table = _table("software.toml")
    if framework not in table:
        near = difflib.get_close_matches(framework, table, n=1, cutoff=0.0)
        raise PlanError(
            f"unknown framework {framework!r}; did you mean {near[0]!r}? Known: {', '.join(table)}"
        )
    facts = dict(table["default"])
    for entry in sorted(table.get(framework, {}).get("release", []), key=lambda e: str(e["since"])):
        if not release or str(entry["since"]) <= release or entry is table[framework]["release"][0]:
            facts |= {key: value for key, value in entry.items() if key != "since"}
    factor = factors().get(f"{framework} {release}".strip())
    return Software(
        framework, release, **facts, factor=factor or 1.0, factor_known=factor is not None
    )
