"""The ledger: where every card-second of a run went, read from what the run and its watcher wrote.

    productive   steps, made for the first time            recomputed   steps that were made before the fault already
    checkpoint   training waits for a save                 detection    from the last sign of life to the decision
    restart      from the decision to the next step        idle         cards held for none of it: a queue, the end, nobody awake

A run is one line of time, as its ranks wait for each other: each event says what was done since the one before. Events of
training are written every few steps, so a fault is known to the step and not to the part of a step.
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


@dataclass
class GoodputReport:
    """Card-seconds by part, and what they were spent on. All but `card_seconds` counts the run's own seconds."""

    accelerator_seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(GOODPUT_PARTS, 0.0)
    )
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(GOODPUT_PARTS, 0.0))
    faults: Counter[str] = field(default_factory=Counter)
    start_seconds: float = 0.0  # of the restart's: before anything failed
    stops: int = 0  # faults after which all ranks were started again
    saves: int = 0
    steps: int = 0
    steps_again: int = 0

    @property
    def goodput(self) -> float:
        """Share of the card-seconds that advanced the run; 1 before anything happened."""
        total = sum(self.accelerator_seconds.values())
        return self.accelerator_seconds["productive"] / total if total else 1.0

    @property
    def rates(self) -> dict[str, float] | None:
        """What the plan's formula asks for, as it was here: seconds between saves, of a save, between failures, until work
        goes on. None where nothing was saved or nothing failed.
        """
        if not self.saves or not self.stops:
            return None
        work = self.seconds["productive"] + self.seconds["recomputed"]
        return {
            "every_seconds": work / self.saves,
            "save_seconds": self.seconds["checkpoint"] / self.saves,
            "between_seconds": (sum(self.seconds.values()) - self.seconds["idle"]) / self.stops,
            "restart_seconds": (
                self.seconds["detection"] + self.seconds["restart"] - self.start_seconds
            )
            / self.stops,
        }


def measure_goodput(run: Path, tier: str, cards: int) -> GoodputReport:
    """The ledger of a tier's training.

    Args:
        run: its folder, with `events.jsonl` and, where a watcher was, `jobs/TIER/watch.jsonl`.
        cards: it started on; a decision says when there are fewer or more.
    """
    training = (
        {**row, "by": "run"} for row in read(run / "events.jsonl") if row.get("tier", tier) == tier
    )
    watching = ({**row, "by": "watch"} for row in read(run / "jobs" / tier / "watch.jsonl"))
    return goodput_of_events([*training, *watching], cards)


def goodput_of_events(rows: Iterable[Row], cards: int) -> GoodputReport:
    """The ledger of events in any order; `by` says whether the run or its watcher wrote a row."""
    book = Book(cards)
    for row in sorted(rows, key=lambda row: float(row["time"])):
        book.take(row)
    return book.ledger


class Book:
    """What the cards do now, and since when. `held` cards are paid for, `used` ones work."""

    def __init__(self, cards: int) -> None:
        self.ledger = GoodputReport()
        self.held = self.used = cards
        self.doing, self.since = "idle", math.nan
        self.step = self.pace = 0.0
        self.attempt = 1
        self.before = "idle"  # a fault: what goes on if nothing is done about it

    def take(self, row: Row) -> None:
        """The next event."""
        verb = getattr(self, f"_{row['by']}_{row.get('event')}", None)
        if verb:
            self.since = float(row["time"]) if math.isnan(self.since) else self.since
            verb(row)

    def _run_train(self, row: Row) -> None:
        """All ranks have loaded their state; a step comes next."""
        self._spend(
            row, "idle" if self.doing == "work" else self.doing
        )  # work that ended without a word
        self.step, self.doing = float(row["step"]), "restart"

    def _run_step(self, row: Row) -> None:
        self.pace = float(row["step_seconds"])
        self._work(row, float(row["step"]))

    def _run_checkpoint(self, row: Row) -> None:
        self.ledger.saves += 1
        self._work(row, float(row["step"]), float(row.get("seconds", 0.0)))

    def _run_stopped(self, row: Row) -> None:
        self._spend(row, "checkpoint")
        self.doing = "restart"

    def _run_validation(self, row: Row) -> None:
        self._spend(row, "idle")
        self.doing = "idle"

    def _watch_watch(self, row: Row) -> None:
        """`resumed` is a new watcher over ranks that go on."""
        if row["state"] != "resumed":
            self._spend(row, "idle" if self.doing == "work" else self.doing)
            self.doing = "restart" if row["state"] == "started" else "idle"

    def _watch_fault(self, row: Row) -> None:
        self.ledger.faults[row["kind"]] += 1
        silent = min(float(row.get("silent_seconds") or 0.0), float(row["time"]) - self.since)
        if self.doing == "work":
            self._work(row, max(self.step, float(row.get("step") or 0)), silent, "detection")
        else:
            self._until(float(row["time"]) - silent, self.doing)
            self._until(float(row["time"]), "detection")
        if self.doing != "detection":
            self.before, self.doing = self.doing, "detection"

    def _watch_decided(self, row: Row) -> None:
        self._spend(row, self.doing)
        if row["action"] == "give_up" or row["attempt"] == self.attempt:  # nobody is started
            self.doing = "idle" if row["action"] == "give_up" else self.before
            return
        self.doing, self.attempt = "restart", int(row["attempt"])
        self.ledger.stops += row["action"] != "resize"
        self.used = int(row.get("world") or self.used)
        self.held = self.used if row["action"] == "resize" else max(self.held, self.used)

    def _watch_resumed(self, row: Row) -> None:
        """The first step of an attempt is done."""
        self._work(row, float(row["step"]))

    def _work(
        self, row: Row, step: float, other_seconds: float = 0.0, other: str = "checkpoint"
    ) -> None:
        """Steps up to `step` since the last event, and `other_seconds` at the end. Ranks that were starting started first."""
        time = float(row["time"]) - self.since
        other_seconds = min(other_seconds, time)
        work = time - other_seconds
        if self.doing == "restart":
            work = min(work, max(0.0, step - self.step) * self.pace)
        high = self.ledger.steps
        again = (
            (min(step, high) - self.step) / (step - self.step)
            if step > self.step
            else float(step < high)
        )
        again = min(1.0, max(0.0, again))
        self.ledger.steps_again += max(0, int(min(step, high) - self.step))
        self.ledger.steps = max(high, int(step))
        now = self.since + time - other_seconds
        self._until(now - work, self.doing)
        self._until(now - work * (1 - again), "recomputed")
        self._until(now, "productive")
        self._until(float(row["time"]), other)
        self.step, self.doing = step, "work"

    def _spend(self, row: Row, part: str) -> None:
        """All of the time since the last event on one part."""
        self._until(float(row["time"]), part)

    def _until(self, time: float, part: str) -> None:
        seconds = max(0.0, time - self.since)
        part = "productive" if part == "work" else part
        self.ledger.seconds[part] += seconds
        self.ledger.start_seconds += seconds * (part == "restart" and not self.ledger.stops)
        self.ledger.accelerator_seconds[part] += seconds * self.used
        self.ledger.accelerator_seconds["idle"] += seconds * (self.held - self.used)
        self.since = max(self.since, time)
