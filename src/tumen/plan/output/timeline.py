"""The exact timeline of a 1F1B pipeline (arXiv 2104.04473, figure 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Slot = tuple[str, float, float]  # ("f" forward or "b" backward, start, stop) in seconds


@dataclass
class StageTimeline:
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
        if micro >= len(ends):
            return math.inf
        return ends[micro]


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
    line = []
    for stage in range(stages):
        order = order_of_work(stage, stages, micro)
        line.append(StageTimeline(order))
    # A stage may only start what its neighbours have finished: pass over all of them until none
    # can go on.
    moved = True
    while moved:
        moved = False
        for number in range(stages):
            while place_next(line, number, seconds):
                moved = True
    return [one.slots for one in line]


def order_of_work(stage: int, stages: int, micro: int) -> list[str]:
    """Return the order of forwards ("f") and backwards ("b") on a stage.

    It warms up with forwards, alternates, and drains with backwards.

    Args:
        stage: number of the stage, 0 is the first.
        stages: of the pipeline.
        micro: micro-batches of a step.
    """
    # The last stage can start its backward pass at once, the first waits for all others.
    warm = min(stages - stage, micro)
    order = ["f"] * warm
    for k in range(micro):
        order.append("b")
        if warm + k < micro:
            order.append("f")
    return order


def place_next(line: list[StageTimeline], number: int, seconds: dict[str, float]) -> bool:
    """Place a stage's next work if its input is ready; return whether it was placed.

    Args:
        line: all stages.
        number: of the stage.
        seconds: of a forward and of a backward pass.
    """
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


def ready_at(line: list[StageTimeline], number: int, kind: str) -> float:
    """Return when the input of a stage's next forward or backward is there.

    Returns:
        Seconds since the start of the step; infinity while the input is not placed.
    """
    stage = line[number]
    micro = len(stage.ends[kind])
    is_last = number == len(line) - 1
    if kind == "f" and number == 0:
        return 0.0
    if kind == "f":
        return line[number - 1].end_of("f", micro)
    if is_last:
        return stage.end_of("f", micro)
    return line[number + 1].end_of("b", micro)
