"""A profile of your own accelerator from short runs, and predicted against actual of any run.

A single process on one accelerator (a CPU here, a GPU elsewhere) takes

    step_seconds = matmul FLOPs / rate + elementwise bytes / rate + optimizer bytes / rate
                   + launches x time + fixed
    peak_bytes   = fixed + a x weights + b x activations

All rates are fitted at once, never below zero, to the observations of `measurement`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen, Mla, Shape
from tumen.fit import nonnegative
from tumen.fit.stored import load, store
from tumen.plan.accuracy.measurement import Observation, observed
from tumen.plan.model.scenario import Array
from tumen.recipe import Train

TIME_TERMS = ("matmul_flops", "elementwise_bytes", "optimizer_bytes", "launches", "fixed")
MEMORY_TERMS = ("fixed", "weight_bytes", "activation_bytes")
# Rates of a generic core: a fit is pulled to them lightly, where no observation tells otherwise.
PRIOR_SECONDS = (1 / 5e10, 1 / 5e9, 1 / 5e9, 2e-4, 5e-3)
PRIOR_BYTES = (4e8, 1.0, 1.0)
STATE_BYTES = 16  # of a weight: fp32 weight, gradient and two moments
OPTIMIZER_BYTES = 40.0  # moved for a weight in one step
ELEMENT_BYTES = 4.0  # fp32
# kernel launches of one layer, and of one expert
LATENT_LAUNCHES = 40
GROUPED_LAUNCHES = 28
EXPERT_LAUNCHES = 12
NEWTON_SCHULZ_ROUNDS = 5.0  # of Muon


class Profile(Frozen):
    """The fitted rates of one machine, with the runs they come from."""

    schema_version: int = 1
    card: str
    machine: str
    made: str
    sources: tuple[str, ...]
    compiled: bool
    seconds_per: dict[str, float]
    bytes_per: dict[str, float]
    rates: dict[str, float]
    speed: float = 1.0
    memory_bytes: float = 0.0
    fit_error: float
    fit_memory_error: float


class Actual(Frozen):
    """Predicted and measured step time and memory of one tier."""

    tier: str
    predicted_seconds: float
    actual_seconds: float
    predicted_bytes: float
    actual_bytes: float

    def line(self) -> str:
        """Return the comparison in one line."""
        slower = self.actual_seconds / self.predicted_seconds - 1
        larger = self.actual_bytes / self.predicted_bytes - 1
        return (
            f"{self.tier}: step {self.predicted_seconds:.3f} s predicted, "
            f"{self.actual_seconds:.3f} s actual ({slower:+.0%}); "
            f"memory {self.predicted_bytes / 1e9:.2f} GB predicted, "
            f"{self.actual_bytes / 1e9:.2f} GB actual ({larger:+.0%})"
        )


# ---------------------------------------------------------------------- terms


def time_terms(shape: Shape, train: Train) -> Array:
    """Return the work of one step by TIME_TERMS: FLOPs, bytes, bytes, launches, one; shape (5,)."""
    tokens = train.batch_size * train.seq_len
    context = train.seq_len  # masked scores are computed in full
    flops = 3.0 * tokens * shape.flops_per_token(context)
    if train.optimizer == "muon":
        flops += orthogonal_flops(shape)
    moved = ELEMENT_BYTES * tokens * elements_moved(shape, context)
    states = OPTIMIZER_BYTES * shape.parameters()
    return np.array([flops, moved, states, launches_of(shape), 1.0])


def elements_moved(shape: Shape, context: int) -> float:
    """Return the elements that elementwise operators move for one token, forward and backward."""
    heads = shape.attention.num_attention_heads
    inner = shape.intermediate_size
    if shape.experts:
        active = shape.experts.num_experts_per_tok + shape.experts.n_shared_experts
        inner = active * shape.experts.moe_intermediate_size
    queries = heads * shape.attention.query_dim
    scores = heads * context
    layer = 16.0 * shape.hidden_size + 6.0 * queries + 5.0 * inner + 4.0 * scores
    return shape.num_hidden_layers * layer + 6.0 * shape.vocab_size


def launches_of(shape: Shape) -> float:
    """Return the kernel launches of one step."""
    of_layer = GROUPED_LAUNCHES
    if isinstance(shape.attention, Mla):
        of_layer = LATENT_LAUNCHES
    launches = shape.num_hidden_layers * of_layer
    if shape.experts:
        launches += shape.moe_layers * shape.experts.n_routed_experts * EXPERT_LAUNCHES
    return float(launches)


def orthogonal_flops(shape: Shape) -> float:
    """Return the FLOPs of Muon's Newton-Schulz rounds on every matrix of the blocks.

    4 r^2 c + 2 r^3 each, r the shorter side (arXiv 2502.16982, section 2.1).
    """
    tables = 1 if shape.tie_word_embeddings else 2
    ends = shape.vocab_size * shape.hidden_size * tables
    inner = shape.intermediate_size
    if shape.experts:
        inner = shape.experts.moe_intermediate_size
    short = min(shape.hidden_size, inner)
    return NEWTON_SCHULZ_ROUNDS * (shape.parameters() - ends) * 5.0 * short


def memory_terms(shape: Shape, train: Train) -> Array:
    """Return what memory grows with by MEMORY_TERMS, in bytes; shape (3,)."""
    tokens = train.batch_size * train.seq_len
    activations = ELEMENT_BYTES * tokens * elements_kept(shape, train.seq_len)
    states = float(STATE_BYTES * shape.parameters())
    return np.array([1.0, states, activations])


def elements_kept(shape: Shape, context: int) -> float:
    """Return the elements that one token keeps for the backward pass."""
    heads = shape.attention.num_attention_heads
    inner = 3.0 * shape.intermediate_size
    if shape.experts:
        # an expert's buffer has room for more tokens than it gets on average
        routed = shape.experts.num_experts_per_tok * shape.experts.capacity_factor
        active = routed + shape.experts.n_shared_experts
        inner = 3.0 * active * shape.experts.moe_intermediate_size
    queries = heads * shape.attention.query_dim
    scores = heads * context
    layer = 8.0 * shape.hidden_size + 4.0 * queries + inner + scores
    return shape.num_hidden_layers * layer + 3.0 * shape.vocab_size


# ---------------------------------------------------------------------- profiles


def calibrate(observations: Sequence[Observation], card: str = "cpu") -> Profile:
    """Fit a profile to observations of one machine.

    Args:
        observations: at least one measured run.
        card: name of the accelerator in the card table.

    Raises:
        PlanError: there are no observations.
    """
    if not observations:
        raise PlanError(
            "nothing was measured; give the folder of a run with --events, or let the benchmark run"
        )
    seconds = np.array([seen.step_seconds for seen in observations])
    work = np.array([time_terms(seen.shape, seen.train) for seen in observations])
    times = nonnegative(work, seconds, np.array(PRIOR_SECONDS))
    sizes = np.array([seen.peak_bytes for seen in observations])
    kept = np.array([memory_terms(seen.shape, seen.train) for seen in observations])
    bytes_ = nonnegative(kept, sizes, np.array(PRIOR_BYTES))
    return Profile(
        card=card,
        machine=machine_name(),
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        sources=tuple(seen.source for seen in observations),
        compiled=all(seen.train.compile for seen in observations),
        seconds_per=named(TIME_TERMS, times),
        bytes_per=named(MEMORY_TERMS, bytes_),
        rates={
            "bf16_flops": rate_of_term(times, 0),
            "best_matmul": 1.0,
            "memory_rate": rate_of_term(times, 1),
        },
        memory_bytes=memory_of_machine() if card == "cpu" else 0.0,
        fit_error=median_error(work @ times, seconds),
        fit_memory_error=median_error(kept @ bytes_, sizes),
    )


def median_error(predicted: Array, measured: Array) -> float:
    """Return the median error of predictions, as a share."""
    errors = np.abs(predicted / measured - 1)
    return float(np.median(errors))


def machine_name() -> str:
    """Return the processor of this machine, and how many cores this process may use."""
    processor = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores"


def named(terms: Sequence[str], values: Array) -> dict[str, float]:
    """Return values by the names of their terms."""
    return dict(zip(terms, map(float, values), strict=True))


def rate_of_term(seconds_per: Array, term: int) -> float:
    """Return a rate from seconds a unit; the prior where the fit found none.

    Args:
        seconds_per: fitted seconds of a unit of each term.
        term: place of the term in TIME_TERMS.
    """
    seconds = float(seconds_per[term])
    if seconds <= 0:
        seconds = PRIOR_SECONDS[term]
    return 1.0 / seconds


def memory_of_machine() -> float:
    """Return the bytes of the machine's memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def uncalibrated() -> Profile:
    """Return the profile of a generic core: good for the order of magnitude, no more."""
    return Profile(
        card="cpu",
        machine="a generic core",
        made="",
        sources=(),
        compiled=False,
        seconds_per=named(TIME_TERMS, np.array(PRIOR_SECONDS)),
        bytes_per=named(MEMORY_TERMS, np.array(PRIOR_BYTES)),
        rates={},
        fit_error=1.0,
        fit_memory_error=1.0,
    )


def predict(profile: Profile, shape: Shape, train: Train) -> tuple[float, float]:
    """Return (step seconds, peak bytes) of a run on the profiled machine.

    Args:
        profile: of the machine.
        shape: of the network.
        train: its training section.
    """
    seconds_per = np.array([profile.seconds_per[name] for name in TIME_TERMS])
    bytes_per = np.array([profile.bytes_per[name] for name in MEMORY_TERMS])
    seconds = time_terms(shape, train) @ seconds_per
    size = memory_terms(shape, train) @ bytes_per
    return float(seconds), float(size)


def store_profile(profile: Profile, path: Path) -> None:
    """Write a profile; raises as `tumen.fit.stored.store` does."""
    store(profile, path)


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        PlanError: the file is missing or damaged.
    """
    return load(Profile, path, "calibration profile", "tumen plan calibrate")


def actual(run: Path, profile: Profile) -> list[Actual]:
    """Return predicted against actual for every tier of a run.

    Raises:
        InputError: the run has no recipe or no steps.
    """
    found = []
    for seen in observed(run):
        seconds, size = predict(profile, seen.shape, seen.train)
        found.append(
            Actual(
                tier=seen.source.rpartition("/")[2],
                predicted_seconds=seconds,
                actual_seconds=seen.step_seconds,
                predicted_bytes=size,
                actual_bytes=seen.peak_bytes,
            )
        )
    return found
