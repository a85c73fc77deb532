"""Measured training steps of this machine, from events of a run or from a micro-benchmark.

The benchmark is `tumen.train.calibrate`, started as a child process: peak memory belongs to a
process, and this room never loads torch.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tumen.core.errors import InputError, PlanError
from tumen.core.events import read as read_events
from tumen.core.extras import require
from tumen.core.shape import Experts, Frozen, Gqa, Mla, Shape
from tumen.recipe import Recipe, Train, recipe_of

BENCHMARK = "tumen.train.calibrate"
BENCHMARK_SECONDS = 600
STEP_FIELDS = ("step_seconds", "peak_bytes")
INSTEAD = "calibrate from a run instead: --events RUN"


class Observation(Frozen):
    """One measured run: what was trained, and its step time and peak memory."""

    shape: Shape
    train: Train
    step_seconds: float
    peak_bytes: float
    source: str


# ---------------------------------------------------------------------- from a run


def observed(run: Path) -> list[Observation]:
    """Return what a run folder (recipe.json, events.jsonl) measured, one observation a tier.

    Raises:
        InputError: the folder has no recipe or no steps.
    """
    file = run / "recipe.json"
    try:
        recipe = recipe_of(json.loads(file.read_text("utf-8")), str(file))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run}: not a run folder with a recipe.json ({error}); `tumen run RECIPE` makes one"
        ) from None
    steps: dict[str, list[dict[str, Any]]] = {}
    for event in read_events(run / "events.jsonl", "step"):
        if all(isinstance(event.get(name), (int, float)) for name in STEP_FIELDS):
            steps.setdefault(str(event.get("tier", "")), []).append(event)
    found = [
        observation(recipe, tier, events, run)
        for tier, events in steps.items()
        if tier in recipe.family and not recipe.family[tier].is_encoder
    ]
    if not found:
        raise InputError(
            f"{run}/events.jsonl: no steps of a known tier with a decoder; "
            "let the run make at least ten steps"
        )
    return found


def observation(
    recipe: Recipe, tier: str, events: Sequence[dict[str, Any]], run: Path
) -> Observation:
    """Return one tier's observation: the median step without the first event, which compiles."""
    section = recipe.family[tier]
    shape = section.decoder
    vocab_size = shape.vocab_size or recipe.tokenizer.vocab_size
    warm = events[1:] or events
    return Observation(
        shape=shape.model_copy(update={"vocab_size": vocab_size}),
        train=section.train,
        step_seconds=statistics.median(float(event["step_seconds"]) for event in warm),
        peak_bytes=max(float(event["peak_bytes"]) for event in events),
        source=f"{run.name}/{tier}",
    )


# ---------------------------------------------------------------------- from a benchmark


def benchmark(
    configurations: Sequence[tuple[Shape, Train]], steps: int = 12, rounds: int = 2
) -> list[Observation]:
    """Measure configurations, each in a child process of its own.

    All are measured `rounds` times, one round after the other, and the fastest counts: other work
    on the machine comes in bursts and only adds time.

    Args:
        configurations: networks with their training sections.
        steps: of each measurement.
        rounds: measurements of each configuration.

    Raises:
        MissingExtra: torch is not installed.
        PlanError: the benchmark fails or hangs.
    """
    every = [
        [measured(shape, train, steps) for shape, train in configurations] for _ in range(rounds)
    ]

    def step_seconds(one: Observation) -> float:
        return one.step_seconds

    return [min(several, key=step_seconds) for several in zip(*every, strict=True)]


def measured(shape: Shape, train: Train, steps: int) -> Observation:
    """Measure one configuration in a child process.

    Raises:
        MissingExtra: torch is not installed.
        PlanError: the benchmark fails or hangs.
    """
    require("torch", "the benchmark of this machine")
    question = json.dumps(
        {"shape": shape.model_dump(), "train": train.model_dump(), "steps": steps}
    )
    command = [sys.executable, "-m", BENCHMARK, question]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BENCHMARK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise PlanError(
            f"the benchmark took longer than {BENCHMARK_SECONDS} s; {INSTEAD}"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise PlanError(f"the benchmark {BENCHMARK} failed: {last}; {INSTEAD}")
    try:
        return Observation.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError):
        raise PlanError(
            f"the benchmark {BENCHMARK} printed {done.stdout[-200:]!r}, which is not an observation"
        ) from None


# (hidden size, layers, intermediate size, vocabulary, batch size, sequence length)
DENSE_SIZES = (
    (128, 2, 384, 2048, 8, 128),
    (256, 4, 768, 2048, 16, 128),
    (384, 6, 1024, 4096, 8, 256),
    (256, 2, 512, 8192, 16, 64),
    (128, 6, 512, 2048, 4, 64),
    (512, 2, 1536, 2048, 8, 96),
)


def default_configurations(compiled: bool = False) -> list[tuple[Shape, Train]]:
    """Return small networks that tell the terms of a step apart.

    Narrow and wide, short and long sequences, dense and with experts.
    """
    found = []
    for hidden, layers, inner, vocab, batch_size, seq_len in DENSE_SIZES:
        attention = Gqa(
            num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128 or 1, head_dim=64
        )
        shape = Shape(
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=inner,
            vocab_size=vocab,
            attention=attention,
        )
        train = Train(steps=8, batch_size=batch_size, seq_len=seq_len, compile=compiled)
        found.append((shape, train))
    mixture = found[1][0].model_copy(update={"attention": LATENT, "experts": EXPERTS})
    return [*found, (mixture, Train(steps=8, batch_size=16, seq_len=128, compile=compiled))]


LATENT = Mla(
    num_attention_heads=4,
    kv_lora_rank=64,
    q_lora_rank=128,
    qk_nope_head_dim=48,
    qk_rope_head_dim=16,
    v_head_dim=64,
)
EXPERTS = Experts(
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=256, capacity_factor=1.25
)
