"""Layouts one decision away from the best, and why each is worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tumen.core.errors import PlanError
from tumen.plan.facts import Accelerator
from tumen.plan.layout import Layout, scenario_of
from tumen.plan.model import memory, step
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import Scenario, stack
from tumen.plan.planned_run import Loser
from tumen.plan.workload import Workload

SUMS = ("step", "stage_forward", "stage_backward")  # not causes of their own


def losers(
    workload: Workload, best: Layout, accelerator: Accelerator, best_seconds: float
) -> list[Loser]:
    """Return the neighbours of the best layout with the reason why each is worse.

    Args:
        workload: what is to be trained.
        best: the best layout.
        accelerator: the kind of accelerator.
        best_seconds: step time of the best layout.
    """
    best_scenario = stack([scenario_of(workload, best, accelerator)])
    found = []
    for change, other in neighbours(best):
        try:
            scenario = stack([scenario_of(workload, other, accelerator)])
        except PlanError as error:
            found.append(Loser(change=change, reason=str(error)))
            continue
        seconds = float(step.step_time(scenario, fitted()).step[0]) * accelerator.speed
        if bool(memory.fits(scenario)[0]):
            reason = why_slower(best_scenario, scenario, seconds / best_seconds - 1)
        else:
            reason = why_too_large(scenario, accelerator)
        found.append(Loser(change=change, reason=reason, step_seconds=seconds))
    return found


def why_too_large(scenario: Scenario, accelerator: Accelerator) -> str:
    """Return why a layout does not fit in memory."""
    peak = float(memory.peak(scenario).total[0]) / 1e9
    memory_size = accelerator.memory_bytes / 1e9
    return f"does not fit: {peak:.0f} GB and the context on an accelerator of {memory_size:.0f} GB"


def neighbours(best: Layout) -> list[tuple[str, Layout]]:
    """Return (change, layout) of layouts that differ in one decision."""
    found = [*other_tensor(best), *other_pipeline(best)]
    if best.schedule != "1f1b":
        found.append(("plain 1F1B", replace(best, vpp=1, schedule="1f1b")))
    if best.recompute != "none":
        found.append(("no recompute", replace(best, recompute="none")))
    if best.recompute != "full":
        found.append(("full recompute", replace(best, recompute="full")))
    if best.ep > 1:
        options = (best.ep * 2, best.ep // 2)
        found += [(f"ep {ep}", replace(best, ep=ep)) for ep in options]
    micro = best.micro_batch * 2
    found.append((f"micro-batch {micro}", replace(best, micro_batch=micro)))
    return found


def other_tensor(best: Layout) -> list[tuple[str, Layout]]:
    """Return twice and half the tensor-parallel ranks."""
    options = [best.tp * 2]
    if best.tp > 1:
        options.append(best.tp // 2)
    return [(f"tp {tp}", with_degrees(best, tp=tp)) for tp in options]


def other_pipeline(best: Layout) -> list[tuple[str, Layout]]:
    """Return twice and half the pipeline stages."""
    # twice the stages may have no room for chunks
    plain = replace(best, vpp=1, schedule="1f1b")
    found = [(f"pp {best.pp * 2}", with_degrees(plain, pp=best.pp * 2))]
    if best.pp > 1:
        found.append((f"pp {best.pp // 2}", with_degrees(best, pp=best.pp // 2)))
    return found


def with_degrees(layout: Layout, **degrees: int) -> Layout:
    """Return a layout with other degrees of parallelism.

    The replicas take up the slack, and the schedule becomes plain where there is no pipeline.
    """
    changed = replace(layout, **degrees)  # type: ignore[arg-type]
    replicas = max(layout.world_size // (changed.tp * changed.pp * changed.cp), 1)
    changed = replace(changed, dp=replicas, sequence_parallel=changed.tp > 1)
    if changed.pp == 1:
        return replace(changed, vpp=1, schedule="1f1b")
    return changed


def why_slower(best: Scenario, other: Scenario, slower: float) -> str:
    """Return which part of a step costs the difference.

    Args:
        best: scenario of the best layout.
        other: scenario of the other layout.
        slower: step time over that of the best, minus one.
    """
    before = step.step_time(best, fitted()).rows()
    after = step.step_time(other, fitted()).rows()
    growth = {}
    for name in before:
        if name not in SUMS:
            growth[name] = float(np.sum(after[name]) - np.sum(before[name]))
    cause = max(growth, key=lambda name: growth[name])
    sign = "slower" if slower >= 0 else "faster"
    part = cause.replace("_", " ")
    return f"{abs(slower):.1%} {sign}: {part} {growth[cause]:+.3g} s a step"
