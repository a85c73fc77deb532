"""Pipeline schedules played operation by operation: who computes what in which order, and when it ends.

The orders are those of Megatron-LM (core/pipeline_parallel/schedules.py): one forward one backward (arXiv
2104.04473, figure 4) and its interleaved form, where stage i holds chunks i, i + p, i + 2 p ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Operation = tuple[str, int, int]  # ("f" or "b", micro-batch, chunk)


@dataclass(frozen=True)
class Played:
    """What playing a schedule showed."""

    seconds: float
    busy: list[float]
    most_in_flight: list[int]  # forward results a stage holds at once, counted in chunks


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> list[Operation]:
    """Warm up with forwards until the last stage starts, then alternate, then drain."""
    warm = min(stages - stage - 1, micro_batches)
    order: list[Operation] = [("f", k, 0) for k in range(warm)]
    for k in range(micro_batches - warm):
        order += [("f", warm + k, 0), ("b", k, 0)]
    return order + [("b", k, 0) for k in range(micro_batches - warm, micro_batches)]


def interleaved(stage: int, stages: int, micro_batches: int, chunks: int) -> list[Operation]:
    """Rounds of `stages` micro-batches through one chunk after the other."""
    forwards: list[Operation] = []
    backwards: list[Operation] = []
    for start in range(0, micro_batches, stages):
        group = range(start, start + stages)
        forwards += [("f", k, chunk) for chunk in range(chunks) for k in group]
        backwards += [("b", k, chunk) for chunk in reversed(range(chunks)) for k in group]
    total = micro_batches * chunks
    warm = min((stages - stage - 1) * 2 + (chunks - 1) * stages, total)
    order = forwards[:warm]
    for k in range(total - warm):
        order += [forwards[warm + k], backwards[k]]
    return order + backwards[total - warm :]


def play(
    orders: Sequence[Sequence[Operation]],
    chunks: int,
    forward: Sequence[float],
    backward: Sequence[float],
) -> Played:
    """Run each stage's operations in order, each after the results it needs; seconds are by stage and chunk."""
    stages = len(orders)
    done: dict[tuple[str, int, int], float] = {}
    clock, place = [0.0] * stages, [0] * stages
    held, most = [0] * stages, [0] * stages
    moved = True
    while moved:
        moved = False
        for stage in range(stages):
            while place[stage] < len(orders[stage]):
                kind, micro, chunk = orders[stage][place[stage]]
                here = chunk * stages + stage  # position of this part of the model
                last = chunks * stages - 1
                needs = [("f", micro, here - 1)] if kind == "f" else [("b", micro, here + 1)]
                if kind == "f" and here == 0:
                    needs = []
                if kind == "b" and here == last:
                    needs = [("f", micro, here)]
                if any(need not in done for need in needs):
                    break
                start = max([clock[stage], *(done[need] for need in needs)])
                cost = forward[stage] if kind == "f" else backward[stage]
                clock[stage] = done[kind, micro, here] = start + cost
                held[stage] += 1 if kind == "f" else -1
                most[stage] = max(most[stage], held[stage])
                place[stage] += 1
                moved = True
    assert all(at == len(order) for at, order in zip(place, orders, strict=True)), "deadlock"
    busy = [
        sum(forward[s] if kind == "f" else backward[s] for kind, _, _ in orders[s])
        for s in range(stages)
    ]
    return Played(max(clock), busy, most)


def play_1f1b(micro_batches: int, forward: Sequence[float], backward: Sequence[float]) -> Played:
    """1F1B with a forward and a backward time for each stage."""
    stages = len(forward)
    orders = [one_forward_one_backward(stage, stages, micro_batches) for stage in range(stages)]
    return play(orders, 1, forward, backward)


def play_interleaved(
    stages: int, micro_batches: int, chunks: int, forward: float, backward: float
) -> Played:
    """Interleaved 1F1B on equal stages; `forward` and `backward` are of a whole stage."""
    orders = [interleaved(stage, stages, micro_batches, chunks) for stage in range(stages)]
    each = [forward / chunks] * stages, [backward / chunks] * stages
    return play(orders, chunks, *each)
