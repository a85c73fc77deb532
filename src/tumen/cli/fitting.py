"""Fit: does a model run on a device, how fast, and what to cut if it does not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from tumen.cli.options import CHANGES, JSON
from tumen.core import units
from tumen.core.errors import InputError
from tumen.fit import (
    HERE,
    Fit,
    Footprint,
    TensorSize,
    best,
    checked_context,
    device_here,
    device_of,
    devices,
    fit_on,
    load_device,
    of_header,
    of_shape,
    store_device,
)
from tumen.formats.ggml_types import BY_NUMBER
from tumen.formats.gguf_header import check as read_header
from tumen.recipe import Quantize, load_recipe
from tumen.serve import measure_machine

PROFILE = Path("device.json")
PLAIN_TYPES = ("int8", "int4", "bf16")  # names that fit knows; others are GGUF's, in capitals


def fit(
    what: Path = typer.Argument(
        None, help="A bundle, a run, a GGUF file, or a recipe (all its tiers)."
    ),
    device: str = typer.Option("phone-8gb", "--device", help="A device of --devices, or 'here'."),
    threads: int = typer.Option(1, "--threads", min=1, help="Threads of the runner."),
    memory: str = typer.Option(
        None,
        "--memory",
        help="Hard limit with its unit (MB, GB); default: what the device leaves an app.",
    ),
    context: int = typer.Option(512, "--context", help="Tokens of sentence and action together."),
    changes: list[str] = CHANGES,
    calibrate: bool = typer.Option(
        False,
        "--calibrate",
        help="First measure this machine, for minutes; then use --device here.",
    ),
    profile: Path = typer.Option(
        PROFILE, "--profile", help="File with the measurements of this machine."
    ),
    listed: bool = typer.Option(False, "--devices", help="List every device with its sources."),
    as_json: bool = JSON,
) -> None:
    """Predict size, peak memory, first-token time and tokens per second on a device."""
    if listed:
        _print_devices(as_json)
        return
    if calibrate:
        _calibrate(profile)
    if what is None:
        if not calibrate:
            raise InputError(
                "name a bundle, a run, a GGUF file or a recipe, "
                "such as `tumen fit recipes/milm-1.3b.toml`"
            )
        return
    here = device == HERE or calibrate
    kind = load_device(profile) if here else device_of(device)
    limit = units.size_bytes(memory) if memory else None
    tokens = checked_context(context)
    fits = [fit_on(one, kind, threads, tokens, limit) for one in footprints(what, changes)]
    chosen = best(fits)
    if as_json:
        facts = {
            "device": kind.name,
            "fits": [one.model_dump() for one in fits],
            "best": chosen.model if chosen else None,
        }
        print(json.dumps(facts))
        return
    print("\n".join(_fits_lines(kind, fits, chosen)))


def footprints(what: Path, changes: list[str]) -> Iterator[Footprint]:
    """Yield the models of a bundle, a run, a file or a recipe.

    Raises:
        InputError: the path is none of these.
    """
    if what.suffix == ".toml":
        yield from _of_recipe(what, changes)
        return
    if what.suffix == ".gguf":
        yield _of_file(what, what.stem)
        return
    if (what / "model.gguf").is_file():
        yield _of_file(what / "model.gguf", what.name)
        return
    bundles = sorted(what.glob("bundle-*/model.gguf"))
    if not bundles:
        raise InputError(
            f"{what}: not a bundle, run, GGUF file or recipe; "
            "a recipe ends in .toml, a bundle has a model.gguf"
        )
    for path in bundles:
        yield _of_file(path, path.parent.name)


def _of_recipe(path: Path, changes: list[str]) -> Iterator[Footprint]:
    recipe = load_recipe(path, changes)
    for name, tier in recipe.family.items():
        vocab = tier.shape.vocab_size or recipe.tokenizer.vocab_size
        shape = tier.shape.model_copy(update={"vocab_size": vocab})
        yield of_shape(shape, _matrix_type(tier.quantize), name)


def _matrix_type(quantize: Quantize) -> str:
    """Return the type of a tier's matrices; within a byte budget some are coarser and some finer than four bits."""
    word = quantize.type or "int4"
    return word if word in PLAIN_TYPES else word.upper()


def _of_file(path: Path, name: str) -> Footprint:
    header = read_header(path)
    tensors = [
        TensorSize(one.name, one.dims, BY_NUMBER[one.kind].name) for one in header.tensors.values()
    ]
    return of_header(header.pairs, tensors, path.stat().st_size, name)


def _calibrate(profile: Path) -> None:
    """Measure this machine with every number of threads, and keep the figures."""
    cores = len(os.sched_getaffinity(0))
    trials = []
    for trial in measure_machine(tuple(range(1, cores + 1))):
        trials.append(trial)
        speed = f"{1 / trial.token_seconds:,.0f} tokens/s"
        memory = units.show_bytes(trial.peak_bytes)
        print(f"  {trial.model.name}, {trial.threads} threads: {speed}, {memory}")
    store_device(device_here(trials), profile)
    print(f"{profile}: {len(trials)} trials; `tumen fit BUNDLE --device here` uses it")


def _fits_lines(device: Any, fits: Sequence[Fit], chosen: Fit | None) -> Iterator[str]:
    first = fits[0]
    trust = "from published figures: within a factor of two"
    if device.grade == "measured":
        trust = "measured on this machine"
    limit = units.show_bytes(first.memory_limit_bytes)
    cached = units.show_bytes(device.cache_bytes / 2)
    yield f"{device.name}: {device.what}"
    yield f"  {first.threads} threads, context {first.context}, limit {limit}; {trust}"
    yield f"  up to {cached} of weights stay in the cache, twice that comes from memory"
    for one in fits:
        yield from _fit_lines(one)
    yield f"best that fits: {chosen.model}" if chosen else "none of them fits"


def _fit_lines(one: Fit) -> Iterator[str]:
    size = units.show_bytes
    memory = one.memory
    verdict = "fits" if one.fits else "DOES NOT FIT"
    source = "weights from memory"
    if one.from_memory != 1:
        source = f"{one.from_memory:.0%} of the weights from memory, the rest from cache"
    parameters = units.show_count(one.parameters)
    yield f"{one.model}: {parameters} parameters, {one.quantise}: {verdict}"
    load = units.show_seconds(one.load_seconds)
    yield f"  on disk      {size(one.file_bytes)}, read once in {load}"
    yield (
        f"  peak memory  {size(one.peak_bytes)}: weights {size(memory.weights)}, "
        f"reordered copies {size(memory.copies)}, keys and values {size(memory.cache)}, "
        f"buffers {size(memory.buffers)}, runner {size(memory.runtime)}"
    )
    first_token = units.show_seconds(one.first_token_seconds)
    yield f"  first token  {first_token} after a sentence of 24 tokens"
    yield f"  speed        {one.tokens_per_second:,.1f} tokens/s, {source}"
    if not one.fits and not any(cut.fits for cut in one.cuts):
        yield "  cut          nothing here is enough: a narrower model, or a smaller vocabulary"
    for cut in one.cuts:
        remark = "" if cut.fits else ", still too large"
        speed = f"{cut.tokens_per_second:,.1f} tokens/s"
        yield f"  cut          {cut.what}: peak {size(cut.peak_bytes)}, {speed}{remark}"


def _print_devices(as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: one.model_dump() for name, one in devices().items()}))
    else:
        print("\n".join(_device_lines()))


def _device_lines() -> Iterator[str]:
    for name, one in devices().items():
        left = units.show_bytes(one.left_bytes)
        memory = units.show_bytes(one.memory_bytes)
        rate = f"{one.memory_rate / 1e9:.1f} GB/s reached"
        yield (
            f"{name:11s} {one.what}; {left} of {memory} left, {rate}, {one.cores} cores; "
            f"NPU: {one.npu}"
        )
        yield f"            source: {one.source}"
        yield f"            assumed: {one.assumptions}"
