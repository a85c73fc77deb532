"""Does a model fit a device: bytes, seconds, and what to cut when it does not.

Peak memory is what the runner's process holds at most: the runtime, the weights (twice where it
keeps a reordered copy), keys and values for the whole context, and the buffers of the graph for a
prompt as long as the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.fit.device import Device, decode_seconds, memory_share, prompt_seconds
from tumen.fit.footprint import CACHE_CELLS, QUANTIZED, Footprint

# What a model is predicted for.
PROMPT_TOKENS = 24  # a typical sentence
ANSWER_TOKENS = 20  # a typical action
# Types with fewer bits, the largest first.
SMALLER = {"bf16": ("int8", "int4"), "int8": ("int4",), "int4": ()}


class Memory(Frozen):
    """Memory of the runner's process, in bytes.

    `weights` are mapped from the file, `copies` are weights that it reorders.
    """

    weights: float
    copies: float
    cache: float
    buffers: float
    runtime: float

    @property
    def total(self) -> float:
        """All of them, at the peak."""
        return self.weights + self.copies + self.cache + self.buffers + self.runtime


class Cut(Frozen):
    """One way to make a model fit, with its size and speed then."""

    what: str
    file_bytes: float
    peak_bytes: float
    tokens_per_second: float
    fits: bool


class Fit(Frozen):
    """Prediction of a model on a device. Sizes in bytes."""

    model: str
    quantize: str
    parameters: int
    device: str
    grade: str
    threads: int
    context: int
    memory_limit_bytes: float
    file_bytes: float
    peak_bytes: float
    memory: Memory
    load_seconds: float
    first_token_seconds: float
    tokens_per_second: float
    from_memory: float
    fits: bool
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a model is to run: a device, threads, a context in tokens, a hard limit in bytes."""

    device: Device
    threads: int
    context: int
    limit: float

    def holds(self, model: Footprint) -> bool:
        """Whether the model stays below the limit."""
        return memory_of(model, self.device, self.context).total <= self.limit


def fit_on(
    model: Footprint,
    device: Device,
    threads: int = 1,
    context: int = 512,
    memory_bytes: float | None = None,
) -> Fit:
    """Predict a model on a device.

    Args:
        model: the footprint.
        device: of the table, or measured.
        threads: of the runner.
        context: tokens of sentence and action together.
        memory_bytes: hard limit; default: the memory that an app can count on.

    Raises:
        PlanError: the device is not known with so many threads.
    """
    limit = device.left_bytes if memory_bytes is None else memory_bytes
    place = Place(device, threads, context, limit)
    memory = memory_of(model, device, context)
    fits = memory.total <= limit
    # Speed in the middle of an answer.
    middle = PROMPT_TOKENS + ANSWER_TOKENS // 2
    token_seconds = decode_seconds(model, device, threads, middle)
    return Fit(
        model=model.name,
        quantize=model.quantize,
        parameters=model.parameters,
        device=device.name,
        grade=device.grade,
        threads=threads,
        context=context,
        memory_limit_bytes=place.limit,
        file_bytes=model.file_bytes,
        peak_bytes=memory.total,
        memory=memory,
        load_seconds=model.file_bytes / device.storage_rate,
        first_token_seconds=prompt_seconds(model, device, threads, PROMPT_TOKENS),
        tokens_per_second=1 / token_seconds,
        from_memory=memory_share(model, device.cache_bytes),
        fits=fits,
        cuts=() if fits else tuple(cuts(model, place)),
    )


def memory_of(model: Footprint, device: Device, context: int) -> Memory:
    """Bytes of the runner's process at its peak."""
    weights = sum(model.weight_bytes.values())
    # A file is mapped, so its weights are there once; reordered copies come on top.
    held = sum(size * device.copies.get(kind, 1.0) for kind, size in model.weight_bytes.items())
    return Memory(
        weights=weights,
        copies=held - weights,
        cache=model.cache_bytes(context),
        buffers=device.buffers.total(model, context),
        runtime=device.buffers.runtime,
    )


def cuts(model: Footprint, place: Place) -> list[Cut]:
    """Return ways to come below a limit, those that cost least quality first.

    A shorter context, fewer bits, fewer layers; all at once where none of them is enough.
    """
    found = list(_cuts(model, place))
    if any(one.fits for one in found):
        return found
    # The shortest context that the runner has.
    least = replace(place, context=min(place.context, CACHE_CELLS))
    smallest = model.but(quantize=_smallest_type(model))
    layers = most_layers(smallest, least)
    if layers:
        words = f"context {least.context}, {smallest.quantize}, layers {model.layers} -> {layers}"
        found.append(cut(words, smallest.but(layers=layers), least))
    return found


def _smallest_type(model: Footprint) -> str | None:
    """Return the type with the fewest bits; None where a model has it, or a type of its own."""
    smaller = SMALLER.get(model.quantize, ())
    return smaller[-1] if smaller else None


def _cuts(model: Footprint, place: Place) -> Iterator[Cut]:
    """Yield one change at a time, and at last fewer layers with fewer bits."""
    shorter = longest_context(model, place)
    if shorter:
        yield cut(f"context {place.context} -> {shorter}", model, replace(place, context=shorter))
    # A model in another type, such as Q6_K, may become any of ours.
    for quantize in SMALLER.get(model.quantize, tuple(QUANTIZED)):
        yield cut(f"{model.quantize} -> {quantize}", model.but(quantize=quantize), place)
    yield from _layer_cut(model, model, place, "")
    smallest = _smallest_type(model)
    if smallest:
        words = f" and {model.quantize} -> {smallest}"
        yield from _layer_cut(model, model.but(quantize=smallest), place, words)


def _layer_cut(model: Footprint, smaller: Footprint, place: Place, words: str) -> Iterator[Cut]:
    """Yield a cut of layers, if some number of them fits."""
    layers = most_layers(smaller, place)
    if layers:
        words = f"layers {model.layers} -> {layers}{words}"
        yield cut(words, smaller.but(layers=layers), place)


def cut(what: str, model: Footprint, place: Place) -> Cut:
    """Return size and speed of a model after one change."""
    peak = memory_of(model, place.device, place.context).total
    # After the prompt, as at the first token of an answer.
    rate = 1 / decode_seconds(model, place.device, place.threads, PROMPT_TOKENS)
    return Cut(
        what=what,
        file_bytes=model.file_bytes,
        peak_bytes=peak,
        tokens_per_second=rate,
        fits=peak <= place.limit,
    )


def longest_context(model: Footprint, place: Place) -> int:
    """Return the longest shorter context within the limit, in the runner's steps; 0: none."""
    below = (place.context - 1) // CACHE_CELLS * CACHE_CELLS
    for context in range(below, 0, -CACHE_CELLS):
        if replace(place, context=context).holds(model):
            return context
    return 0


def most_layers(model: Footprint, place: Place) -> int:
    """Return the most layers within the limit, fewer than now; 0: not even one fits."""
    for layers in range(model.layers - 1, 0, -1):
        if place.holds(model.but(layers=layers)):
            return layers
    return 0


def best(fits: Sequence[Fit]) -> Fit | None:
    """The largest model that fits."""
    fitting = [fit for fit in fits if fit.fits]
    return max(fitting, key=lambda fit: fit.parameters, default=None)


def checked_context(context: int) -> int:
    """Return a context if it makes sense.

    Raises:
        PlanError: it is below 1.
    """
    if context < 1:
        raise PlanError(f"--context {context}: a sentence has at least one token; the usual is 512")
    return context
