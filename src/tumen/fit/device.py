"""Devices and their speed: figures with sources (`devices.toml`), or measured on this machine.

Time of a token (roofline, Williams et al. 2009): a weight costs its arithmetic, or its bytes over
the memory's rate, whichever is larger. A model that fits into the cache is not read from memory.
Each node of the graph, each entry of the vocabulary and each token costs a fixed time as well,
which is most of the time of a small model.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from tumen.core.errors import PlanError
from tumen.core.shape import Frozen
from tumen.fit.footprint import Footprint
from tumen.fit.stored import load, store
from tumen.formats.ggml_types import BY_NAME

HERE = "here"
# Column of devices.toml for a tensor type; every other type is counted as int4.
ONE_GROUP = {"Q8_0": "int8", "F16": "bf16", "BF16": "bf16", "F32": "bf16"}
F32_SHARE = 0.5  # of the bf16 rate
VOCABULARY_SECONDS = 2e-9  # an entry: the greedy choice (assumption where nothing was measured)
SCORE_SHARE = 0.5  # of the bf16 rate: multiply-adds of attention (assumption)


class Pace(Frozen):
    """Speed of a number of threads. Rates are weights a second, by tensor type.

    Attributes:
        near, far: one token at a time, from the cache and from memory.
        many: each token of a prompt in one batch.
        node_seconds, prompt_node_seconds: one node of the graph, for one token and for a prompt.
        choice_seconds: one expert of one layer, without its weights.
        token_seconds, prompt_seconds: once a token, once a prompt.
        vocab_seconds: one entry of the vocabulary, for every token.
    """

    near: Mapping[str, float]
    far: Mapping[str, float]
    many: Mapping[str, float]
    node_seconds: float
    token_seconds: float
    vocab_seconds: float
    choice_seconds: float
    prompt_node_seconds: float
    prompt_seconds: float


class Buffers(Frozen):
    """Memory of the runner beside weights and cache, in bytes.

    Attributes:
        runtime: of the runner itself.
        entry: for each entry of the vocabulary (the runner's tables).
        unit: for each unit of width and inner width, times the tokens of the context.
        square: for each pair of tokens of the context (the mask).
    """

    runtime: float
    entry: float
    unit: float
    square: float

    @staticmethod
    def grow(model: Footprint, context: int) -> tuple[float, float, float, float]:
        """How many of each attribute a model and a context need, in their order."""
        units = context * (model.width + model.inner)
        return 1.0, model.vocab, units, context**2

    def bytes_per(self) -> tuple[float, float, float, float]:
        """Bytes of each attribute, in their order."""
        return self.runtime, self.entry, self.unit, self.square

    def total(self, model: Footprint, context: int) -> float:
        """Bytes for a model, without the runtime."""
        counts = self.grow(model, context)[1:]
        sizes = self.bytes_per()[1:]
        return sum(count * size for count, size in zip(counts, sizes, strict=True))


# llama.cpp as measured once (docs/plan.md); the prior for measurements of other machines.
BUFFERS = Buffers(runtime=3.5e7, entry=180.0, unit=8.0, square=6.0)


class Device(Frozen):
    """One kind of device, or this machine. Sizes in bytes, rates a second.

    Attributes:
        left_bytes: memory that one app can count on.
        cache_bytes: models below this are read from the cache.
        paces: by number of threads.
        copies: bytes that the runner holds for a byte of the file, by tensor type: 1 where the file
            is mapped, 2 where it keeps a reordered copy.
    """

    name: str
    what: str
    memory_bytes: float
    left_bytes: float
    memory_rate: float
    cores: int
    cache_bytes: float
    paces: Mapping[int, Pace]
    copies: Mapping[str, float]
    buffers: Buffers
    storage_rate: float
    npu: str
    source: str
    assumptions: str = ""
    grade: Literal["datasheet", "measured"] = "datasheet"
    made: str = ""

    def pace(self, threads: int) -> Pace:
        """Return the speed of `threads` threads.

        Raises:
            PlanError: not that many cores help, or the device was not measured with so many.
        """
        if threads in self.paces:
            return self.paces[threads]
        known = ", ".join(map(str, self.paces))
        raise PlanError(f"--threads {threads}: {self.name} is known with {known} threads")


@cache
def devices() -> dict[str, Device]:
    """Every device of `devices.toml` by name."""
    return {name: _device(name, entry) for name, entry in _table().items()}


def _table() -> dict[str, Any]:
    text = resources.files("tumen.fit").joinpath("devices.toml").read_text("utf-8")
    return tomllib.loads(text)


def device_of(name: str) -> Device:
    """Return the device with this name or alias.

    Raises:
        PlanError: no such device; names the nearest.
    """
    table = _table()
    # Every name and alias -> the device.
    known = {}
    for kind, entry in table.items():
        for alias in (kind, *entry["names"]):
            known[alias] = kind
    wanted = name.strip().lower()
    if wanted in known:
        return devices()[known[wanted]]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]}?" if near else "add it to fit/devices.toml with a source."
    raise PlanError(f"unknown device {name!r}; {hint} Known: {', '.join(table)}, {HERE}")


def _device(name: str, entry: dict[str, Any]) -> Device:
    """Return a device of the table, in bytes and seconds."""
    cores = entry["cores"]
    # No device reaches the memory rate of its datasheet.
    reached = entry["memory_gb_s"] * entry["reached"] * 1e9
    paces = {threads: _pace(entry, threads, reached) for threads in range(1, cores + 1)}
    return Device(
        name=name,
        what=entry["what"],
        memory_bytes=entry["memory_gb"] * 1e9,
        left_bytes=entry["left_gb"] * 1e9,
        memory_rate=reached,
        cores=cores,
        cache_bytes=entry["cache_mb"] * 1e6,
        paces=paces,
        copies={kind: 2.0 if kind in entry["repacked"] else 1.0 for kind in BY_NAME},
        buffers=BUFFERS.model_copy(update={"runtime": entry["runtime_mb"] * 1e6}),
        storage_rate=entry["storage_gb_s"] * 1e9,
        npu=entry["npu"],
        source=entry["source"],
        assumptions=entry["assumptions"],
    )


def _pace(entry: dict[str, Any], threads: int, reached: float) -> Pace:
    """Return the speed of a number of threads, on a memory with a rate of `reached`."""
    # One core alone cannot use the whole memory.
    memory_rate = min(threads * entry["core_gb_s"] * 1e9, reached)
    near = _rates(entry["one"], threads)
    far = {}
    for kind, rate in near.items():
        # A weight waits for its bytes where they come slower than the core computes.
        memory_weights = 8 * memory_rate / BY_NAME[kind].bits
        far[kind] = min(rate, memory_weights)
    node = entry["node_us"] * 1e-6
    return Pace(
        near=near,
        far=far,
        many=_rates(entry["many"], threads),
        node_seconds=node,
        token_seconds=entry["token_us"] * 1e-6,
        vocab_seconds=VOCABULARY_SECONDS,
        # Assumptions: an expert has three matrices, and a batch's node costs twice one token's.
        choice_seconds=3 * node,
        prompt_node_seconds=2 * node,
        prompt_seconds=entry["token_us"] * 1e-6,
    )


def _rates(billions: Mapping[str, float], threads: int) -> dict[str, float]:
    """Return weights a second by tensor type, from billions a second and core by group."""
    rates = {}
    for kind in BY_NAME:
        group = ONE_GROUP.get(kind, "int4")
        rates[kind] = 1e9 * threads * billions[group]
    # Twice the bytes, half the lanes of a vector register.
    rates["F32"] *= F32_SHARE
    return rates


def memory_share(model: Footprint, cache_bytes: float) -> float:
    """Share of a model's weights that is read from memory instead of the cache.

    None of a model that fits into half the cache, all of one as large as the cache: activations and
    other processes use some of it.
    """
    if not cache_bytes:
        return 1.0
    share = 2 * model.kept_bytes / cache_bytes - 1
    return min(1.0, max(0.0, share))


def decode_seconds(model: Footprint, device: Device, threads: int, context: int) -> float:
    """Seconds of one token after `context` others."""
    pace = device.pace(threads)
    far = memory_share(model, device.cache_bytes)
    weights = []
    for kind, count in model.read.items():
        from_memory = far / _rate(pace.far, kind)
        from_cache = (1 - far) / _rate(pace.near, kind)
        weights.append(count * (from_memory + from_cache))
    scores = context * model.layers * model.score_elements / _score_rate(pace)
    graph = model.nodes * pace.node_seconds + model.choices * pace.choice_seconds
    choosing = model.vocab * pace.vocab_seconds + pace.token_seconds
    return sum(weights) + scores + (graph + choosing)


def prompt_seconds(model: Footprint, device: Device, threads: int, tokens: int) -> float:
    """Seconds until the first token after a prompt of `tokens`, processed in one batch."""
    pace = device.pace(threads)
    batch = _batch_seconds(model, pace, tokens)
    # Causal attention: token t attends to t tokens.
    pairs = tokens * tokens / 2
    scores = pairs * model.layers * model.score_elements / _score_rate(pace)
    # A prompt of few tokens costs at least the work of one token.
    one_token = decode_seconds(model, device, threads, 0) - pace.token_seconds
    work = max(batch, one_token)
    return work + scores + model.nodes * pace.prompt_node_seconds + pace.prompt_seconds


def _batch_seconds(model: Footprint, pace: Pace, tokens: int) -> float:
    """Seconds of the weights for `tokens` in one batch."""
    # The head runs once, for the last token of the prompt.
    head = model.head.values
    head_in_batch = head / _rate(pace.many, model.head.kind)
    head_alone = head / _rate(pace.far, model.head.kind)
    all_weights = sum(count / _rate(pace.many, kind) for kind, count in model.read.items())
    body = all_weights - head_in_batch
    return tokens * body + head_alone


def _score_rate(pace: Pace) -> float:
    """Multiply-adds of attention a second."""
    return SCORE_SHARE * _rate(pace.near, "BF16")


def _rate(rates: Mapping[str, float], kind: str) -> float:
    """Return the rate of a tensor type; the slowest of all for a type that was not measured."""
    return rates.get(kind) or min(rates.values())


def store_device(device: Device, path: Path) -> None:
    """Write a measured device.

    Raises:
        DiskError: no room or not permitted.
    """
    store(device, path)


def load_device(path: Path) -> Device:
    """Read a measured device.

    Raises:
        PlanError: missing or damaged.
    """
    return load(Device, path, "measured device", "tumen fit --calibrate")
