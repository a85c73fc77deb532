"""How fast a pretrained model is tuned here: whole, and as an adapter beside it.

In tokens a CPU-second, and in what memory.

    python benchmarks/tune_outside.py MODEL.gguf [--steps 3] [--threads 1] [--precision bf16 fp32]
        [--json]

Every case is a process of its own: 8 rows of 128 places of English home commands, trimmed
vocabulary with a token for each piece of an action, loss on actions alone, eager blocks. The first
step is left out. Tokens are real ones, padding does not count. CPU time, so that other work on the
machine counts less. More threads than free cores spin, so measure them on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, ROW_TOKENS, SENTENCES, TRIM = 8, 128, 2000, 4096


def prepare(model: Path, folder: Path) -> None:
    """A corpus, the model's vocabulary and a data set."""
    from tumen.data import write_corpus, write_dataset, write_tokenizer
    from tumen.recipe import Data, Tokenizer

    write_corpus(
        Data(languages=("en",), sentences=SENTENCES, validation=100, eval_sentences=10),
        0,
        folder / "corpus",
        "x",
    )
    write_tokenizer(
        Tokenizer(init_from=str(model), trim=TRIM, pieces=True),
        folder / "corpus",
        folder / "tokenizer",
        "x",
    )
    write_dataset(folder / "corpus", folder / "tokenizer", folder / "dataset", "x")


def case(
    model: Path, folder: Path, tune: str, precision: str, threads: int, steps: int
) -> dict[str, Any]:
    """Steps of one way to tune."""
    import torch

    from tumen.data import Codec, Loader, read_shards
    from tumen.formats.pretrained import shape_of_start
    from tumen.recipe import InitFrom, Train
    from tumen.train.loop import prepare_torch
    from tumen.train.single_process import SingleProcessTrainer
    from tumen.train.weights import start_from
    from tumen.train.weights.lora import adapted, build_of
    from tumen.train.world import World, type_of

    codec = Codec.load(folder / "tokenizer")
    assert codec.vocabulary is not None
    section = Train.model_validate(
        {
            "steps": 100,
            "batch_size": ROWS,
            "seq_len": ROW_TOKENS,
            "sentence_weight": 0.0,
            "precision": precision,
        }
        | {"threads": threads, "compile": False}
    )
    prepare_torch(section)
    world = World(0, 1, torch.device("cpu"))
    shape = shape_of_start(model).model_copy(update={"vocab_size": codec.vocab})
    weights = start_from(model, shape, None, codec.vocabulary.rows)
    start = InitFrom(path=str(model), tune="lora")
    lora = tune == "lora"
    network = (
        adapted(shape, weights, start, type_of(section, world.device), 0)
        if lora
        else build_of(shape, weights)
    )
    del weights
    trainer, loader = (
        SingleProcessTrainer(section, shape, world, 0, network=network),
        Loader(read_shards(folder / "dataset" / "train"), ROWS, ROW_TOKENS, 0),
    )
    rates: list[tuple[float, float]] = []
    for _ in range(steps + 1):
        batch = next(loader)
        real, cpu, wall = int((batch.documents > 0).sum()), time.process_time(), time.perf_counter()
        trainer.learn(batch)
        trainer.step(1e-5)
        rates.append((real / (time.process_time() - cpu), real / (time.perf_counter() - wall)))
    per_cpu, per_wall = (statistics.median(column) for column in zip(*rates[1:], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tune": tune,
        "precision": precision,
        "threads": threads,
        "tokens_per_cpu_second": round(per_cpu, 1),
        "tokens_per_second": round(per_wall, 1),
        "peak_bytes": peak,
        "load": round(os.getloadavg()[0], 2),
        "learned": sum(count for _, _, count in trainer.optimizer.layout),
    }


def main() -> None:
    """Run all cases and print a line each."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("model", type=Path)
    reader.add_argument("--steps", type=int, default=3)
    reader.add_argument("--threads", type=int, nargs="+", default=[1])
    reader.add_argument("--precision", nargs="+", default=["bf16"], choices=["bf16", "fp32"])
    reader.add_argument("--json", action="store_true")
    reader.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.case:
        folder, tune, precision, threads = asked.case
        print(
            json.dumps(case(asked.model, Path(folder), tune, precision, int(threads), asked.steps))
        )
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(asked.model, Path(folder))
        for threads in asked.threads:
            for precision in asked.precision:
                for tune in ("full", "lora"):
                    command = [
                        sys.executable,
                        __file__,
                        str(asked.model),
                        "--steps",
                        str(asked.steps),
                    ]
                    command += ["--case", folder, tune, precision, str(threads)]
                    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
                    done = subprocess.run(
                        command, capture_output=True, text=True, check=True, env=environment
                    )
                    rows.append(json.loads(done.stdout.splitlines()[-1]))
                    if not asked.json:
                        print(
                            " ".join(f"{name}={value}" for name, value in rows[-1].items()),
                            flush=True,
                        )
    if asked.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
