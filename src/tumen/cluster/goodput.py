"""Goodput: where every accelerator-second of a run went, from what the run and its watcher wrote.

    productive   steps, done for the first time
    recomputed   steps that were done before a fault
    checkpoint   training waits for a save
    detection    from the last progress to the decision
    restart      from the decision to the next step
    idle         held for none of it: a queue, the end, no watcher

A run is one timeline, as its ranks wait for each other: each event tells what was done since the
one before. Training writes events every few steps, so the time of a fault is exact to a step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tumen.core.events import read

GOODPUT_PARTS = ("productive", "checkpoint", "detection", "restart", "recomputed", "idle")
Row = dict[str, Any]


def _no_seconds() -> dict[str, float]:
    return dict.fromkeys(GOODPUT_PARTS, 0.0)


@dataclass
class GoodputReport:
    """Seconds of a run by part, and what they were spent on.

    Attributes:
        accelerator_seconds: part -> seconds, times the accelerators.
        seconds: part -> seconds of the run's own time.
        faults: kind -> number.
        start_seconds: of `seconds["restart"]`, those before anything failed.
        stops: faults after which all ranks were started again.
        saves: number of checkpoints.
        steps: the furthest step.
        steps_again: steps that were done a second time.
    """

    accelerator_seconds: dict[str, float] = field(default_factory=_no_seconds)
    seconds: dict[str, float] = field(default_factory=_no_seconds)
    faults: Counter[str] = field(default_factory=Counter)
    start_seconds: float = 0.0
    stops: int = 0
    saves: int = 0
    steps: int = 0
    steps_again: int = 0

    @property
    def goodput(self) -> float:
        """Share of the accelerator-seconds that became training progress; 1 before any passed."""
        total = sum(self.accelerator_seconds.values())
        if not total:
            return 1.0
        return self.accelerator_seconds["productive"] / total

    @property
    def rates(self) -> dict[str, float] | None:
        """The arguments of `plan.goodput` as they were here, None without a save or a stop.

        Seconds of work between saves, of a save, between failures, and until work continues.
        """
        if not self.saves or not self.stops:
            return None
        work = self.seconds["productive"] + self.seconds["recomputed"]
        busy = sum(self.seconds.values()) - self.seconds["idle"]
        recovery = self.seconds["detection"] + self.seconds["restart"] - self.start_seconds
        return {
            "every_seconds": work / self.saves,
            "save_seconds": self.seconds["checkpoint"] / self.saves,
            "between_seconds": busy / self.stops,
            "restart_seconds": recovery / self.stops,
        }


def measure_goodput(run: Path, tier: str, accelerators: int) -> GoodputReport:
    """Return the report of a tier's training.

    Args:
        run: its folder, with `events.jsonl` and, where it was watched, `jobs/TIER/watch.jsonl`.
        tier: that was trained.
        accelerators: at its start; decisions say when there were fewer or more.
    """
    events = read(run / "events.jsonl")
    # Events without a tier are about the run as a whole.
    rows = [{**event, "by": "run"} for event in events if event.get("tier", tier) == tier]
    watched = read(run / "jobs" / tier / "watch.jsonl")
    rows += [{**row, "by": "watch"} for row in watched]
    return goodput_of_events(rows, accelerators)


def goodput_of_events(rows: Iterable[Row], accelerators: int) -> GoodputReport:
    """Return the report of events in any order.

    Args:
        rows: events; `by` is "run" or "watch", who wrote a row.
        accelerators: at the start.
    """
    meter = GoodputMeter(accelerators)
    for row in sorted(rows, key=lambda row: float(row["time"])):
        meter.take(row)
    return meter.report


class GoodputMeter:
    """Accounts for the time between events.

    Args:
        accelerators: at the start.

    Attributes:
        report: the seconds so far.
        held: accelerators that are paid for.
        used: accelerators that work.
        doing: part that the time since `since` belongs to; "work" is productive or recomputed.
        since: up to when time is accounted for.
        step: the last known step.
        step_seconds: of the last reported steps.
    """

    def __init__(self, accelerators: int) -> None:
        self.report = GoodputReport()
        self.held = accelerators
        self.used = accelerators
        self.doing = "idle"
        self.since = math.nan
        self.step = 0.0
        self.step_seconds = 0.0
        self.attempt = 1
        self.before_fault = "idle"  # what continues where nothing is done about a fault

    def take(self, row: Row) -> None:
        """Account for the time until the next event. Unknown events are ignored."""
        # By name: `_run_step`, `_watch_fault` and so on.
        handle = getattr(self, f"_{row['by']}_{row.get('event')}", None)
        if handle is None:
            return
        if math.isnan(self.since):
            self.since = float(row["time"])
        handle(row)

    # -- events of the run

    def _run_train(self, row: Row) -> None:
        """All ranks have loaded their state; a step comes next."""
        # Work that ended without an event: nobody knows what the time since was spent on.
        self._spend(row, "idle" if self.doing == "work" else self.doing)
        self.step = float(row["step"])
        self.doing = "restart"

    def _run_step(self, row: Row) -> None:
        """Some steps are done; training reports every few of them."""
        self.step_seconds = float(row["step_seconds"])
        self._work(row, float(row["step"]))

    def _run_checkpoint(self, row: Row) -> None:
        """A checkpoint is written; at the end of the time since the last event ranks waited."""
        self.report.saves += 1
        self._work(row, float(row["step"]), float(row.get("seconds", 0.0)))

    def _run_stopped(self, row: Row) -> None:
        """The ranks wrote a last checkpoint and end."""
        self._spend(row, "checkpoint")
        self.doing = "restart"

    def _run_validation(self, row: Row) -> None:
        """The training is over."""
        self._spend(row, "idle")
        self.doing = "idle"

    # -- rows of the watcher

    def _watch_watch(self, row: Row) -> None:
        """A watcher started or ended; one that resumed watches ranks that go on."""
        if row["state"] == "resumed":
            return
        self._spend(row, "idle" if self.doing == "work" else self.doing)
        self.doing = "restart" if row["state"] == "started" else "idle"

    def _watch_fault(self, row: Row) -> None:
        """A fault was detected; since its first sign nothing was done."""
        self.report.faults[row["kind"]] += 1
        time = float(row["time"])
        silent = min(float(row.get("silent_seconds") or 0.0), time - self.since)
        if self.doing == "work":
            step = max(self.step, float(row.get("step") or 0))
            self._work(row, step, silent, "detection")
        else:
            self._until(time - silent, self.doing)
            self._until(time, "detection")
        # A second fault before the decision changes nothing about what went on before the first.
        if self.doing != "detection":
            self.before_fault = self.doing
            self.doing = "detection"

    def _watch_decided(self, row: Row) -> None:
        """The watcher decided what to do; from now on the ranks restart, unless they go on."""
        self._spend(row, self.doing)
        if row["action"] == "give_up":
            self.doing = "idle"
            return
        if row["attempt"] == self.attempt:  # no rank is started again
            self.doing = self.before_fault
            return
        self.doing = "restart"
        self.attempt = int(row["attempt"])
        self.used = int(row.get("world") or self.used)
        if row["action"] == "resize":
            self.held = self.used  # what was given back is not paid for
        else:
            self.report.stops += 1
            self.held = max(self.held, self.used)

    def _watch_resumed(self, row: Row) -> None:
        """The first step of an attempt is done."""
        self._work(row, float(row["step"]))

    # -- accounting

    def _work(
        self, row: Row, step: float, other_seconds: float = 0.0, other: str = "checkpoint"
    ) -> None:
        """Account for steps since the last event.

        Args:
            row: the event.
            step: that was reached.
            other_seconds: at the end, spent on something else.
            other: what that was.
        """
        time = float(row["time"])
        passed = time - self.since
        other_seconds = min(other_seconds, passed)
        work = passed - other_seconds
        if self.doing == "restart":  # the ranks started first, and then worked
            most = max(0.0, step - self.step) * self.step_seconds
            work = min(work, most)
        again = self._share_again(step)
        self._count_steps(step)
        # The time since the last event, in this order: start, repeated steps, new steps, other.
        work_end = self.since + passed - other_seconds
        self._until(work_end - work, self.doing)
        self._until(work_end - work * (1 - again), "recomputed")
        self._until(work_end, "productive")
        self._until(time, other)
        self.step = step
        self.doing = "work"

    def _count_steps(self, step: float) -> None:
        """Count the steps up to `step`, and those of them that were done before."""
        report = self.report
        again = min(step, report.steps) - self.step
        report.steps_again += max(0, int(again))
        report.steps = max(report.steps, int(step))

    def _share_again(self, step: float) -> float:
        """Return the share of the steps up to `step` that were done before."""
        furthest = self.report.steps
        if step <= self.step:
            return 1.0 if step < furthest else 0.0
        again = min(step, furthest) - self.step
        share = again / (step - self.step)
        return min(1.0, max(0.0, share))

    def _spend(self, row: Row, part: str) -> None:
        """Account for all time since the last event as one part."""
        self._until(float(row["time"]), part)

    def _until(self, time: float, part: str) -> None:
        """Account for the time until `time` as one part.

        Args:
            time: in seconds since 1970, like all times here.
            part: one of GOODPUT_PARTS, or "work".
        """
        if part == "work":
            part = "productive"
        seconds = max(0.0, time - self.since)
        report = self.report
        report.seconds[part] += seconds
        if part == "restart" and not report.stops:
            report.start_seconds += seconds
        report.accelerator_seconds[part] += seconds * self.used
        # What is paid for and not used.
        report.accelerator_seconds["idle"] += seconds * (self.held - self.used)
        self.since = max(self.since, time)
