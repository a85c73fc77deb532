"""The fastest layouts of a workload on a fleet.

Every legal layout is one row of a table. Rows that do not fit in memory are dropped, the others are
timed in the order of their physical bound (`model.bound`), and the search ends where the bound is
slower than the layouts it would keep. The bound is never above the model, so the result equals
trying everything (tests/plan/test_search.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from tumen.core.errors import PlanError
from tumen.plan.facts import Accelerator
from tumen.plan.layout import Layout
from tumen.plan.model import bound, memory, step
from tumen.plan.model.physics import Physics, fitted
from tumen.plan.model.scenario import Array, Index, Scenario
from tumen.plan.space import Space, layout_of, layout_table, layouts, scenario_table, space_of
from tumen.plan.workload import Workload

HEADROOM = 0.08  # share of the memory left free for fragments
BLOCK = 1024  # layouts timed at once
TRAINING_BYTES = 18.0  # of one weight: bf16 weight, fp32 gradient, master weight and two moments
FILLED = 0.7  # share of the memory that weights, gradients and states may take in a hint
BATCH_UNIT = 64  # a batch in a hint is a multiple of so many sequences
NEAR_UNITS = 16  # such multiples tried in either direction

# Columns of the layout table (`space.LayoutRow`).
TENSOR = 0
POLICY = 7
MESH = [0, 1, 3, 4]  # tp, pp, cp, ep: the answer has one layout of each


@dataclass(frozen=True)
class Found:
    """The best layouts with their seconds, and how many others were left out."""

    layouts: tuple[Layout, ...]
    seconds: tuple[float, ...]
    considered: int
    too_large: int
    timed: int
    smallest_bytes: float


def search(
    workload: Workload,
    accelerator: Accelerator,
    fleet_size: int,
    top: int = 5,
    space: Space | None = None,
    *,
    physics: Physics | None = None,
    prune: bool = True,
) -> Found:
    """Return the `top` fastest layouts that fit, at most one a mesh (tp, pp, cp, ep).

    Args:
        workload: what is to be trained.
        accelerator: the kind of accelerator.
        fleet_size: accelerators of the fleet.
        top: layouts to return.
        space: values to try; default: `space_of`.
        physics: constants of the model; default: the fitted ones.
        prune: stop where the physical bound excludes the rest; False times every layout.

    Raises:
        PlanError: an empty fleet, no legal layout, or none that fits; names the nearest that does.
    """
    if fleet_size < 1:
        raise PlanError(
            f"{fleet_size} accelerators cannot train; the smallest fleet is {accelerator.name}:1"
        )
    physics = physics or fitted()
    rows = legal_rows(workload, accelerator, fleet_size, space)
    scenarios = scenario_table(workload, accelerator, fleet_size, rows)
    peaks = memory.peak(scenarios)
    room = accelerator.memory_bytes * (1 - HEADROOM)
    index = np.flatnonzero(peaks.needed <= room)  # rows that fit
    smallest = float(np.min(peaks.total))
    if not len(index):
        raise PlanError(why_too_large(workload, accelerator, fleet_size, smallest))

    meshes = number_meshes(rows)
    seconds, timed = time_best(scenarios, index, meshes, physics, top, prune)
    best = best_of_meshes(rows, meshes, seconds, top)
    return Found(
        layouts=tuple(layout_of(rows[i]) for i in best),
        seconds=tuple(float(seconds[i]) for i in best),
        considered=len(rows),
        too_large=len(rows) - len(index),
        timed=timed,
        smallest_bytes=smallest,
    )


def legal_rows(
    workload: Workload, accelerator: Accelerator, fleet_size: int, space: Space | None
) -> Array:
    """Return the table of legal layouts.

    Raises:
        PlanError: there is none; names the nearest legal value.
    """
    space = space or space_of(workload, accelerator, fleet_size)
    rows = layout_table(workload, fleet_size, space)
    if not len(rows):
        raise PlanError(why_none(workload, fleet_size, space))
    return rows


def number_meshes(rows: Array) -> Index:
    """Return a number for each row's mesh (tp, pp, cp, ep)."""
    _, numbers = np.unique(rows[:, MESH], axis=0, return_inverse=True)
    return numbers.reshape(-1)


def time_best(
    scenarios: Scenario, index: Index, meshes: Index, physics: Physics, top: int, prune: bool
) -> tuple[Array, int]:
    """Return the seconds of layouts that could be kept, and how many layouts were timed.

    Others have infinity.

    Args:
        scenarios: the table of layouts.
        index: rows that fit.
        meshes: number of the mesh of each row.
        physics: constants of the model.
        top: meshes to keep.
        prune: stop where the bound excludes the rest.
    """
    seconds = np.full(np.size(scenarios.tp), np.inf)
    floor = bound.seconds(scenarios.take(index))
    # The most promising first, so that the search can stop early.
    order = index[np.argsort(floor, kind="stable")]
    floor = np.sort(floor, kind="stable")
    timed = 0
    for start in range(0, len(order), BLOCK):
        if prune and floor[start] > worst_kept(seconds, meshes, top):
            break
        block = order[start : start + BLOCK]
        seconds[block] = step.step_time(scenarios.take(block), physics).step
        timed += len(block)
    return seconds, timed


def worst_kept(seconds: Array, meshes: Index, top: int) -> float:
    """Return the seconds of the `top`-th fastest mesh so far; infinity before there are as many.

    Args:
        seconds: of each layout, infinity where it was not timed.
        meshes: number of the mesh of each layout.
        top: meshes to keep.
    """
    best = np.full(int(meshes.max()) + 1, np.inf)
    np.minimum.at(best, meshes, seconds)
    if len(best) < top:
        return float(np.inf)
    return float(np.partition(best, top - 1)[top - 1])


def best_of_meshes(rows: Array, meshes: Index, seconds: Array, top: int) -> list[int]:
    """Return the fastest row of each of the `top` fastest meshes, in order.

    Layouts equal to a nanosecond are ordered by less recompute, then by fewer tensor ranks.

    Args:
        rows: the table of layouts.
        meshes: number of the mesh of each layout.
        seconds: of each layout, infinity where it was not timed.
        top: meshes to keep.
    """
    finite = np.flatnonzero(np.isfinite(seconds))
    rounded = np.round(seconds[finite], 9)
    order = finite[np.lexsort((rows[finite, TENSOR], rows[finite, POLICY], rounded))]
    _, first = np.unique(meshes[order], return_index=True)
    return [int(i) for i in order[np.sort(first)][:top]]


# ---------------------------------------------------------------------- reasons


def why_none(workload: Workload, fleet_size: int, space: Space) -> str:
    """Return why no layout is legal, with the nearest legal value."""
    least = min(space.tensor) * min(space.pipeline) * min(space.context)
    if least > fleet_size:
        return (
            f"{fleet_size} accelerators are fewer than tp x pp x cp of the layout; "
            f"the least is {least}"
        )
    hint = "unpin a part of the layout, or take another fleet"
    whole = nearest_batch(workload, fleet_size, space)
    if whole:
        hint = f"the nearest batch with many divisors is {whole} sequences"
    return (
        f"batch {workload.batch_size} is not divided by any mesh of {fleet_size} accelerators; "
        f"{hint}"
    )


def nearest_batch(workload: Workload, fleet_size: int, space: Space) -> int | None:
    """Return the nearest multiple of BATCH_UNIT that has a legal layout; None if none is near.

    Args:
        workload: whose batch no mesh divides.
        fleet_size: accelerators of the fleet.
        space: values that the search tries.
    """
    middle = max(round(workload.batch_size / BATCH_UNIT), 1)
    counts = range(max(middle - NEAR_UNITS, 1), middle + NEAR_UNITS + 1)
    options = [count * BATCH_UNIT for count in counts]
    options.sort(key=lambda batch_size: abs(batch_size - workload.batch_size))
    for batch_size in options:
        other = replace(workload, batch_size=batch_size)
        has_layout = next(layouts(other, fleet_size, space), None) is not None
        if has_layout:
            return batch_size
    return None


def why_too_large(
    workload: Workload, accelerator: Accelerator, fleet_size: int, smallest: float
) -> str:
    """Return why no layout fits, with a fleet to try."""
    return (
        f"{workload.name} does not fit {fleet_size} x {accelerator.name}: the smallest layout "
        f"needs {smallest / 1e9:.0f} GB of the {accelerator.memory_bytes / 1e9:.0f} GB of an "
        f"accelerator; {larger_fleet(workload, accelerator, fleet_size)}"
    )


def larger_fleet(workload: Workload, accelerator: Accelerator, fleet_size: int) -> str:
    """Return how many accelerators would hold the weights, gradients and states alone."""
    need = workload.shape.parameters() * TRAINING_BYTES / (accelerator.memory_bytes * FILLED)
    node = accelerator.node
    one_more = -(-fleet_size // node) + 1
    nodes = max(int(np.ceil(need / node)), one_more)
    return f"try {accelerator.name}:{nodes * node}"


def tally(found: Found) -> Counter[str]:
    """Return how many layouts were left out for which reason."""
    pruned = found.considered - found.too_large - found.timed
    return Counter(
        {
            "does not fit": found.too_large,
            "slower even on a perfect machine": pruned,
            "timed": found.timed,
        }
    )
