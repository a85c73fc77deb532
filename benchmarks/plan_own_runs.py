"""Predicted against actual on this machine: calibrate on some configurations, judge on others.

    python benchmarks/plan_own_runs.py [--compile] [--profile profile.json]

Each configuration trains in a process of its own on random tokens (`python -m
tumen.train.calibrate`). The held-out ones are never seen by the calibration. Exit code 1 when the
median error of time or memory is above 15%.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from tumen.core.shape import Shape
from tumen.plan.accuracy import benchmark, calibrate, default_configurations, load_profile, predict
from tumen.recipe import Train

HELD_OUT = (
    {
        "hidden_size": 192,
        "num_hidden_layers": 3,
        "intermediate_size": 512,
        "vocab_size": 2048,
        "rows": 12,
        "row_tokens": 128,
    },
    {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "intermediate_size": 768,
        "vocab_size": 4096,
        "rows": 8,
        "row_tokens": 192,
    },
    {
        "hidden_size": 320,
        "num_hidden_layers": 4,
        "intermediate_size": 1024,
        "vocab_size": 2048,
        "rows": 16,
        "row_tokens": 96,
    },
    {
        "hidden_size": 384,
        "num_hidden_layers": 3,
        "intermediate_size": 1024,
        "vocab_size": 8192,
        "rows": 6,
        "row_tokens": 256,
    },
    {
        "hidden_size": 256,
        "num_hidden_layers": 3,
        "intermediate_size": 512,
        "vocab_size": 2048,
        "rows": 32,
        "row_tokens": 128,
    },
    {
        "hidden_size": 256,
        "num_hidden_layers": 3,
        "intermediate_size": 768,
        "vocab_size": 2048,
        "rows": 24,
        "row_tokens": 128,
        "experts": 8,
    },
)


def configuration(entry: dict[str, int], compiled: bool) -> tuple[Shape, Train]:
    """A shape and its training section from one line of the table."""
    size = {
        key: entry[key]
        for key in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
    }
    attention = {
        "kind": "gqa",
        "num_attention_heads": entry["hidden_size"] // 64,
        "num_key_value_heads": 1,
        "head_dim": 64,
    }
    experts = (
        {
            "n_routed_experts": entry["experts"],
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 256,
            "capacity_factor": 1.25,
        }
        if "experts" in entry
        else None
    )
    shape = Shape.model_validate({**size, "attention": attention, "experts": experts})
    return shape, Train(
        steps=8, batch_size=entry["rows"], seq_len=entry["row_tokens"], compile=compiled
    )


def main() -> None:
    """Print the table and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    if options.profile:
        profile = load_profile(options.profile)
    else:
        profile = calibrate(benchmark(default_configurations(options.compile), options.steps))
    print(
        f"profile from {len(profile.sources)} runs on {profile.machine}: fits them within "
        f"{profile.fit_error:.0%} / {profile.fit_memory_error:.0%}"
    )
    print({name: float(f"{value:.3g}") for name, value in profile.seconds_per.items()})
    time_errors, memory_errors = [], []
    configurations = [configuration(entry, options.compile) for entry in HELD_OUT]
    for (shape, train), seen in zip(
        configurations, benchmark(configurations, options.steps), strict=True
    ):
        seconds, size = predict(profile, shape, train)
        time_errors.append(abs(seconds / seen.step_seconds - 1))
        memory_errors.append(abs(size / seen.peak_bytes - 1))
        print(
            f"{seen.source:32s} step {seconds:6.3f} s predicted, {seen.step_seconds:6.3f} s actual "
            f"({seconds / seen.step_seconds - 1:+.0%}); "
            f"memory {size / 1e9:.2f} GB predicted, {seen.peak_bytes / 1e9:.2f} GB actual "
            f"({size / seen.peak_bytes - 1:+.0%})",
            flush=True,
        )
    middle = statistics.median(time_errors), statistics.median(memory_errors)
    print(
        f"median error: time {middle[0]:.1%}, memory {middle[1]:.1%} "
        f"over {len(HELD_OUT)} held-out configurations"
    )
    sys.exit(max(middle) > 0.15)


if __name__ == "__main__":
    main()
