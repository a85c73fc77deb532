"""The exact timeline of a 1F1B pipeline (arXiv 2104.04473, figure 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Slot = tuple[str, float, float]  # ("f" forward or "b" backward, start, stop) in seconds


@dataclass
class Stage:
    """One stage while the timeline is built: its order of work and how far it is."""

    order: list[str]
    clock: float = 0.0
    slots: list[Slot] = field(default_factory=list)
    ends: dict[str, list[float]] = field(default_factory=lambda: {"f": [], "b": []})

    @property
    def finished(self) -> bool:
        """Whether all work is placed."""
        return len(self.slots) == len(self.order)

    def end_of(self, kind: str, micro: int) -> float:
        """Return when the work on a micro-batch ends; infinity while it is not placed."""
        ends = self.ends[kind]
        return ends[micro] if micro < len(ends) else math.inf


def one_forward_one_backward(
    stages: int, micro: int, forward: float, backward: float
) -> list[list[Slot]]:
    """Return the slots of each stage.

    Args:
        stages: pipeline stages.
        micro: micro-batches.
        forward: seconds of a stage's forward pass of one micro-batch.
        backward: seconds of its backward pass.
    """
    seconds = {"f": forward, "b": backward}
    line = [Stage(order_of_work(stage, stages, micro)) for stage in range(stages)]
    # a stage may only start what its neighbours have finished, so pass over all until none can go
    # on
    moved = True
    while moved:
        moved = False
        for number in range(stages):
            while place_next(line, number, seconds):
                moved = True
    return [stage.slots for stage in line]


def order_of_work(stage: int, stages: int, micro: int) -> list[str]:
    """Return the order of forwards and backwards on a stage: warm up, alternate, drain."""
    warm = min(stages - stage, micro)
    order = ["f"] * warm
    for k in range(micro):
        order.append("b")
        if warm + k < micro:
            order.append("f")
    return order


def place_next(line: list[Stage], number: int, seconds: dict[str, float]) -> bool:
    """Place a stage's next work if its input is ready; return whether it was placed."""
    stage = line[number]
    if stage.finished:
        return False
    kind = stage.order[len(stage.slots)]
    ready = ready_at(line, number, kind)
    if math.isinf(ready):
        return False
    start = max(stage.clock, ready)
    stop = start + seconds[kind]
    stage.clock = stop
    stage.ends[kind].append(stop)
    stage.slots.append((kind, start, stop))
    return True


def ready_at(line: list[Stage], number: int, kind: str) -> float:
    """Return when the input of a stage's next forward or backward is there."""
    micro = len(line[number].ends[kind])
    if kind == "f":
        return 0.0 if number == 0 else line[number - 1].end_of("f", micro)
    if number == len(line) - 1:
        return line[number].end_of("f", micro)
    return line[number + 1].end_of("b", micro)
