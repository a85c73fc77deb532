"""`tumen fit BUNDLE | RECIPE --device phone-8gb`: does a model fit a device, how fast is it there, what to cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tumen.core import units
from tumen.core.errors import InputError
from tumen.recipe import Quantize, load_recipe

PROFILE = Path("device.json")


def fit(
    what: Path = typer.Argument(
        None, help="A bundle, a run, a GGUF file, or a recipe (all its tiers)."
    ),
    device: str = typer.Option(
        "phone-8gb", "--device", help="A device of plan/devices.toml, or 'here'."
    ),
    threads: int = typer.Option(1, "--threads", min=1, help="Threads of the runner."),
    memory: str = typer.Option(
        None,
        "--memory",
        help="Hard limit with its unit (MB, GB); default: what the device leaves an app.",
    ),
    context: int = typer.Option(512, "--context", help="Tokens of sentence and action together."),
    changes: list[str] = typer.Option(
        [], "--set", help="Change a field of the recipe. May be given often."
    ),
    calibrate: bool = typer.Option(
        False,
        "--calibrate",
        help="Measure this machine first, in minutes; then --device here knows it.",
    ),
    profile: Path = typer.Option(
        PROFILE, "--profile", help="Where the measured figures of this machine are kept."
    ),
    listed: bool = typer.Option(
        False, "--devices", help="Show every device with its sources instead."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Predict size, peak memory, first-token time and tokens a second on a device, and which tier fits."""
    from tumen.fit import HERE, checked_context, device_of, devices, fit_on, load_device
    from tumen.fit import best as best_

    if listed:
        print(
            json.dumps({n: one.model_dump() for n, one in devices().items()})
            if as_json
            else "\n".join(_shown())
        )
        return
    if calibrate:
        _calibrate(profile)
    if what is None:
        if not calibrate:
            raise InputError(
                "name a bundle, a run, a GGUF file or a recipe; `tumen fit recipes/milm-1.3b.toml` shows how"
            )
        return
    here = device == HERE or calibrate
    kind = load_device(profile) if here else device_of(device)
    limit = units.size_bytes(memory) if memory else None
    fits = [
        fit_on(one, kind, threads, checked_context(context), limit)
        for one in footprints(what, changes)
    ]
    best = best_(fits)
    if as_json:
        print(
            json.dumps(
                {
                    "device": kind.name,
                    "fits": [one.model_dump() for one in fits],
                    "best": best.model if best else None,
                }
            )
        )
        return
    print("\n".join(_lines(kind, fits, best)))


def footprints(what: Path, changes: list[str]) -> Iterator[Any]:
    """The models of a bundle, a run, a file or a recipe.

    Raises:
        InputError: it is none of these.
    """
    if what.suffix == ".toml":
        yield from _of_recipe(what, changes)
    elif what.suffix == ".gguf":
        yield _of_file(what, what.stem)
    elif (what / "model.gguf").is_file():
        yield _of_file(what / "model.gguf", what.name)
    elif found := sorted(what.glob("bundle-*/model.gguf")):
        yield from (_of_file(path, path.parent.name) for path in found)
    else:
        raise InputError(
            f"{what}: no bundle, run, GGUF file or recipe; a recipe ends in .toml, a bundle has a model.gguf"
        )


def _kind(quantise: Quantize) -> str:
    """The grid of a tier's matrices; within a byte budget some are coarser and some finer than four bits."""
    word = quantise.type or "int4"
    return word if word in ("int8", "int4", "bf16") else word.upper()


def _of_recipe(path: Path, changes: list[str]) -> Iterator[Any]:
    from tumen.fit import of_shape as footprint_of_shape

    recipe = load_recipe(path, changes)
    for name, tier in recipe.family.items():
        shape = tier.shape.model_copy(
            update={"vocab_size": tier.shape.vocab_size or recipe.tokenizer.vocab_size}
        )
        yield footprint_of_shape(shape, _kind(tier.quantize), name)


def _of_file(path: Path, name: str) -> Any:
    from tumen.fit import KINDS, Tensor
    from tumen.fit import of_header as footprint_of_header
    from tumen.formats import check as header_of

    header = header_of(path)
    tensors = [Tensor(one.name, one.dims, KINDS[one.kind][0]) for one in header.tensors.values()]
    return footprint_of_header(header.pairs, tensors, path.stat().st_size, name)


def _calibrate(profile: Path) -> None:
    import os

    from tumen.fit import device_here, store_device
    from tumen.serve import measure_machine

    trials = []
    for one in measure_machine(tuple(range(1, len(os.sched_getaffinity(0)) + 1))):
        trials.append(one)
        print(
            f"  {one.model.name}, {one.threads} threads: {1 / one.token_seconds:,.0f} tokens/s, {units.show_bytes(one.peak_bytes)}"
        )
    store_device(device_here(trials), profile)
    print(f"{profile}: {len(trials)} trials; `tumen fit BUNDLE --device here` uses it")


def _lines(device: Any, fits: list[Any], best: Any) -> Iterator[str]:
    first = fits[0]
    yield f"{device.name}: {device.what}"
    trust = (
        "measured on this machine"
        if device.grade == "measured"
        else "from published figures: within a factor of two"
    )
    yield f"  {first.threads} threads, context {first.context}, limit {units.show_bytes(first.memory_limit_bytes)}; {trust}"
    yield f"  up to {units.show_bytes(device.cache_bytes / 2)} of weights stay in the cache, twice that comes from memory"
    for one in fits:
        yield from _fit_lines(one)
    yield f"best that fits: {best.model}" if best else "none of them fits"


def _fit_lines(one: Any) -> Iterator[str]:
    memory = one.memory
    place = (
        "weights from memory"
        if one.from_memory == 1
        else f"{one.from_memory:.0%} of the weights from memory, the rest from cache"
    )
    yield f"{one.model}: {units.show_count(one.parameters)} parameters, {one.quantise}: {'fits' if one.fits else 'DOES NOT FIT'}"
    yield f"  on disk      {units.show_bytes(one.file_bytes)}, read once in {units.show_seconds(one.load_seconds)}"
    yield (
        f"  peak memory  {units.show_bytes(one.peak_bytes)}: weights {units.show_bytes(memory.weights)}, reordered copies "
        f"{units.show_bytes(memory.copies)}, keys and values {units.show_bytes(memory.cache)}, buffers "
        f"{units.show_bytes(memory.buffers)}, runner {units.show_bytes(memory.runtime)}"
    )
    yield f"  first token  {units.show_seconds(one.first_token_seconds)} after a sentence of 24 tokens"
    yield f"  speed        {one.tokens_per_second:,.1f} tokens/s, {place}"
    if not one.fits and not any(cut.fits for cut in one.cuts):
        yield "  cut          nothing here is enough: a narrower model, or a smaller vocabulary"
    for cut in one.cuts:
        yield (
            f"  cut          {cut.what}: peak {units.show_bytes(cut.peak_bytes)}, {cut.tokens_per_second:,.1f} tokens/s"
            + ("" if cut.fits else ", still too large")
        )


def _shown() -> Iterator[str]:
    from tumen.fit import devices

    for name, one in devices().items():
        yield (
            f"{name:11s} {one.what}; {units.show_bytes(one.left_bytes)} of {units.show_bytes(one.memory_bytes)} left, "
            f"{one.memory_rate / 1e9:.1f} GB/s reached, {one.cores} cores; NPU: {one.npu}"
        )
        yield f"            source: {one.source}"
        yield f"            assumed: {one.assumptions}"
