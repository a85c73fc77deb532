"""Predicted against published: the table by which the planner is judged.

A row with a factor of its own release uses it; every constant is the shipped one. Refused rows are counted with their
reason.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tumen.plan.accuracy.published import Published, Refused, read
from tumen.plan.model import bound, memory, physics, time
from tumen.plan.model.case import Array, stack


@dataclass(frozen=True)
class Errors:
    """Absolute and signed errors of some rows, in percent."""

    n: int
    median: float
    p90: float
    worst: float
    bias: float

    @classmethod
    def of(cls, predicted: Array, actual: Array) -> Errors:
        """Errors of predictions against published figures."""
        if not len(actual):
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        signed = 100 * (predicted / actual - 1)
        size = np.abs(signed)
        values = (np.median(size), np.quantile(size, 0.9), size.max(), np.median(signed))
        return cls(len(actual), *(round(float(v), 2) for v in values))


@dataclass(frozen=True)
class Sweep:
    """Many plans of one model on one cluster: how well the planner ranks them."""

    source: str
    model: str
    n: int
    kendall_tau: float
    chosen_over_best: float  # measured time of the plan it would choose over the best measured one


@dataclass(frozen=True)
class Row:
    """One row's verdict."""

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
    """Everything `tumen plan check` says."""

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
    rows: tuple[Row, ...]

    def json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def dense_with_plan(row: Published) -> bool:
    """Dense, tp, pp, dp, micro-batch and batch published, weights not sharded by FSDP (the issue's first line)."""
    return row.dense and row.plan_published and not row.sharded


def check(path: Path) -> Report:
    """Judge the planner on a file of published runs.

    Raises:
        InputError: no such file, or other columns.
    """
    start = clock.perf_counter()
    rows, refused = read(path)
    verdicts, released, ideal = predict(rows)
    timed = [v for v in verdicts if v.seconds]
    by = {v.id: v for v in verdicts}
    weighed = [row for row in rows if row.memory_bytes]
    failed = [v for v in verdicts if v.out_of_memory]
    return Report(
        all=errors(timed),
        dense_published_plan=errors([by[r.id] for r in rows if r.seconds and dense_with_plan(r)]),
        dense_unsharded=errors([by[r.id] for r in rows if r.seconds and r.dense and not r.sharded]),
        moe=errors([by[r.id] for r in rows if r.seconds and not r.dense]),
        memory=weights([by[r.id] for r in weighed if r.memory_kind != "driver"]),
        memory_sources={
            s: weights([by[r.id] for r in weighed if r.source == s])
            for s in dict.fromkeys(r.source for r in weighed)
        },
        oom={"n": len(failed), "rejected": sum(not v.fits for v in failed)},
        ran_rejected=tuple(v.id for v in verdicts if not v.out_of_memory and not v.fits),
        sources={
            s: errors([v for v in timed if v.source == s])
            for s in dict.fromkeys(v.source for v in timed)
        },
        sweeps=tuple(sweeps(rows, by)),
        factors=released,
        refused=tuple(refused),
        below_bound=sum(
            v.predicted_seconds < float(low) for v, low in zip(verdicts, ideal, strict=True)
        ),
        seconds=round(clock.perf_counter() - start, 3),
        rows=tuple(verdicts),
    )


def predict(rows: Sequence[Published]) -> tuple[list[Row], dict[str, float], Array]:
    """Verdicts in order, the factors used, and the physical bound of each row."""
    if not rows:
        return [], {}, np.zeros(0)
    table = stack([case for row in rows for case in row.cases])
    starts = np.cumsum([0, *[len(row.cases) for row in rows]])
    steps = time.step(table, physics.fitted()).step
    chosen = np.array([a + int(np.argmin(steps[a:b])) for a, b in pairwise(starts)])
    cases = table.take(chosen)
    peak, fit = memory.peak(cases), np.atleast_1d(memory.fits(cases))
    kinds = {"allocated": peak.total, "reserved": peak.reserved, "driver": peak.driver}
    verdicts = [
        Row(
            id=row.id,
            source=row.source,
            model=row.model,
            seconds=row.seconds,
            predicted_seconds=float(steps[chosen[i]]),
            memory_bytes=row.memory_bytes,
            predicted_bytes=float(kinds[row.memory_kind][i]),
            fits=bool(fit[i]),
            out_of_memory=row.out_of_memory,
        )
        for i, row in enumerate(rows)
    ]
    factors = {row.software.name: row.software.factor for row in rows if row.software.factor_known}
    return verdicts, factors, np.asarray(bound.seconds(cases))


def errors(rows: Sequence[Row]) -> Errors:
    """Step-time errors."""
    return Errors.of(
        np.array([r.predicted_seconds for r in rows]),
        np.array([r.seconds for r in rows], dtype=float),
    )


def weights(rows: Sequence[Row]) -> Errors:
    """Memory errors."""
    return Errors.of(
        np.array([r.predicted_bytes for r in rows]),
        np.array([r.memory_bytes for r in rows], dtype=float),
    )


def sweeps(rows: Sequence[Published], by: Mapping[str, Row], least: int = 6) -> list[Sweep]:
    """Groups of at least `least` rows with one network, cluster and batch but several plans."""
    groups: dict[tuple[object, ...], list[Published]] = {}
    for row in rows:
        case = row.cases[0]
        if row.seconds and dense_with_plan(row):
            key = (row.source, row.model, case.cards, case.batch, case.seq)
            groups.setdefault(key, []).append(row)
    found = []
    for (source, model, *_), group in groups.items():
        plans = {(c.tp, c.pp, c.dp, c.micro, c.heads) for c in (row.cases[0] for row in group)}
        if len(group) >= least and len(plans) >= least:
            actual = np.array([row.seconds for row in group], dtype=float)
            predicted = np.array([by[row.id].predicted_seconds for row in group])
            over = float(actual[int(np.argmin(predicted))] / actual.min())
            found.append(
                Sweep(
                    str(source),
                    str(model),
                    len(group),
                    round(tau(predicted, actual), 3),
                    round(over, 4),
                )
            )
    return found


def tau(a: Array, b: Array) -> float:
    """Kendall's rank correlation."""
    i, j = np.triu_indices(len(a), 1)
    return float(np.mean(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])))
