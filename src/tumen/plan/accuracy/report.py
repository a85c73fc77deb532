"""Predicted against published: the table by which the planner is judged.

A row whose release has a factor uses it; every constant is the shipped one. Refused rows are
counted with their reason.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tumen.plan.accuracy.published import Published, Refused, read
from tumen.plan.model import bound, memory, step
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import Array, Scenario, stack

LEAST_PLANS = 6  # of one network and cluster that make a sweep

Pair = tuple[Published, "RowPrediction"]


@dataclass(frozen=True)
class Errors:
    """Absolute errors of some rows and their bias (median of the signed errors), in percent."""

    n: int
    median: float
    p90: float
    worst: float
    bias: float

    @classmethod
    def of(cls, predicted: Array, actual: Array) -> Errors:
        """Return the errors of predictions against published figures."""
        if not len(actual):
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        signed = 100 * (predicted / actual - 1)
        size = np.abs(signed)
        return cls(
            n=len(actual),
            median=round(float(np.median(size)), 2),
            p90=round(float(np.quantile(size, 0.9)), 2),
            worst=round(float(size.max()), 2),
            bias=round(float(np.median(signed)), 2),
        )


@dataclass(frozen=True)
class Sweep:
    """Many plans of one network on one cluster: how well the planner ranks them."""

    source: str
    model: str
    n: int
    kendall_tau: float
    chosen_over_best: float  # measured time of the plan it would choose over the best measured


@dataclass(frozen=True)
class RowPrediction:
    """One published row with its predictions."""

    id: str
    source: str
    model: str
    seconds: float | None
    predicted_seconds: float
    memory_bytes: float | None
    predicted_bytes: float
    fits: bool
    out_of_memory: bool


@dataclass(frozen=True)
class Report:
    """The result of `tumen plan check`."""

    all: Errors
    dense_published_plan: Errors
    dense_unsharded: Errors
    moe: Errors
    memory: Errors
    memory_sources: Mapping[str, Errors]
    oom: Mapping[str, int]
    ran_rejected: tuple[str, ...]
    sources: Mapping[str, Errors]
    sweeps: tuple[Sweep, ...]
    factors: Mapping[str, float]
    refused: tuple[Refused, ...]
    below_bound: int
    seconds: float
    rows: tuple[RowPrediction, ...]

    def json(self) -> dict[str, object]:
        """Return the report as plain values."""
        return asdict(self)


def dense_with_plan(row: Published) -> bool:
    """Return whether a row is dense with a complete plan, and without FSDP."""
    return row.dense and row.plan_published and not row.sharded


def check(path: Path) -> Report:
    """Compare the planner with a file of published runs.

    Raises:
        InputError: the file is missing or lacks columns.
    """
    start = clock.perf_counter()
    rows, refused = read(path)
    predictions, factors, ideal = predict(rows)
    pairs = list(zip(rows, predictions, strict=True))
    timed = [pair for pair in pairs if pair[0].seconds]
    weighed = [pair for pair in pairs if pair[0].memory_bytes]
    # nvidia-smi counts what no prediction of the allocator can know
    allocated = [pair for pair in weighed if pair[0].memory_kind != "driver"]
    groups = grouped(timed)
    return Report(
        all=time_errors(timed),
        dense_published_plan=time_errors(groups["published plan"]),
        dense_unsharded=time_errors(groups["unsharded"]),
        moe=time_errors(groups["moe"]),
        memory=memory_errors(allocated),
        memory_sources=by_source(weighed, memory_errors),
        oom=rejections(pairs),
        ran_rejected=wrongly_rejected(pairs),
        sources=by_source(timed, time_errors),
        sweeps=tuple(sweeps(pairs)),
        factors=factors,
        refused=tuple(refused),
        below_bound=below_bound(predictions, ideal),
        seconds=round(clock.perf_counter() - start, 3),
        rows=tuple(predictions),
    )


def grouped(timed: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Return the rows with a time by what the planner finds easy or hard.

    Returns:
        "published plan" and "unsharded": dense networks, with a complete plan and without FSDP;
        "moe": mixtures of experts.
    """
    groups: dict[str, list[Pair]] = {"published plan": [], "unsharded": [], "moe": []}
    for pair in timed:
        row = pair[0]
        if not row.dense:
            groups["moe"].append(pair)
            continue
        if dense_with_plan(row):
            groups["published plan"].append(pair)
        if not row.sharded:
            groups["unsharded"].append(pair)
    return groups


def rejections(pairs: Sequence[Pair]) -> dict[str, int]:
    """Return how many rows ran out of memory, and how many of them the planner rejects."""
    failed = [predicted for row, predicted in pairs if row.out_of_memory]
    rejected = [predicted for predicted in failed if not predicted.fits]
    return {"n": len(failed), "rejected": len(rejected)}


def wrongly_rejected(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return the rows that ran although the planner rejects them."""
    ran = [predicted for row, predicted in pairs if not row.out_of_memory]
    return tuple(predicted.id for predicted in ran if not predicted.fits)


def below_bound(predictions: Sequence[RowPrediction], ideal: Array) -> int:
    """Return how many predictions promise more than physics allows: a fault of the model."""
    faults = 0
    for predicted, low in zip(predictions, ideal, strict=True):
        if predicted.predicted_seconds < float(low):
            faults += 1
    return faults


def by_source(
    pairs: Sequence[Pair], errors: Callable[[Sequence[Pair]], Errors]
) -> dict[str, Errors]:
    """Return the errors of each source, in the order of the file."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].source, []).append(pair)
    return {source: errors(group) for source, group in groups.items()}


def predict(rows: Sequence[Published]) -> tuple[list[RowPrediction], dict[str, float], Array]:
    """Return (predictions in order, the factors used, the physical bound of each row in seconds).

    A row with several scenarios takes the fastest: a run chooses well what it does not publish.
    """
    if not rows:
        return [], {}, np.zeros(0)
    scenarios, seconds = fastest_scenarios(rows)
    peak = memory.peak(scenarios)
    fit = np.atleast_1d(memory.fits(scenarios))
    kinds = {"allocated": peak.total, "reserved": peak.reserved, "driver": peak.driver}
    verdicts = []
    factors = {}
    for i, row in enumerate(rows):
        verdict = RowPrediction(
            id=row.id,
            source=row.source,
            model=row.model,
            seconds=row.seconds,
            predicted_seconds=float(seconds[i]),
            memory_bytes=row.memory_bytes,
            predicted_bytes=float(kinds[row.memory_kind][i]),
            fits=bool(fit[i]),
            out_of_memory=row.out_of_memory,
        )
        verdicts.append(verdict)
        if row.software.factor_known:
            factors[row.software.name] = row.software.factor
    return verdicts, factors, np.asarray(bound.seconds(scenarios))


def fastest_scenarios(rows: Sequence[Published]) -> tuple[Scenario, Array]:
    """Return the fastest scenario of each row as one table, and its seconds."""
    every: list[Scenario] = []
    counts = [0]
    for row in rows:
        every += row.scenarios
        counts.append(len(row.scenarios))
    table = stack(every)
    steps = step.step_time(table, fitted()).step
    starts = np.cumsum(counts)  # of each row's scenarios in the table
    fastest = []
    for first, after in pairwise(starts):
        fastest.append(first + int(np.argmin(steps[first:after])))
    chosen = np.array(fastest)
    return table.take(chosen), np.asarray(steps)[chosen]


def time_errors(pairs: Sequence[Pair]) -> Errors:
    """Return the errors of step times."""
    predicted = np.array([prediction.predicted_seconds for _, prediction in pairs])
    return Errors.of(predicted, np.array([row.seconds for row, _ in pairs], dtype=float))


def memory_errors(pairs: Sequence[Pair]) -> Errors:
    """Return the errors of memory figures."""
    predicted = np.array([prediction.predicted_bytes for _, prediction in pairs])
    return Errors.of(predicted, np.array([row.memory_bytes for row, _ in pairs], dtype=float))


# ---------------------------------------------------------------------- ranking


def sweeps(pairs: Sequence[Pair], least: int = LEAST_PLANS) -> list[Sweep]:
    """Return the ranking of each group of plans of one network, cluster and batch.

    Args:
        pairs: published rows with their predictions.
        least: plans that make a sweep.
    """
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        if pair[0].seconds and dense_with_plan(pair[0]):
            groups.setdefault(sweep_key(pair[0]), []).append(pair)
    found = []
    for group in groups.values():
        plans = {plan_key(row) for row, _ in group}
        if len(group) >= least and len(plans) >= least:
            found.append(ranking(group))
    return found


def sweep_key(row: Published) -> tuple[object, ...]:
    """Return what the rows of a sweep have in common."""
    one = row.scenarios[0]
    return row.source, row.model, one.world_size, one.batch_size, one.seq_len


def plan_key(row: Published) -> tuple[object, ...]:
    """Return what tells the plans of a sweep apart."""
    one = row.scenarios[0]
    return one.tp, one.pp, one.dp, one.micro_batch_size, one.num_attention_heads


def ranking(group: Sequence[Pair]) -> Sweep:
    """Return how well the predicted order of some plans agrees with the measured one."""
    first = group[0][0]
    actual = np.array([row.seconds for row, _ in group], dtype=float)
    predicted = np.array([prediction.predicted_seconds for _, prediction in group])
    chosen = float(actual[int(np.argmin(predicted))] / actual.min())
    return Sweep(
        source=first.source,
        model=first.model,
        n=len(group),
        kendall_tau=round(tau(predicted, actual), 3),
        chosen_over_best=round(chosen, 4),
    )


def tau(a: Array, b: Array) -> float:
    """Return Kendall's rank correlation."""
    # Every pair once.
    i, j = np.triu_indices(len(a), 1)
    return float(np.mean(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])))
