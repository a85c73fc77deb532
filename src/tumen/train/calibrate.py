"""`python -m tumen.train.calibrate '{"shape": ..., "train": ..., "steps": 8}'`: one measured configuration as a JSON
line.

Started by `tumen plan calibrate` as a child process: peak memory belongs to a process, and the planner never loads
torch.
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
    """Random rows of one document each, every position learnt; (rows, row_tokens)."""
    size = (section.batch_size, section.seq_len)
    ids = np.random.default_rng(seed).integers(0, shape.vocab_size, size)
    ones = np.ones(size, dtype=np.int64)
    places = np.tile(np.arange(size[1]), (size[0], 1))
    return Batch(
        ids=ids,
        documents=ones,
        positions=places,
        targets=np.roll(ids, -1, axis=1),
        answers=ones,
        sources=-ones,
        samples=np.arange(size[0]),
        totals=StepTotals(size[0], ids.size, 0),
    )


def measure(shape: Shape, section: Train, steps: int) -> dict[str, object]:
    """Step in seconds (lower quartile: other processes only ever add) and peak bytes of a short run, random tokens."""
    prepare_torch(section)
    trainer = SingleProcessTrainer(section, shape, World(0, 1, torch.device("cpu")), 0)
    seconds = []
    for step in range(WARM + steps):
        batch = batch_of(shape, section, step)
        start = time.perf_counter()
        trainer.learn(batch)
        trainer.step(section.learning_rate)
        seconds.append(time.perf_counter() - start)
    return {
        "shape": shape.model_dump(),
        "train": section.model_dump(),
        "step_seconds": statistics.quantiles(seconds[WARM:], n=4)[0],
        "peak_bytes": peak_bytes(),
        "source": f"benchmark {shape.hidden_size}x{shape.num_hidden_layers}, {section.batch_size}x{section.seq_len}",
    }


def main() -> None:
    """Measure the configuration of the first argument."""
    question = json.loads(sys.argv[1])
    shape = Shape.model_validate(question["shape"])
    section = Train.model_validate(question["train"])
    sys.stdout.write(json.dumps(measure(shape, section, int(question["steps"]))) + "\n")


if __name__ == "__main__":
    main()
