"""What a run reports: progress, utilisation, expert load and memory, and the guards on its loss."""

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
from tumen.core.shape import EncoderShape, Shape
from tumen.data import Batch, Loader
from tumen.recipe import Train
from tumen.train.optimizer import rate_at
from tumen.train.single_process import Trainer
from tumen.train.world import World, name_of, type_of

LOG_EVERY = 10
WINDOW = 100  # losses that the median is over
ENOUGH = 20  # losses before the guard begins
# Least deviation, of the median: a loss that hardly moves must not stop at its first move.
LEAST_DEVIATION = 0.01
PEAK_STEPS = 50  # a run of fewer steps is too short to measure the peak for
PEAK_SECONDS = 0.3  # no matmul begins later than this
PEAK_TIMES = 5  # matmuls of each size
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
            f"step {step}: loss {loss}, gradient norm {norm}; "
            f"samples {named(batch)} of the training shard. Lower train.learning_rate, "
            "or look at these samples; the last checkpoint is intact",
        )


def named(batch: Batch) -> str:
    """The first samples of a step."""
    return ", ".join(map(str, batch.samples[:8].tolist())) + " ..."


class Spikes:
    """Stops a run whose loss leaps.

    The limit is the median of the last `WINDOW` steps plus `train.spike` median absolute
    deviations. The guard begins after warm-up. Checkpoints do not hold the losses: a resumed run
    collects `ENOUGH` new ones first, and its weights are the same in any case.
    """

    def __init__(self, section: Train) -> None:
        self.threshold = section.spike
        self.first = round(section.warmup * section.steps)
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def guard(self, loss: float, step: int, batch: Batch) -> None:
        """Check the loss of a step; call it on every rank.

        Raises:
            LossError: with the step, its loss, the usual one, and its sample ids.
        """
        if self.threshold and step >= self.first and len(self.losses) >= ENOUGH:
            self._refuse_leap(loss, step, batch)
        self.losses.append(loss)

    def _refuse_leap(self, loss: float, step: int, batch: Batch) -> None:
        usual = statistics.median(self.losses)
        deviation = statistics.median(abs(one - usual) for one in self.losses)
        least = LEAST_DEVIATION * usual
        if loss > usual + self.threshold * max(deviation, least):
            raise LossError(
                "spike",
                step,
                f"step {step}: loss {loss:.4f} leaps, {usual:.4f} (give or take {deviation:.4f}) "
                f"is usual; samples {named(batch)} of the training shard. "
                "Lower train.learning_rate, look at these samples, or raise train.spike "
                f"{self.threshold:g}; the last checkpoint is intact",
            )


def step_flops(section: Train, shape: Shape | EncoderShape) -> int:
    """Model FLOPs of a step: 3 x forward, as the backward pass costs twice the forward pass.

    Counted as in PaLM (arXiv 2204.02311, appendix B): matmuls and attention over the whole row,
    nothing for recomputation. Padding counts like tokens, as in `tokens_per_second`; `real_tokens`
    counts without it.
    """
    tokens = section.batch_size * section.seq_len
    return 3 * shape.flops_per_token(section.seq_len) * tokens


def measured_peak(section: Train, device: torch.device) -> float:
    """FLOPs a second of square matmuls on this device, in the training's precision and threads.

    The fastest of a few of each size, as other processes only ever add to a time. Small sizes come
    first: a CPU that emulates bf16 gets slower with the size. Uses no random generator.
    """
    dtype = type_of(section, device)
    best = 0.0
    start = time.perf_counter()
    for side in PEAK_SIDES[device.type]:
        numbers = torch.arange(side * side, device=device).sin()
        square = numbers.view(side, side).to(dtype)
        seconds: list[float] = []
        while len(seconds) < PEAK_TIMES:
            late = time.perf_counter() - start > PEAK_SECONDS
            if best and late:
                break
            seconds.append(_matmul_seconds(square))
        later = seconds[1:]  # the first one builds its kernel
        if later:
            best = max(best, 2 * side**3 / min(later))
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
        self,
        events: Events,
        section: Train,
        shape: Shape | EncoderShape,
        world: World,
        step: int,
        tier: str,
    ) -> None:
        self.events = events
        self.section = section
        self.tier = tier
        self.flops = step_flops(section, shape)
        self.peak = 0.0
        self.seconds: list[float] = []
        events.emit("train", tier=tier, step=step, steps=section.steps)
        if section.steps - step >= PEAK_STEPS:
            # All ranks measure at once, as they train at once.
            self.peak = sum(world.gather(measured_peak(section, world.device)))
            events.emit(
                "peak",
                tier=tier,
                flops_per_second=round(self.peak),
                ranks=world.size,
                precision=name_of(type_of(section, world.device)),
            )
        now = time.perf_counter()
        self.start = now
        self.last = now
        self.ticked = now
        self.last_step = step

    def tick(
        self, step: int, loss: float, norm: float, trainer: Trainer, loader: Loader, batch: Batch
    ) -> None:
        """Count a finished step and emit progress now and then; call it on every rank."""
        self.ticked = time.perf_counter()
        if step % LOG_EVERY and step != self.section.steps:
            return
        now = time.perf_counter()
        step_seconds = (now - self.last) / (step - self.last_step)
        self.seconds.append(step_seconds)
        self.last = now
        self.last_step = step
        tokens = self.section.batch_size * self.section.seq_len
        usual = float(np.median(self.seconds[-20:]))
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
            seconds_left=round((self.section.steps - step) * usual, 1),
            peak_bytes=peak_bytes(),
            seen=loader.seen,
            **self._utilisation(step_seconds),
            **load_facts(trainer.loads()),
        )

    def _utilisation(self, step_seconds: float) -> dict[str, float]:
        """Model FLOPs utilisation over the measured peak of all ranks, where that is known."""
        if not self.peak:
            return {}
        return {"mfu": round(self.flops / step_seconds / self.peak, 4)}

    def pause(self, event: str, step: int, **facts: Any) -> None:
        """Report work since the last step, such as a checkpoint; it is not step time."""
        seconds = round(time.perf_counter() - self.ticked, 4)
        self.events.emit(event, tier=self.tier, step=step, seconds=seconds, **facts)
        self.last_step = step
        self.last = time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """Facts for the manifest."""
        tokens = self.section.batch_size * self.section.seq_len
        facts: dict[str, Any] = {
            "steps": self.section.steps,
            "tokens": tokens * self.section.steps,
            "seconds_here": round(time.perf_counter() - self.start, 1),
            "tokens_per_second": 0,
            "peak_bytes": peak_bytes(),
        }
        if self.seconds:
            median = float(np.median(self.seconds))
            facts["tokens_per_second"] = round(tokens / median)
            facts |= self._utilisation(median)
        return facts


def real_tokens(batch: Batch) -> int:
    """Tokens of the whole step, over all ranks, without padding."""
    # Every example has one token more than targets.
    return batch.totals.answers + batch.totals.sentences + len(batch.samples)


def load_facts(loads: Tensor | None) -> dict[str, float]:
    """The load of the fullest expert over the mean, and the share of dropped tokens.

    Args:
        loads: tokens routed to each expert, and drops (mixtures, E + 1); None for a dense network.
    """
    if loads is None:
        return {}
    chosen = loads[:, :-1]
    dropped = loads[:, -1]
    mean = chosen.mean(dim=1).clamp(min=1e-9)
    fullest = (chosen.amax(dim=1) / mean).max()
    return {
        "expert_load": round(float(fullest), 3),
        "dropped": round(float(dropped.sum() / chosen.sum().clamp(min=1)), 5),
    }


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes (Linux reports kB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
