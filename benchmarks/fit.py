"""What `tumen fit` predicts against what the runner then takes.

On models and thread counts that the calibration has not seen.

    python benchmarks/fit.py [--run runs/pocket] [--file SmolLM2.gguf]
        [--out benchmarks/results/fit.json] [--json]

Calibrates this machine (`tumen fit --calibrate`), then predicts and measures every case in the
same run: size on disk, peak memory of the runner's process (after the longest sentence there is
room for), seconds of a 24-token sentence, tokens a second after it. `cpu` is the runner's
processor time over wall time and threads: far below 1, other work took the cores away and the row
is worth little. Goals: size 3 %, peak memory 10 %, tokens a second 20 %.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
from pocket import machine

from tumen.core.shape import Experts, Shape
from tumen.fit.device import Device
from tumen.fit.footprint import Footprint, TensorSize
from tumen.fit.footprint import of_header as footprint_of_header
from tumen.fit.footprint import of_shape as footprint_of_shape
from tumen.fit.pace import device_here
from tumen.fit.verdict import fit_on
from tumen.formats.ggml_types import BY_NUMBER
from tumen.recipe import recipe_of
from tumen.serve import measure_machine, measure_model, write_synthetic_gguf
from tumen.serve.measure import shape_of

CONTEXT = 512
SIXTEEN = Experts(
    n_routed_experts=16,
    num_experts_per_tok=4,
    n_shared_experts=1,
    moe_intermediate_size=192,
    first_k_dense_replace=1,
)
SHAPES: dict[str, tuple[Shape, str, tuple[int, ...]]] = {
    "GQA 768 x 9, vocabulary 8k": (shape_of(768, 9, 2048, vocab=8192), "int8", (1, 2)),
    "GQA 384 x 14, vocabulary 4k": (shape_of(384, 14, 1024, vocab=4096), "int4", (1, 2)),
    "GQA 896 x 10, vocabulary 32k": (shape_of(896, 10, 2560, vocab=32_768), "bf16", (1, 2)),
    "GQA 1536 x 6, vocabulary 16k": (shape_of(1536, 6, 4096, vocab=16_384), "int4", (1, 2)),
    "MLA 384 x 10": (shape_of(384, 10, 1024, vocab=2048, mla=True), "int4", (1, 2)),
    "MLA 512 x 8, 16 experts": (
        shape_of(512, 8, 1536, vocab=4096, mla=True, experts=SIXTEEN),
        "int8",
        (1, 2),
    ),
}
GOALS = {"size": 0.03, "peak": 0.10, "rate": 0.20}


def of_file(path: Path, name: str) -> Footprint:
    """A GGUF of any tokeniser, read by the package `gguf`."""
    reader = gguf.GGUFReader(path)
    pairs = {key: field.contents() for key, field in reader.fields.items()}
    tensors = [
        TensorSize(one.name, tuple(map(int, one.shape)), BY_NUMBER[int(one.tensor_type)].name)
        for one in reader.tensors
    ]
    return footprint_of_header(pairs, tensors, path.stat().st_size, name)


def of_recipe(path: Path) -> Footprint:
    """A bundle of a run, from the run's recipe alone."""
    run, name = path.parents[1], path.parent.name
    recipe = recipe_of(json.loads((run / "recipe.json").read_text()), str(run))
    tier = recipe.family[name.removeprefix("bundle-")]
    shape = tier.shape.model_copy(
        update={"vocab_size": tier.shape.vocab_size or recipe.tokenizer.vocab_size}
    )
    return footprint_of_shape(shape, tier.quantize, f"{recipe.name}, {name}")


def cases(
    folder: Path, run: Path | None, files: list[Path]
) -> Iterator[tuple[Footprint, Path, tuple[int, ...]]]:
    """(what is predicted from, the file that is measured, threads). Synthetic files are predicted
    from their shape alone."""
    for name, (shape, quantize, threads) in SHAPES.items():
        yield (
            footprint_of_shape(shape, quantize, f"{name}, {quantize}"),
            write_synthetic_gguf(folder / "m.gguf", shape, quantize),
            threads,
        )
    for path in files:
        yield of_file(path, path.stem), path, (1, 2)
    for path in sorted(run.glob("bundle-*/model.gguf")) if run else ():
        yield of_recipe(path), path, (1, 2)


def row(model: Footprint, path: Path, device: Device, threads: int) -> dict[str, Any]:
    """One case."""
    told = fit_on(model, device, threads, CONTEXT)
    seen = measure_model(path, model, threads, CONTEXT)
    size = path.stat().st_size
    return {
        "model": model.name,
        "threads": threads,
        "from_memory": round(told.from_memory, 2),
        "parameters": model.parameters,
        "size": [told.file_bytes, size],
        "peak": [round(told.peak_bytes), round(seen.peak_bytes)],
        "rate": [round(told.tokens_per_second, 1), round(1 / seen.token_seconds, 1)],
        "prompt_ms": [
            round(1e3 * told.first_token_seconds, 2),
            round(1e3 * seen.prompt_seconds, 2),
        ],
        "cpu": round(seen.cpu_share, 2),
    }


def off(pair: list[float]) -> float:
    """How far the first is from the second."""
    return pair[0] / pair[1] - 1


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a run folder: its bundles are cases too")
    parser.add_argument(
        "--file",
        type=Path,
        action="append",
        default=[],
        help="a GGUF from elsewhere; may be given often",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results") / "fit.json"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    about = {
        **machine(),
        "scheduler": {0: "other", 1: "fifo", 2: "round robin"}.get(os.sched_getscheduler(0), "?"),
    }
    cores = tuple(range(1, len(os.sched_getaffinity(0)) + 1))[:2]
    device, rows = device_here(list(measure_machine(cores))), []
    with tempfile.TemporaryDirectory() as folder:
        for model, path, threads in cases(Path(folder), given.run, given.file):
            rows += [row(model, path, device, count) for count in threads if count in cores]
    worst = {
        what: round(max(abs(off(one[what])) for one in rows), 4) for what in (*GOALS, "prompt_ms")
    }
    within = {
        what: sum(abs(off(one[what])) <= goal for one in rows) for what, goal in GOALS.items()
    }
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": about,
        "xllamacpp": version("xllamacpp"),
        "cases": len(rows),
        "within_goal": within,
        "worst": worst,
        "rows": rows,
        "device": device.model_dump(mode="json"),
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.json:
        print(json.dumps(result))
        return
    print(f"{len(rows)} cases; within the goal: {within}; worst: {worst}")
    for one in rows:
        errors = "  ".join(f"{what} {off(one[what]):+6.1%}" for what in (*GOALS, "prompt_ms"))
        print(
            f"{one['model']:36s} {one['threads']} thr  {one['rate'][1]:8.1f} tok/s  {errors}  "
            f"cpu {one['cpu']:.2f}"
        )


if __name__ == "__main__":
    main()
