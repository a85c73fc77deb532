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


def fit(  # noqa: PLR0913, PLR0917 - typer makes an option of each argument
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
    if what is None and calibrate:
        return
    if what is None:
        raise InputError(
            "name a bundle, a run, a GGUF file or a recipe, "
            "such as `tumen fit recipes/milm-1.3b.toml`"
        )
    if device == HERE or calibrate:
        kind = load_device(profile)
    else:
        kind = device_of(device)
    limit = units.size_bytes(memory) if memory else None
    tokens = checked_context(context)
    fits = [fit_on(model, kind, threads, tokens, limit) for model in footprints(what, changes)]
    if as_json:
        print(json.dumps(_facts(kind, fits)))
    else:
        print("\n".join(_fits_lines(kind, fits)))


def _facts(device: Any, fits: Sequence[Fit]) -> dict[str, Any]:
    """Return the verdicts as JSON can hold them.

    Args:
        device: that the models are to run on.
        fits: a verdict for each model.
    """
    chosen = best(fits)
    return {
        "device": device.name,
        "fits": [one.model_dump() for one in fits],
        "best": chosen.model if chosen else None,
    }


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
    """Yield the models that a recipe's tiers will become."""
    recipe = load_recipe(path, changes)
    for name, tier in recipe.family.items():
        vocab = tier.decoder.vocab_size or recipe.tokenizer.vocab_size
        shape = tier.decoder.model_copy(update={"vocab_size": vocab})
        yield of_shape(shape, _matrix_type(tier.quantize), name)


def _matrix_type(quantize: Quantize) -> str:
    """Return the type of a tier's matrices, as `tumen.fit` names it.

    Within a byte budget some are coarser and some finer than four bits, which is what they are
    taken for.
    """
    word = quantize.type or "int4"
    if word in PLAIN_TYPES:
        return word
    return word.upper()


def _of_file(path: Path, name: str) -> Footprint:
    """Return the model of a GGUF file, by its header."""
    header = read_header(path)
    tensors = []
    for tensor in header.tensors.values():
        kind = BY_NUMBER[tensor.kind].name
        tensors.append(TensorSize(tensor.name, tensor.dims, kind))
    return of_header(header.pairs, tensors, path.stat().st_size, name)


def _calibrate(profile: Path) -> None:
    """Measure this machine with every number of threads, and keep the figures."""
    # Not the machine's cores: a container may have fewer.
    cores = len(os.sched_getaffinity(0))
    threads = tuple(range(1, cores + 1))
    trials = []
    for trial in measure_machine(threads):
        trials.append(trial)
        speed = f"{1 / trial.token_seconds:,.0f} tokens/s"
        memory = units.show_bytes(trial.peak_bytes)
        print(f"  {trial.model.name}, {trial.threads} threads: {speed}, {memory}")
    store_device(device_here(trials), profile)
    print(f"{profile}: {len(trials)} trials; `tumen fit BUNDLE --device here` uses it")


def _fits_lines(device: Any, fits: Sequence[Fit]) -> Iterator[str]:
    """Yield the verdicts for people: the device, each model, and the best that fits.

    Args:
        device: that the models are to run on.
        fits: a verdict for each model; all with the same threads, context and limit.
    """
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
    chosen = best(fits)
    if chosen:
        yield f"best that fits: {chosen.model}"
    else:
        yield "none of them fits"


def _fit_lines(one: Fit) -> Iterator[str]:
    """Yield the verdict about one model.

    Args:
        one: its size, memory and speed on the device, and what to cut.
    """
    verdict = "fits" if one.fits else "DOES NOT FIT"
    parameters = units.show_count(one.parameters)
    yield f"{one.model}: {parameters} parameters, {one.quantize}: {verdict}"
    load = units.show_seconds(one.load_seconds)
    yield f"  on disk      {units.show_bytes(one.file_bytes)}, read once in {load}"
    yield f"  peak memory  {units.show_bytes(one.peak_bytes)}: {_memory_parts(one)}"
    first_token = units.show_seconds(one.first_token_seconds)
    yield f"  first token  {first_token} after a sentence of 24 tokens"
    source = "weights from memory"
    if one.from_memory != 1:
        source = f"{one.from_memory:.0%} of the weights from memory, the rest from cache"
    yield f"  speed        {one.tokens_per_second:,.1f} tokens/s, {source}"
    yield from _cut_lines(one)


def _memory_parts(one: Fit) -> str:
    """Return what a runner's memory is made of."""
    memory = one.memory
    parts = {
        "weights": memory.weights,
        "reordered copies": memory.copies,
        "keys and values": memory.cache,
        "buffers": memory.buffers,
        "runner": memory.runtime,
    }
    return ", ".join(f"{name} {units.show_bytes(size)}" for name, size in parts.items())


def _cut_lines(one: Fit) -> Iterator[str]:
    """Yield what to cut where a model does not fit, and whether that is enough."""
    enough = any(cut.fits for cut in one.cuts)
    if not one.fits and not enough:
        yield "  cut          nothing here is enough: a narrower model, or a smaller vocabulary"
    for cut in one.cuts:
        peak = units.show_bytes(cut.peak_bytes)
        line = f"  cut          {cut.what}: peak {peak}, {cut.tokens_per_second:,.1f} tokens/s"
        if not cut.fits:
            line += ", still too large"
        yield line


def _print_devices(as_json: bool) -> None:
    """Print every known device."""
    if as_json:
        known = {name: device.model_dump() for name, device in devices().items()}
        print(json.dumps(known))
    else:
        print("\n".join(_device_lines()))


def _device_lines() -> Iterator[str]:
    """Yield three lines for each device: what it is, the sources, the assumptions."""
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
