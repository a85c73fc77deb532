"""Does a model fit a device: bytes, seconds, and what to cut when it does not.

Peak memory is what the runner's process holds at most: itself, the weights (twice where it keeps a reordered copy), keys and
values for the whole context, and the buffers of the graph for a prompt as long as the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.fit.device import Device, decode_seconds, memory_share, prompt_seconds
from tumen.fit.footprint import CACHE_CELLS, QUANTISED, Footprint

PROMPT_TOKENS = 24  # a typical sentence
ANSWER_TOKENS = 20  # a typical action
SMALLER = {"bf16": ("int8", "int4"), "int8": ("int4",), "int4": ()}


class Memory(Frozen):
    """Where the bytes of the runner's process are. `weights` are mapped from the file, `copies` are what it reorders."""

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
    """One way to make a model fit, with what it then takes."""

    what: str
    file_bytes: float
    peak_bytes: float
    tokens_per_second: float
    fits: bool


class Fit(Frozen):
    """What a model takes on a device."""

    model: str
    quantise: str
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
    """Where a model shall run: a device, threads, a context in tokens, a hard limit in bytes."""

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
        context: tokens of sentence and action together.
        memory_bytes: hard limit; default: what the device has left for an app.

    Raises:
        PlanError: the device is not known with so many threads.
    """
    place = Place(
        device, threads, context, device.left_bytes if memory_bytes is None else memory_bytes
    )
    memory, fits = memory_of(model, device, context), place.holds(model)
    token = decode_seconds(model, device, threads, PROMPT_TOKENS + ANSWER_TOKENS // 2)
    return Fit(
        model=model.name,
        quantise=model.quantise,
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
        tokens_per_second=1 / token,
        from_memory=memory_share(model, device.cache_bytes),
        fits=fits,
        cuts=() if fits else tuple(cuts(model, place)),
    )


def memory_of(model: Footprint, device: Device, context: int) -> Memory:
    """Bytes of the runner's process at its peak."""
    weights = sum(model.weight_bytes.values())
    held = sum(size * device.copies.get(kind, 1.0) for kind, size in model.weight_bytes.items())
    return Memory(
        weights=weights,
        copies=held - weights,
        cache=model.cache_bytes(context),
        buffers=device.buffers.total(model, context),
        runtime=device.buffers.runtime,
    )


def cuts(model: Footprint, place: Place) -> list[Cut]:
    """Ways to come below a limit, the gentlest first: a shorter context, fewer bits, fewer layers; all at once if it takes that."""
    single = list(_cuts(model, place))
    least, quantise = (
        replace(place, context=min(place.context, CACHE_CELLS)),
        SMALLER.get(model.quantise, ())[-1:],
    )
    smallest = model.but(quantise=quantise[0] if quantise else None)
    if not any(one.fits for one in single) and (layers := most_layers(smallest, least)):
        words = f"context {least.context}, {smallest.quantise}, layers {model.layers} -> {layers}"
        single.append(cut(words, smallest.but(layers=layers), least))
    return single


def _cuts(model: Footprint, place: Place) -> Iterator[Cut]:
    """One thing at a time, and layers with fewer bits."""
    if shorter := longest_context(model, place):
        yield cut(f"context {place.context} -> {shorter}", model, replace(place, context=shorter))
    for quantise in SMALLER.get(model.quantise, tuple(QUANTISED)):
        yield cut(f"{model.quantise} -> {quantise}", model.but(quantise=quantise), place)
    for fewer in (None, *SMALLER.get(model.quantise, ())[-1:]):
        smaller = model.but(quantise=fewer)
        if layers := most_layers(smaller, place):
            words = f"layers {model.layers} -> {layers}" + (
                f" and {model.quantise} -> {fewer}" if fewer else ""
            )
            yield cut(words, smaller.but(layers=layers), place)


def cut(what: str, model: Footprint, place: Place) -> Cut:
    """One change, in numbers."""
    peak = memory_of(model, place.device, place.context).total
    rate = 1 / decode_seconds(model, place.device, place.threads, PROMPT_TOKENS)
    return Cut(
        what=what,
        file_bytes=model.file_bytes,
        peak_bytes=peak,
        tokens_per_second=rate,
        fits=peak <= place.limit,
    )


def longest_context(model: Footprint, place: Place) -> int:
    """The longest shorter context within the limit, a multiple of the runner's step; 0: none."""
    steps = range((place.context - 1) // CACHE_CELLS * CACHE_CELLS, 0, -CACHE_CELLS)
    return next((one for one in steps if replace(place, context=one).holds(model)), 0)


def most_layers(model: Footprint, place: Place) -> int:
    """Most layers within the limit, fewer than now; 0: not even one fits."""
    return next((n for n in range(model.layers - 1, 0, -1) if place.holds(model.but(layers=n))), 0)


def best(fits: Sequence[Fit]) -> Fit | None:
    """The largest model that fits."""
    return max((one for one in fits if one.fits), key=lambda one: one.parameters, default=None)


def checked_context(context: int) -> int:
    """A context that makes sense.

    Raises:
        PlanError: it does not.
    """
    if context < 1:
        raise PlanError(f"--context {context}: a sentence has at least one token; the usual is 512")
    return context
