"""What the ranks of an attempt said last, as columns: ten thousand of them are looked at in one go."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

import numpy as np

from tumen.heartbeat import HEARTBEAT_STRUCT, PHASES

BEATS = np.dtype(
    [
        ("rank", "<u4"),
        ("attempt", "<u4"),
        ("pid", "<u4"),
        ("step", "<u4"),
        ("step_seconds", "<f4"),
        ("phase", "u1"),
        ("waiting", "<f4"),
        ("loss", "<f4"),
        ("age_ms", "<u8"),
    ]
)
assert BEATS.itemsize == HEARTBEAT_STRUCT.size
TRAIN = PHASES.index("train")

# Seconds without a beat, and without any progress, that each phase may take; three steps at least (LEAST_STEPS). A start is
# imports from a disk that thousands share, and nobody beats yet; the first step of an attempt may compile. A process that is
# stopped (SIGSTOP) is told by its agent, in every phase.
SILENT = {"start": 600.0, "load": 60.0, "train": 5.0, "save": 5.0, "end": 5.0}
STUCK = {"start": 900.0, "load": 1800.0, "train": 5.0, "save": 900.0, "end": 1800.0}
FIRST_STEP_SECONDS = 1800.0
LEAST_STEPS = 3.0
MISSED_SECONDS = 2.5  # two beats that did not come: where a run is stuck, this rank is why
SLOW, SLOW_STEPS, USUAL_STEPS = (
    1.5,
    4,
    12,
)  # times the usual step, for so many looks, after so many to know the usual
IDLE, BUSY = (
    0.25,
    0.5,
)  # of their time: what others wait at least for a slow rank; its own waiting beside theirs


class RankTable:
    """Ranks of one attempt. Times are in seconds of the watcher's clock."""

    def __init__(self, now: float, world: int, usual: Sequence[float] = ()) -> None:
        self.world = world
        self.heard = np.full(world, now)
        self.step = np.zeros(world, np.int64)
        self.phase = np.zeros(world, np.uint8)
        self.waiting = np.full(world, np.nan, np.float32)
        self.pid = np.zeros(world, np.int64)
        self.moved = now  # when anything last went on
        self.first: int | None = None  # steps done when this attempt began to train
        self.last = -1
        self.ticks = 0  # steps seen in this attempt
        self.usual = deque(usual, maxlen=200)  # seconds of a step, over all attempts
        self.recent: deque[float] = deque(maxlen=SLOW_STEPS)
        self.latest = 0.0

    def hear(self, now: float, body: bytes) -> None:
        """Take packed beats, of which the older may be stale."""
        rows = np.frombuffer(body, BEATS)
        rows = rows[rows["rank"] < self.world]
        who = rows["rank"]
        if ((rows["step"] != self.step[who]) | (rows["phase"] != self.phase[who])).any():
            self.moved = now
        self.heard[who] = np.maximum(self.heard[who], now - rows["age_ms"] / 1000.0)
        self.step[who], self.phase[who], self.waiting[who], self.pid[who] = (
            rows["step"],
            rows["phase"],
            rows["waiting"],
            rows["pid"],
        )
        training = rows[rows["phase"] == TRAIN]
        if training.size:
            self._count(training)

    def _count(self, training: np.ndarray) -> None:
        """Learn how long a step takes; the first two of an attempt warm up."""
        newest = int(training["step"].max())
        if self.first is None:
            self.first = self.last = newest
        if newest <= self.last:
            return
        self.last, self.ticks = newest, self.ticks + 1
        seconds = (
            float(np.nanmedian(training["step_seconds"]))
            if not np.isnan(training["step_seconds"]).all()
            else 0.0
        )
        self.latest = seconds
        if seconds <= 0 or self.ticks <= 2:
            return
        if len(self.recent) == SLOW_STEPS:
            self.usual.append(self.recent[0])
        self.recent.append(seconds)

    @property
    def steps(self) -> int:
        """The furthest step that is done."""
        return int(self.step.max(initial=0))

    @property
    def stepped(self) -> bool:
        """Whether a step was done in this attempt."""
        return self.ticks > 0

    def step_seconds(self) -> float:
        """The usual seconds of a step, 0 before any is known."""
        known = [*self.usual, *self.recent]
        return statistics.median(known) if known else self.latest

    def usual_seconds(self) -> float:
        """The same of steps that nobody held up; 0 before enough of them are known to call another slow."""
        return statistics.median(self.usual) if len(self.usual) >= USUAL_STEPS else 0.0

    def silent(self, now: float) -> int | None:
        """The rank that has been silent too long, the longest if there are several."""
        patience = np.array([self._patience(SILENT, phase) for phase in PHASES])
        over = (now - self.heard) - patience[self.phase]
        worst = int(over.argmax())
        return worst if over[worst] > 0 else None

    def stuck(self, now: float) -> int | None:
        """Where nothing goes on: the rank that looks like the cause, -1 when all look the same; None while it goes on."""
        patience = max(self._patience(STUCK, PHASES[phase]) for phase in np.unique(self.phase))
        if not self.stepped and (self.phase == TRAIN).all():
            patience = FIRST_STEP_SECONDS
        if now - self.moved <= patience:
            return None
        quiet = int((now - self.heard).argmax())
        if now - self.heard[quiet] > MISSED_SECONDS:
            return quiet
        alone = self._never_waits()
        return -1 if alone is None else alone

    def slow(self) -> int | None:
        """The rank for which the others wait, when steps have become slow; None when they are not, or nobody stands out."""
        usual = self.usual_seconds()
        if not usual or len(self.recent) < SLOW_STEPS or min(self.recent) <= SLOW * usual:
            return None
        return self._never_waits()

    def _never_waits(self) -> int | None:
        """The one rank that never waits while the others do."""
        if self.world < 2 or np.isnan(self.waiting).any():
            return None
        order = np.argsort(self.waiting)
        first, second = (float(self.waiting[order[i]]) for i in (0, 1))
        return int(order[0]) if second >= IDLE and first <= BUSY * second else None

    def _patience(self, table: dict[str, float], phase: str) -> float:
        return max(table[phase], LEAST_STEPS * self.step_seconds())
