"""The last heartbeat of every rank as numpy columns: ten thousand ranks are checked at once."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

import numpy as np

from tumen.heartbeat import HEARTBEAT_STRUCT, PHASES

# The same fields as `heartbeat.messages.HEARTBEAT_STRUCT`, which packs them.
HEARTBEATS = np.dtype(
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
assert HEARTBEATS.itemsize == HEARTBEAT_STRUCT.size
TRAIN = PHASES.index("train")

# Seconds that a phase may last without a heartbeat, and without any progress. Each is at least
# LEAST_STEPS steps. "start" is long: thousands of ranks import from one disk before their first
# heartbeat, and the first step of an attempt may compile. A stopped process (SIGSTOP) is reported
# by its agent in every phase, so it does not have to wait for these limits.
SILENT_SECONDS = {"start": 600.0, "load": 60.0, "train": 5.0, "save": 5.0, "end": 5.0}
STUCK_SECONDS = {"start": 900.0, "load": 1800.0, "train": 5.0, "save": 900.0, "end": 1800.0}
FIRST_STEP_SECONDS = 1800.0
LEAST_STEPS = 3.0
MISSED_SECONDS = 2.5  # two missing heartbeats: in a stuck run this rank is the likely cause

SLOW_FACTOR = 1.5  # a step is slow from this multiple of the usual step on
SLOW_STEPS = 4  # so many slow samples in a row make a slow run; one sample a second
USUAL_STEPS = 12  # samples before the usual step time is known
KEPT_STEPS = 200  # samples of the usual step time
WARM_UP_STEPS = 2  # the first steps of an attempt warm up and are not counted

# Shares of a rank's time in collectives. The other ranks wait at least IDLE_SHARE for a slow rank,
# which itself waits at most BUSY_RATIO of what they wait.
IDLE_SHARE = 0.25
BUSY_RATIO = 0.5


class RankTable:
    """The ranks of one attempt, and how long their steps usually take.

    Args:
        now: when the attempt began, in seconds of the watcher's clock, like all times here.
        world: number of ranks.
        usual: usual step times in seconds, learned in earlier attempts.
    """

    def __init__(self, now: float, world: int, usual: Sequence[float] = ()) -> None:
        self.world = world
        # one entry a rank: (world,)
        self.last_heartbeat = np.full(world, now)
        self.step = np.zeros(world, np.int64)
        self.phase = np.zeros(world, np.uint8)
        self.waiting = np.full(world, np.nan, np.float32)
        self.last_progress = now  # when any rank last changed its step or phase
        self.usual = deque(usual, maxlen=KEPT_STEPS)  # step seconds over all attempts
        self.recent: deque[float] = deque(maxlen=SLOW_STEPS)  # too new to be called usual
        self._newest_step: int | None = None  # None until the attempt trains
        self._steps_seen = 0
        self._latest_seconds = 0.0

    def update(self, now: float, body: bytes) -> None:
        """Take packed heartbeats. Ranks outside the table are ignored.

        Args:
            now: when they arrived; each heartbeat says how old it is.
            body: any number of HEARTBEATS, one after the other.
        """
        rows = np.frombuffer(body, HEARTBEATS)
        rows = rows[rows["rank"] < self.world]
        ranks = rows["rank"]
        if self._has_moved(rows):
            self.last_progress = now
        # A report may arrive after a newer one: never go back in time.
        sent = now - rows["age_ms"] / 1000.0
        self.last_heartbeat[ranks] = np.maximum(self.last_heartbeat[ranks], sent)
        self.step[ranks] = rows["step"]
        self.phase[ranks] = rows["phase"]
        self.waiting[ranks] = rows["waiting"]
        training = rows[rows["phase"] == TRAIN]
        if training.size:
            self._learn_step_time(training)

    def _has_moved(self, rows: np.ndarray) -> bool:
        """Whether a rank is at another step or in another phase than before."""
        ranks = rows["rank"]
        other_step = rows["step"] != self.step[ranks]
        other_phase = rows["phase"] != self.phase[ranks]
        return bool(other_step.any() or other_phase.any())

    def _learn_step_time(self, training: np.ndarray) -> None:
        """Note the step time of these ranks once for each new step."""
        newest = int(training["step"].max())
        if self._newest_step is None:
            self._newest_step = newest
        if newest <= self._newest_step:
            return
        self._newest_step = newest
        self._steps_seen += 1
        self._latest_seconds = _median(training["step_seconds"])
        if self._latest_seconds <= 0 or self._steps_seen <= WARM_UP_STEPS:
            return
        # A sample becomes usual only when SLOW_STEPS newer ones are there: a rank that has just
        # become slow must not change what it is compared with.
        if len(self.recent) == SLOW_STEPS:
            self.usual.append(self.recent[0])
        self.recent.append(self._latest_seconds)

    def mark_ended(self, rank: int) -> None:
        """Expect no more heartbeats of a rank."""
        self.last_heartbeat[rank] = math.inf

    @property
    def furthest_step(self) -> int:
        """The furthest step that any rank has finished."""
        return int(self.step.max(initial=0))

    @property
    def has_stepped(self) -> bool:
        """Whether a step was finished in this attempt."""
        return self._steps_seen > 0

    def step_seconds(self) -> float:
        """Return the median step time in seconds, 0 before any is known."""
        known = [*self.usual, *self.recent]
        if not known:
            return self._latest_seconds
        return statistics.median(known)

    def usual_seconds(self) -> float:
        """Return the median time of undisturbed steps, 0 before USUAL_STEPS of them are known."""
        if len(self.usual) < USUAL_STEPS:
            return 0.0
        return statistics.median(self.usual)

    def silent_rank(self, now: float) -> int | None:
        """Return the rank that exceeds its phase's silence limit most, None where none does."""
        limits = np.array([self._limit(SILENT_SECONDS, phase) for phase in PHASES])
        silent = now - self.last_heartbeat
        excess = silent - limits[self.phase]
        worst = int(excess.argmax())
        if excess[worst] <= 0:
            return None
        return worst

    def stuck_rank(self, now: float) -> int | None:
        """Return the likely cause when nothing progresses.

        Returns:
            None while the run progresses, -1 when it is stuck and all ranks look alike.
        """
        # The phase that may stand still longest sets the limit for all: ranks wait for each other.
        phases = [PHASES[phase] for phase in np.unique(self.phase)]
        limit = max(self._limit(STUCK_SECONDS, phase) for phase in phases)
        all_train = bool((self.phase == TRAIN).all())
        if all_train and not self.has_stepped:
            limit = FIRST_STEP_SECONDS
        if now - self.last_progress <= limit:
            return None
        silent = now - self.last_heartbeat
        quietest = int(silent.argmax())
        if silent[quietest] > MISSED_SECONDS:
            return quietest
        straggler = self._straggler()
        if straggler is None:
            return -1
        return straggler

    def slow_rank(self) -> int | None:
        """Return the rank that the others wait for, when steps have become slow."""
        usual = self.usual_seconds()
        if not usual or len(self.recent) < SLOW_STEPS:
            return None
        if min(self.recent) <= SLOW_FACTOR * usual:
            return None
        return self._straggler()

    def _straggler(self) -> int | None:
        """Return the one rank that hardly waits while all others do, None where there is none."""
        if self.world < 2 or np.isnan(self.waiting).any():
            return None
        by_waiting = np.argsort(self.waiting)
        first = int(by_waiting[0])
        least = float(self.waiting[first])
        second = float(self.waiting[by_waiting[1]])
        others_wait = second >= IDLE_SHARE
        if others_wait and least <= BUSY_RATIO * second:
            return first
        return None

    def _limit(self, seconds: dict[str, float], phase: str) -> float:
        """Return the limit of a phase in seconds, at least LEAST_STEPS usual steps.

        Args:
            seconds: phase -> limit in seconds.
            phase: of the ranks.
        """
        steps = LEAST_STEPS * self.step_seconds()
        return max(seconds[phase], steps)


def _median(seconds: np.ndarray) -> float:
    """Return the median of the known step times, 0 where none is known."""
    if np.isnan(seconds).all():
        return 0.0
    return float(np.nanmedian(seconds))
