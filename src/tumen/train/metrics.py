"""What a run says of itself: progress in events, expert load, memory, and the guard that stops what has gone wrong."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from torch import Tensor

from tumen.core import Events, TrainError
from tumen.core.recipe import Train
from tumen.data import Batch, Loader
from tumen.train.alone import Learner
from tumen.train.optimizer import rate_at

LOG_EVERY = 10


def guard(loss: float, norm: float, step: int, batch: Batch) -> None:
    """Stop at a loss or gradient that is not a number, naming the samples.

    Raises:
        TrainError: with the step and its sample ids.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        names = ", ".join(map(str, batch.samples[:8].tolist()))
        raise TrainError(
            f"step {step}: loss {loss}, gradient norm {norm}; samples {names} ... of the training shard. "
            "Lower train.rate, or look at these samples; the last checkpoint is intact"
        )


def epochs(loader: Loader) -> float:
    """Passes over the data so far."""
    return loader.epoch + loader.row / max(1, loader.rows_per_epoch())


class Clock:
    """Progress in events: loss, rate, tokens a second, seconds left."""

    def __init__(self, events: Events, section: Train, step: int, tier: str) -> None:
        self.events, self.section, self.tier = events, section, tier
        self.first, self.start = step, time.perf_counter()
        self.last_step, self.last = step, self.start
        self.seconds: list[float] = []
        events.emit("train", tier=tier, step=step, steps=section.steps)

    def tick(self, step: int, loss: float, norm: float, learner: Learner, loader: Loader) -> None:
        """After a step, on every rank."""
        if step % LOG_EVERY and step != self.section.steps:
            return
        now = time.perf_counter()
        step_seconds = (now - self.last) / (step - self.last_step)
        self.seconds.append(step_seconds)
        self.last, self.last_step = now, step
        tokens = self.section.rows * self.section.row_tokens
        self.events.emit(
            "step",
            tier=self.tier,
            step=step,
            steps=self.section.steps,
            loss=round(loss, 4),
            gradient_norm=round(norm, 4),
            rate=rate_at(self.section, step - 1),
            tokens=tokens,
            step_seconds=round(step_seconds, 4),
            tokens_per_second=round(tokens / step_seconds),
            seconds_left=round((self.section.steps - step) * float(np.median(self.seconds[-20:])), 1),
            peak_bytes=peak_bytes(),
            seen=loader.seen,
            **load_facts(learner.loads()),
        )

    def pause(self, event: str, step: int, **facts: Any) -> None:
        """Something that is not a step: it does not count into the step time."""
        self.events.emit(event, tier=self.tier, step=step, **facts)
        self.last_step, self.last = step, time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        tokens = self.section.rows * self.section.row_tokens
        median = float(np.median(self.seconds)) if self.seconds else 0.0
        return {
            "steps": self.section.steps,
            "tokens": tokens * self.section.steps,
            "seconds_here": round(time.perf_counter() - self.start, 1),
            "tokens_per_second": round(tokens / median) if median else 0,
            "peak_bytes": peak_bytes(),
        }


def load_facts(loads: Tensor | None) -> dict[str, float]:
    """How evenly experts are used: loads (mixtures, E + 1) -> the fullest expert over the mean, and the share that was dropped."""
    if loads is None:
        return {}
    chosen, dropped = loads[:, :-1], loads[:, -1]
    fullest = (chosen.amax(dim=1) / chosen.mean(dim=1).clamp(min=1e-9)).max()
    return {"expert_load": round(float(fullest), 3), "dropped": round(float(dropped.sum() / chosen.sum().clamp(min=1)), 5)}


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes (Linux reports kB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
