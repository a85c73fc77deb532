"""Measure one configuration and print it as a JSON line.

    python -m tumen.train.calibrate '{"shape": ..., "train": ..., "steps": 8}'

`tumen plan calibrate` starts it as a child process: peak memory belongs to a process, and the
planner never loads torch.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import torch

from tumen.core.shape import Shape
from tumen.data import Batch, StepTotals
from tumen.recipe import Train
from tumen.train.loop import prepare_torch
from tumen.train.metrics import peak_bytes
from tumen.train.single_process import SingleProcessTrainer
from tumen.train.world import World

WARM = 2  # steps that are not counted: allocation and compilation


def batch_of(shape: Shape, section: Train, seed: int) -> Batch:
    """Random rows (B, T) of one document each; every position is trained."""
    rows = section.batch_size
    size = (rows, section.seq_len)
    ids = np.random.default_rng(seed).integers(0, shape.vocab_size, size)
    ones = np.ones(size, dtype=np.int64)
    places = np.tile(np.arange(section.seq_len), (rows, 1))
    return Batch(
        ids=ids,
        documents=ones,
        positions=places,
        targets=np.roll(ids, -1, axis=1),
        answers=ones,
        sources=-ones,
        samples=np.arange(rows),
        totals=StepTotals(rows, ids.size, 0),
    )


def measure(shape: Shape, section: Train, steps: int) -> dict[str, object]:
    """Seconds of a step and peak bytes of a short run on random tokens.

    The seconds are the lower quartile, as other processes only ever add to a time.
    """
    prepare_torch(section)
    trainer = SingleProcessTrainer(section, shape, World(0, 1, torch.device("cpu")), 0)
    seconds = []
    for step in range(WARM + steps):
        batch = batch_of(shape, section, step)
        start = time.perf_counter()
        trainer.learn(batch)
        trainer.step(section.learning_rate)
        seconds.append(time.perf_counter() - start)
    size = f"{shape.hidden_size}x{shape.num_hidden_layers}"
    return {
        "shape": shape.model_dump(),
        "train": section.model_dump(),
        "step_seconds": statistics.quantiles(seconds[WARM:], n=4)[0],
        "peak_bytes": peak_bytes(),
        "source": f"benchmark {size}, {section.batch_size}x{section.seq_len}",
    }


def main() -> None:
    """Measure the configuration of the first argument."""
    question = json.loads(sys.argv[1])
    shape = Shape.model_validate(question["shape"])
    section = Train.model_validate(question["train"])
    found = measure(shape, section, int(question["steps"]))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
