"""Your own card: a few short runs become a profile, and every run after it gets a predicted-against-actual line.

A single process on one card (a CPU here, a GPU elsewhere) takes

    step_seconds = matmul flops / rate + elementwise bytes / rate + optimizer bytes / rate + launches x time + fixed
    peak_bytes   = fixed + a x weights + b x activations

The rates are fitted, all at once and never below zero, to observations: events of a run (`step` lines with
`step_seconds` and `peak_bytes`) or the micro-benchmark of the training room, started as a child process so that this
room never loads it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tumen.core.errors import InputError, PlanError
from tumen.core.events import read as read_events
from tumen.core.shape import Frozen, Mla, Shape
from tumen.core.stored import load, store
from tumen.fit import nonnegative
from tumen.plan.model.case import Array
from tumen.recipe import Recipe, Train, recipe_of

TIME_TERMS = ("matmul_flops", "elementwise_bytes", "optimizer_bytes", "launches", "fixed")
MEMORY_TERMS = ("fixed", "weight_bytes", "activation_bytes")
BENCHMARK = "tumen.train.calibrate"
BENCHMARK_SECONDS = 600
# What a rate is where no observation says otherwise: a generic core. A fit is pulled to it lightly.
PRIOR_SECONDS = (1 / 5e10, 1 / 5e9, 1 / 5e9, 2e-4, 5e-3)
PRIOR_BYTES = (4e8, 1.0, 1.0)
STATE_BYTES = 16  # fp32 weight, gradient and two moments


class Observation(Frozen):
    """One measured run: what was trained and what it took."""

    shape: Shape
    train: Train
    step_seconds: float
    peak_bytes: float
    source: str


class Profile(Frozen):
    """What was measured on one machine, with where it comes from."""

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
    """A run after the fact: what was predicted, what it took."""

    tier: str
    predicted_seconds: float
    actual_seconds: float
    predicted_bytes: float
    actual_bytes: float

    def line(self) -> str:
        """For people."""
        slower, larger = (
            self.actual_seconds / self.predicted_seconds - 1,
            self.actual_bytes / self.predicted_bytes - 1,
        )
        return (
            f"{self.tier}: step {self.predicted_seconds:.3f} s predicted, {self.actual_seconds:.3f} s actual "
            f"({slower:+.0%}); "
            f"memory {self.predicted_bytes / 1e9:.2f} GB predicted, {self.actual_bytes / 1e9:.2f} GB actual "
            f"({larger:+.0%})"
        )


def time_terms(shape: Shape, train: Train) -> Array:
    """Work of one step by kind, shape (5,): flops, bytes, bytes, launches, one."""
    tokens = train.batch_size * train.seq_len
    context = train.seq_len  # the masked scores of a row are computed in full
    flops = 3.0 * tokens * shape.flops_per_token(context)
    if train.optimizer == "muon":
        flops += orthogonal_flops(shape)
    heads = shape.attention.num_attention_heads * shape.attention.query_dim
    inner = shape.intermediate_size
    if shape.experts:
        inner = (
            shape.experts.num_experts_per_tok + shape.experts.n_shared_experts
        ) * shape.experts.moe_intermediate_size
    scores = shape.attention.num_attention_heads * context
    layer = 16.0 * shape.hidden_size + 6.0 * heads + 5.0 * inner + 4.0 * scores
    moved = 4.0 * tokens * (shape.num_hidden_layers * layer + 6.0 * shape.vocab_size)
    launches = float(shape.num_hidden_layers * (40 if isinstance(shape.attention, Mla) else 28))
    launches += shape.moe_layers * (shape.experts.n_routed_experts * 12 if shape.experts else 0)
    return np.array([flops, moved, 40.0 * shape.parameters(), launches, 1.0])


def orthogonal_flops(shape: Shape) -> float:
    """Muon's five Newton-Schulz rounds on every matrix of the blocks: 4 r^2 c + 2 r^3 each (arXiv 2502.16982, section 2.1)."""
    ends = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    short = min(
        shape.hidden_size,
        shape.experts.moe_intermediate_size if shape.experts else shape.intermediate_size,
    )
    return 5.0 * (shape.parameters() - ends) * 5.0 * short


def memory_terms(shape: Shape, train: Train) -> Array:
    """What memory grows with, shape (3,): one, bytes of weights and states, bytes of activations."""
    tokens = train.batch_size * train.seq_len
    heads = shape.attention.num_attention_heads * shape.attention.query_dim
    inner = 3.0 * shape.intermediate_size
    if shape.experts:
        inner = (
            3.0
            * (
                shape.experts.num_experts_per_tok * shape.experts.capacity_factor
                + shape.experts.n_shared_experts
            )
            * shape.experts.moe_intermediate_size
        )
    layer = (
        8.0 * shape.hidden_size
        + 4.0 * heads
        + inner
        + shape.attention.num_attention_heads * train.seq_len
    )
    activations = 4.0 * tokens * (shape.num_hidden_layers * layer + 3.0 * shape.vocab_size)
    return np.array([1.0, float(STATE_BYTES * shape.parameters()), activations])


def calibrate(observations: Sequence[Observation], card: str = "cpu") -> Profile:
    """A profile from observations of one machine.

    Raises:
        PlanError: none were given.
    """
    if not observations:
        raise PlanError(
            "nothing was measured; give the folder of a run with --events, or let the benchmark run"
        )
    seconds = np.array([seen.step_seconds for seen in observations])
    sizes = np.array([seen.peak_bytes for seen in observations])
    work = np.array([time_terms(seen.shape, seen.train) for seen in observations])
    kept = np.array([memory_terms(seen.shape, seen.train) for seen in observations])
    found = nonnegative(work, seconds, np.array(PRIOR_SECONDS))
    held = nonnegative(kept, sizes, np.array(PRIOR_BYTES))
    flops = 1.0 / found[0] if found[0] > 0 else 1.0 / PRIOR_SECONDS[0]
    rate = 1.0 / found[1] if found[1] > 0 else 1.0 / PRIOR_SECONDS[1]
    return Profile(
        card=card,
        machine=f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        sources=tuple(seen.source for seen in observations),
        compiled=all(seen.train.compile for seen in observations),
        seconds_per=dict(zip(TIME_TERMS, map(float, found), strict=True)),
        bytes_per=dict(zip(MEMORY_TERMS, map(float, held), strict=True)),
        rates={"bf16_flops": flops, "best_matmul": 1.0, "memory_rate": rate},
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        if card == "cpu"
        else 0.0,
        fit_error=float(np.median(np.abs(work @ found / seconds - 1))),
        fit_memory_error=float(np.median(np.abs(kept @ held / sizes - 1))),
    )


def uncalibrated() -> Profile:
    """What a generic core is taken to do where nothing was measured: good for the order of size, no more."""
    return Profile(
        card="cpu",
        machine="a generic core",
        made="",
        sources=(),
        compiled=False,
        seconds_per=dict(zip(TIME_TERMS, PRIOR_SECONDS, strict=True)),
        bytes_per=dict(zip(MEMORY_TERMS, PRIOR_BYTES, strict=True)),
        rates={},
        fit_error=1.0,
        fit_memory_error=1.0,
    )


def predict(profile: Profile, shape: Shape, train: Train) -> tuple[float, float]:
    """(step seconds, peak bytes) of a run on the profiled machine."""
    seconds = time_terms(shape, train) @ np.array(
        [profile.seconds_per[name] for name in TIME_TERMS]
    )
    size = memory_terms(shape, train) @ np.array([profile.bytes_per[name] for name in MEMORY_TERMS])
    return float(seconds), float(size)


def observed(run: Path) -> list[Observation]:
    """What a run folder (recipe.json, events.jsonl) measured, one observation a tier.

    Raises:
        InputError: the folder has no recipe or no steps.
    """
    try:
        recipe = recipe_of(
            json.loads((run / "recipe.json").read_text("utf-8")), str(run / "recipe.json")
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run}: no run folder with a recipe.json ({error}); `tumen run RECIPE` makes one"
        ) from None
    steps: dict[str, list[dict[str, Any]]] = {}
    for event in read_events(run / "events.jsonl", "step"):
        if all(
            isinstance(event.get(name), (int, float)) for name in ("step_seconds", "peak_bytes")
        ):
            steps.setdefault(str(event.get("tier", "")), []).append(event)
    found = [
        observation(recipe, tier, rows, run)
        for tier, rows in steps.items()
        if tier in recipe.family
    ]
    if not found:
        raise InputError(
            f"{run}/events.jsonl: no steps of a known tier; let the run make at least ten steps"
        )
    return found


def observation(
    recipe: Recipe, tier: str, rows: Sequence[dict[str, Any]], run: Path
) -> Observation:
    """One tier's observation: the median step after the first line, which holds compilation."""
    section = recipe.family[tier]
    shape = section.shape.model_copy(
        update={"vocab_size": section.shape.vocab_size or recipe.tokenizer.vocab_size}
    )
    warm = rows[1:] or rows
    return Observation(
        shape=shape,
        train=section.train,
        step_seconds=statistics.median(float(row["step_seconds"]) for row in warm),
        peak_bytes=max(float(row["peak_bytes"]) for row in rows),
        source=f"{run.name}/{tier}",
    )


def benchmark(
    configurations: Sequence[tuple[Shape, Train]], steps: int = 12, rounds: int = 2
) -> list[Observation]:
    """Measure configurations, each in a child process of its own (peak memory belongs to a process).

    All are measured `rounds` times, one round after the other, and the fastest counts: other work on the machine
    comes in bursts and only ever adds.

    Raises:
        PlanError: the benchmark is not installed, fails or hangs.
    """
    seen = [
        [measured(shape, train, steps) for shape, train in configurations] for _ in range(rounds)
    ]
    return [min(several, key=lambda one: one.step_seconds) for several in zip(*seen, strict=True)]


def measured(shape: Shape, train: Train, steps: int) -> Observation:
    """One configuration, measured by a child process.

    Raises:
        PlanError: the benchmark is not installed, fails or hangs.
    """
    question = json.dumps(
        {"shape": shape.model_dump(), "train": train.model_dump(), "steps": steps}
    )
    command = [sys.executable, "-m", BENCHMARK, question]
    instead = "calibrate from a run instead: --events RUN"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BENCHMARK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise PlanError(
            f"the benchmark took longer than {BENCHMARK_SECONDS} s; {instead}"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise PlanError(f"the benchmark {BENCHMARK} failed: {last}; {instead}")
    try:
        return Observation.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError):
        raise PlanError(
            f"the benchmark {BENCHMARK} answered {done.stdout[-200:]!r}, no observation"
        ) from None


def default_configurations(compiled: bool = False) -> list[tuple[Shape, Train]]:
    """Small networks that tell the terms apart: narrow and wide, short and long rows, dense and with experts."""
    sizes = (
        (128, 2, 384, 2048, 8, 128),
        (256, 4, 768, 2048, 16, 128),
        (384, 6, 1024, 4096, 8, 256),
        (256, 2, 512, 8192, 16, 64),
        (128, 6, 512, 2048, 4, 64),
        (512, 2, 1536, 2048, 8, 96),
    )
    found = []
    for width, layers, inner, vocab, rows, row_tokens in sizes:
        shape = Shape.model_validate(
            {
                "hidden_size": width,
                "num_hidden_layers": layers,
                "intermediate_size": inner,
                "vocab_size": vocab,
                "attention": {
                    "kind": "gqa",
                    "num_attention_heads": width // 64,
                    "num_key_value_heads": width // 128 or 1,
                    "head_dim": 64,
                },
            }
        )
        found.append((shape, Train(steps=8, batch_size=rows, seq_len=row_tokens, compile=compiled)))
    mixture = found[1][0].model_copy(
        update={
            "attention": Mla(
                num_attention_heads=4,
                kv_lora_rank=64,
                q_lora_rank=128,
                qk_nope_head_dim=48,
                qk_rope_head_dim=16,
                v_head_dim=64,
            ),
            "experts": Shape.model_validate(
                {
                    "hidden_size": 64,
                    "num_hidden_layers": 2,
                    "intermediate_size": 64,
                    "attention": {
                        "kind": "gqa",
                        "num_attention_heads": 1,
                        "num_key_value_heads": 1,
                    },
                    "experts": {
                        "n_routed_experts": 8,
                        "num_experts_per_tok": 2,
                        "moe_intermediate_size": 256,
                        "capacity_factor": 1.25,
                    },
                }
            ).experts,
        }
    )
    return [*found, (mixture, Train(steps=8, batch_size=16, seq_len=128, compile=compiled))]


def store_profile(profile: Profile, path: Path) -> None:
    """Write a profile; raises as `kept.store`."""
    store(profile, path)


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        PlanError: missing or damaged.
    """
    return load(Profile, path, "calibration profile", "tumen plan calibrate")


def actual(run: Path, profile: Profile) -> list[Actual]:
    """Predicted against actual for every tier of a run.

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
