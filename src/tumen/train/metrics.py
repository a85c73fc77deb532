"""What a run says of itself: progress in events, utilisation, expert load, memory, and the guards that stop what has gone wrong."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tumen.core.errors import LossError
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.data import Batch, Loader
from tumen.recipe import Train
from tumen.train.optimizer import rate_at
from tumen.train.single_process import Trainer
from tumen.train.world import World, name_of, type_of

LOG_EVERY = 10
WINDOW, ENOUGH = 100, 20  # losses that say what is usual, and how many of them it takes to say so
LEAST_DEVIATION = (
    0.01  # of the median: a loss that hardly moves is not to be stopped at its first move
)
PEAK_STEPS = 50  # fewer steps than this do not pay for measuring the peak
PEAK_SECONDS, PEAK_TIMES = 0.3, 5  # no matmul is begun after so long, and a size is given so many
PEAK_SIDES = {"cpu": (128, 256, 512, 1024), "cuda": (4096, 8192)}  # of square matrices


def guard(loss: float, norm: float, step: int, batch: Batch) -> None:
    """Stop at a loss or gradient that is not a number, naming the samples.

    Raises:
        LossError: with the step and its sample ids.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise LossError(
            "nan",
            step,
            f"step {step}: loss {loss}, gradient norm {norm}; samples {named(batch)} of the training shard. "
            "Lower train.learning_rate, or look at these samples; the last checkpoint is intact",
        )


def named(batch: Batch) -> str:
    """The first samples of a step."""
    return ", ".join(map(str, batch.samples[:8].tolist())) + " ..."


class Spikes:
    """Stops where the loss leaps: above the median of the last `WINDOW` steps by `train.spike` median absolute deviations.

    It watches once the rate has warmed up. What is usual is not kept in checkpoints: a resumed run learns it again in `ENOUGH`
    steps, and its weights are the same as ever.
    """

    def __init__(self, section: Train) -> None:
        self.threshold = section.spike
        self.first = round(section.warmup * section.steps)
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def guard(self, loss: float, step: int, batch: Batch) -> None:
        """After a step, on every rank.

        Raises:
            LossError: with the step, its loss, the usual one, and its sample ids.
        """
        if self.threshold and step >= self.first and len(self.losses) >= ENOUGH:
            usual = statistics.median(self.losses)
            deviation = statistics.median(abs(one - usual) for one in self.losses)
            if loss > usual + self.threshold * max(deviation, LEAST_DEVIATION * usual):
                raise LossError(
                    "spike",
                    step,
                    f"step {step}: loss {loss:.4f} leaps, {usual:.4f} (give or take {deviation:.4f}) is usual; samples "
                    f"{named(batch)} of the training shard. Lower train.learning_rate, look at these samples, or raise train.spike "
                    f"{self.threshold:g}; the last checkpoint is intact",
                )
        self.losses.append(loss)


def step_flops(section: Train, shape: Shape) -> int:
    """Model FLOPs of a step: 3 x forward (the backward pass is twice the forward pass) for rows x row_tokens tokens.

    As PaLM counts them (arXiv 2204.02311, appendix B): matmuls and attention over the whole row, nothing for recomputation. A
    padded place counts like a token, as in `tokens_per_second`; `real_tokens` says how many were real.
    """
    return 3 * shape.flops_per_token(section.seq_len) * section.batch_size * section.seq_len


def measured_peak(section: Train, device: torch.device) -> float:
    """FLOPs a second of square matmuls on this card, in the training's precision and threads.

    The fastest of a few of each size, as other processes only ever add to a time; small ones first, as a CPU without bf16 of its
    own gets slower the larger they are. Draws nothing from a random generator.
    """
    dtype = type_of(section, device)
    best = 0.0
    start = time.perf_counter()
    for side in PEAK_SIDES[device.type]:
        square = torch.arange(side * side, device=device).sin().view(side, side).to(dtype)
        seconds: list[float] = []
        while len(seconds) < PEAK_TIMES and not (
            best and time.perf_counter() - start > PEAK_SECONDS
        ):
            seconds.append(_matmul_seconds(square))
        if seconds[1:]:  # the first one builds its kernel
            best = max(best, 2 * side**3 / min(seconds[1:]))
    return best


def _matmul_seconds(square: Tensor) -> float:
    start = time.perf_counter()
    square @ square
    if square.is_cuda:  # not run here
        torch.cuda.synchronize()
    return time.perf_counter() - start


def epochs(loader: Loader) -> float:
    """Passes over the data so far."""
    return loader.epoch + loader.row / max(1, loader.rows_per_epoch())


class Clock:
    """Progress in events: loss, rate, tokens a second, utilisation, seconds left."""

    def __init__(
        self, events: Events, section: Train, shape: Shape, world: World, step: int, tier: str
    ) -> None:
        self.events = events
        self.section = section
        self.tier = tier
        self.flops = step_flops(section, shape)
        self.peak = 0.0
        self.seconds: list[float] = []
        events.emit("train", tier=tier, step=step, steps=section.steps)
        if section.steps - step >= PEAK_STEPS:
            self.peak = sum(
                world.gather(measured_peak(section, world.device))
            )  # all at once, as they train
            events.emit(
                "peak",
                tier=tier,
                flops_per_second=round(self.peak),
                ranks=world.size,
                precision=name_of(type_of(section, world.device)),
            )
        self.start = self.last = self.ticked = time.perf_counter()
        self.last_step = step

    def tick(
        self, step: int, loss: float, norm: float, trainer: Trainer, loader: Loader, batch: Batch
    ) -> None:
        """After a step, on every rank."""
        self.ticked = time.perf_counter()
        if step % LOG_EVERY and step != self.section.steps:
            return
        now = time.perf_counter()
        step_seconds = (now - self.last) / (step - self.last_step)
        self.seconds.append(step_seconds)
        self.last = now
        self.last_step = step
        tokens = self.section.batch_size * self.section.seq_len
        self.events.emit(
            "step",
            tier=self.tier,
            step=step,
            steps=self.section.steps,
            loss=round(loss, 4),
            gradient_norm=round(norm, 4),
            rate=rate_at(self.section, step - 1),
            tokens=tokens,
            real_tokens=real_tokens(batch),
            step_seconds=round(step_seconds, 4),
            tokens_per_second=round(tokens / step_seconds),
            seconds_left=round(
                (self.section.steps - step) * float(np.median(self.seconds[-20:])), 1
            ),
            peak_bytes=peak_bytes(),
            seen=loader.seen,
            **self._utilisation(step_seconds),
            **load_facts(trainer.loads()),
        )

    def _utilisation(self, step_seconds: float) -> dict[str, float]:
        """Model FLOPs utilisation over the measured peak of all ranks, where that is known."""
        if self.peak:
            return {"mfu": round(self.flops / step_seconds / self.peak, 4)}
        return {}

    def pause(self, event: str, step: int, **facts: Any) -> None:
        """Something that is not a step, since the last one: it does not count into the step time."""
        self.events.emit(
            event,
            tier=self.tier,
            step=step,
            seconds=round(time.perf_counter() - self.ticked, 4),
            **facts,
        )
        self.last_step = step
        self.last = time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        tokens = self.section.batch_size * self.section.seq_len
        if self.seconds:
            median = float(np.median(self.seconds))
        else:
            median = 0.0
        return {
            "steps": self.section.steps,
            "tokens": tokens * self.section.steps,
            "seconds_here": round(time.perf_counter() - self.start, 1),
            "tokens_per_second": round(tokens / median) if median else 0,
            "peak_bytes": peak_bytes(),
            **(self._utilisation(median) if median else {}),
        }


def real_tokens(batch: Batch) -> int:
    """Tokens of the whole step, over all ranks, without padding: every example has one token more than targets."""
    return batch.totals.answers + batch.totals.sentences + len(batch.samples)


def load_facts(loads: Tensor | None) -> dict[str, float]:
    """How evenly experts are used: loads (mixtures, E + 1) -> the fullest expert over the mean, and the share that was dropped."""
    if loads is None:
        return {}
    chosen = loads[:, :-1]
    dropped = loads[:, -1]
    fullest = (chosen.amax(dim=1) / chosen.mean(dim=1).clamp(min=1e-9)).max()
    return {
        "expert_load": round(float(fullest), 3),
        "dropped": round(float(dropped.sum() / chosen.sum().clamp(min=1)), 5),
    }


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes (Linux reports kB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
