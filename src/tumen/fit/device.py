"""Devices: figures with their sources (`devices.toml`), or measured on this machine; and how fast a number of threads is there.

Physics of a token (roofline, Williams et al. 2009): a weight costs the larger of its arithmetic and its bytes over the memory's
rate; a model that the last cache holds is not read from memory at all. To that comes a time for every node of the graph,
every entry of the vocabulary and every token, which is most of what a small model costs.
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
ONE_GROUP = {
    "Q8_0": "int8",
    "F16": "bf16",
    "BF16": "bf16",
    "F32": "bf16",
}  # every other kind is counted as int4
F32_SHARE = 0.5  # of the bf16 rate
VOCABULARY_SECONDS = 2e-9  # an entry: the greedy choice (assumption where nothing was measured)
SCORE_SHARE = 0.5  # of the bf16 rate: multiply-adds of attention (assumption)


class Pace(Frozen):
    """How fast a number of threads is. Rates are weights a second, by kind.

    Attributes:
        near, far: one token at a time, from the cache and from memory.
        many: each token of a prompt in one batch.
        node_seconds, prompt_node_seconds: one node of the graph, for one token and for a prompt.
        choice_seconds: one expert of one layer, beside its weights.
        token_seconds, prompt_seconds: once for every token, once for every prompt.
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
    """What the runner takes beside weights and cache, in bytes: itself, and for every unit of what makes it grow.

    Attributes:
        entry: of the vocabulary, for the runner's tables.
        unit: of width and inner width, for each token of a prompt as long as the context.
        square: of the context, for the mask.
    """

    runtime: float
    entry: float
    unit: float
    square: float

    @staticmethod
    def grow(model: Footprint, context: int) -> tuple[float, float, float, float]:
        """How many of each."""
        return 1.0, model.vocab, context * (model.width + model.inner), context**2

    def bytes_per(self) -> tuple[float, float, float, float]:
        """Bytes of each."""
        return self.runtime, self.entry, self.unit, self.square

    def total(self, model: Footprint, context: int) -> float:
        """Bytes for a model, the runtime left out."""
        return sum(
            count * size
            for count, size in list(zip(self.grow(model, context), self.bytes_per(), strict=True))[
                1:
            ]
        )


BUFFERS = Buffers(
    runtime=3.5e7, entry=180.0, unit=8.0, square=6.0
)  # llama.cpp as measured once (docs/plan.md); a prior elsewhere


class Device(Frozen):
    """One kind of device, or this machine. Sizes in bytes, rates a second.

    Attributes:
        left_bytes: what one app may count on.
        cache_bytes: models below this are read from the cache.
        paces: by number of threads.
        copies: bytes the runner holds for a byte of the file, by kind: 1 mapped, 2 where it keeps a reordered copy.
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
        """The pace of `threads` threads.

        Raises:
            PlanError: the device has not so many cores that help, or was not measured with so many.
        """
        if threads in self.paces:
            return self.paces[threads]
        raise PlanError(
            f"--threads {threads}: {self.name} is known with {', '.join(map(str, self.paces))} threads"
        )


@cache
def devices() -> dict[str, Device]:
    """Every device of `devices.toml` by name."""
    table = tomllib.loads(resources.files("tumen.fit").joinpath("devices.toml").read_text("utf-8"))
    return {name: _device(name, entry) for name, entry in table.items()}


def device_of(name: str) -> Device:
    """The device called `name`, or one of its long names.

    Raises:
        PlanError: no such device; names the nearest.
    """
    table = tomllib.loads(resources.files("tumen.fit").joinpath("devices.toml").read_text("utf-8"))
    known = {alias: kind for kind, entry in table.items() for alias in (kind, *entry["names"])}
    if name.strip().lower() in known:
        return devices()[known[name.strip().lower()]]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]}?" if near else "add it to plan/devices.toml with a source"
    raise PlanError(f"unknown device {name!r}; {hint} Known: {', '.join(table)}, {HERE}")


def _device(name: str, entry: dict[str, Any]) -> Device:
    cores, reached = entry["cores"], entry["memory_gb_s"] * entry["reached"] * 1e9
    return Device(
        name=name,
        what=entry["what"],
        memory_bytes=entry["memory_gb"] * 1e9,
        left_bytes=entry["left_gb"] * 1e9,
        memory_rate=reached,
        cores=cores,
        cache_bytes=entry["cache_mb"] * 1e6,
        paces={
            n: _pace(entry, n, min(n * entry["core_gb_s"] * 1e9, reached))
            for n in range(1, cores + 1)
        },
        copies={kind: 2.0 if kind in entry["repacked"] else 1.0 for kind in BY_NAME},
        buffers=BUFFERS.model_copy(update={"runtime": entry["runtime_mb"] * 1e6}),
        storage_rate=entry["storage_gb_s"] * 1e9,
        npu=entry["npu"],
        source=entry["source"],
        assumptions=entry["assumptions"],
    )


def _pace(entry: dict[str, Any], threads: int, memory_rate: float) -> Pace:
    near = _rates(entry["one"], threads)
    node = entry["node_us"] * 1e-6
    return Pace(
        near=near,
        far={kind: min(rate, 8 * memory_rate / BY_NAME[kind].bits) for kind, rate in near.items()},
        many=_rates(entry["many"], threads),
        node_seconds=node,
        token_seconds=entry["token_us"] * 1e-6,
        vocab_seconds=VOCABULARY_SECONDS,
        choice_seconds=3 * node,
        prompt_node_seconds=2 * node,
        prompt_seconds=entry["token_us"] * 1e-6,
    )


def _rates(billions: Mapping[str, float], threads: int) -> dict[str, float]:
    rates = {kind: 1e9 * threads * billions[ONE_GROUP.get(kind, "int4")] for kind in BY_NAME}
    return rates | {"F32": F32_SHARE * rates["F32"]}


def memory_share(model: Footprint, cache_bytes: float) -> float:
    """The share of a model's weights that comes from memory: none of what half the cache holds, all from the whole cache on.

    The cache is not ours alone: what else runs, and the activations, take some of it.
    """
    return min(1.0, max(0.0, 2 * model.kept_bytes / cache_bytes - 1)) if cache_bytes else 1.0


def decode_seconds(model: Footprint, device: Device, threads: int, context: int) -> float:
    """Seconds of one token after `context` others."""
    pace = device.pace(threads)
    far = memory_share(model, device.cache_bytes)
    weights = sum(
        count * (far / _rate(pace.far, kind) + (1 - far) / _rate(pace.near, kind))
        for kind, count in model.read.items()
    )
    scores = (
        context * model.layers * model.score_elements / (SCORE_SHARE * _rate(pace.near, "BF16"))
    )
    overhead = model.nodes * pace.node_seconds + model.choices * pace.choice_seconds
    overhead += model.vocab * pace.vocab_seconds + pace.token_seconds
    return weights + scores + overhead


def prompt_seconds(model: Footprint, device: Device, threads: int, tokens: int) -> float:
    """Seconds until the first token after a prompt of `tokens`, read in one batch; the head runs once."""
    pace = device.pace(threads)
    head = model.head.values
    body = sum(count / _rate(pace.many, kind) for kind, count in model.read.items()) - head / _rate(
        pace.many, model.head.kind
    )
    alone = head / _rate(pace.far, model.head.kind)
    scores = (
        tokens
        * tokens
        / 2
        * model.layers
        * model.score_elements
        / (SCORE_SHARE * _rate(pace.near, "BF16"))
    )
    work = max(
        tokens * body + alone, decode_seconds(model, device, threads, 0) - pace.token_seconds
    )
    return work + scores + model.nodes * pace.prompt_node_seconds + pace.prompt_seconds


def _rate(rates: Mapping[str, float], kind: str) -> float:
    """The rate of a kind; one that was not measured is taken to be as slow as the slowest that was."""
    return rates.get(kind) or min(rates.values())


def store_device(device: Device, path: Path) -> None:
    """Write a measured device; raises as `kept.store`."""
    store(device, path)


def load_device(path: Path) -> Device:
    """Read a measured device.

    Raises:
        PlanError: missing or damaged.
    """
    return load(Device, path, "measured device", "tumen fit --calibrate")
