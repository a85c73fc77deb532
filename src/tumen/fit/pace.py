"""This machine as a device: short trials of the runner become rates, overheads and sizes.

All unknowns of a thread count are fitted at once and never below zero (`nnls.nonnegative`):

    seconds a token   = token + nodes x node + experts x choice + vocabulary x entry
                        + weights / rate, by kind, from the cache and from memory
    seconds a prompt  = prompt + nodes x node + tokens x weights / rate, by kind; the head runs for the last token alone
    peak bytes        = runtime + a x vocabulary + weights x copies, by kind + cache + context x (b x (width + inner) + c x context)
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tumen.fit.device import BUFFERS, HERE, Buffers, Device, Pace, memory_share
from tumen.fit.footprint import Footprint
from tumen.fit.nnls import Array, nonnegative
from tumen.formats.ggml_types import BY_NAME

PRIOR_RATE = 5e9  # weights a second of a generic core
PRIOR_SECONDS = (3e-4, 3e-6, 2e-9, 9e-6)  # a token, a node, an entry, a choice
CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
STORAGE_RATE = 1e9  # bytes a second: an assumption, a file that is read often is in memory anyway


@dataclass(frozen=True)
class Trial:
    """One model measured through the runner.

    Attributes:
        token_seconds, prompt_seconds: of one token after the prompt, and of the prompt.
        cpu_share: processor seconds of the runner over wall seconds and threads; far below 1 the machine was busy.
        peak_bytes: of the runner's process.
    """

    model: Footprint
    threads: int
    context: int
    prompt_tokens: int
    token_seconds: float
    prompt_seconds: float
    peak_bytes: float
    cpu_share: float


def cache_size() -> float:
    """Bytes of this machine's last cache; 0 where the system does not tell."""
    try:
        sizes = [entry.read_text().strip() for entry in CACHE.glob("index*/size")]
    except OSError:
        return 0.0
    return max(
        (float(size.rstrip("K")) * 1024 for size in sizes if size.endswith("K")), default=0.0
    )


def device_here(trials: Sequence[Trial]) -> Device:
    """This machine from its trials."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    buffers, copies = sizes(trials)
    cache = cache_size()
    return Device(
        name=HERE,
        what=f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        memory_bytes=memory,
        left_bytes=memory,
        memory_rate=max(
            (memory_share(one.model, cache), one.model.read_bytes / one.token_seconds)
            for one in trials
        )[1],
        cores=len(os.sched_getaffinity(0)),
        cache_bytes=cache,
        paces={
            n: pace([one for one in trials if one.threads == n], cache)
            for n in sorted({one.threads for one in trials})
        },
        copies=copies,
        buffers=buffers,
        storage_rate=STORAGE_RATE,
        npu="not looked for",
        source=f"measured through the runner, {len(trials)} trials",
        assumptions="storage: 1 GB/s",
        grade="measured",
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def pace(trials: Sequence[Trial], cache_bytes: float) -> Pace:
    """Rates and overheads of one number of threads."""
    kinds = sorted({kind for one in trials for kind in one.model.read if kind != "F32"})
    near, far, once = decoding(trials, kinds, cache_bytes)
    many, prompt, prompt_node = reading(trials, kinds, far)
    return Pace(
        near=near,
        far=far,
        many=many,
        token_seconds=once[0],
        node_seconds=once[1],
        vocab_seconds=once[2],
        choice_seconds=once[3],
        prompt_node_seconds=prompt_node,
        prompt_seconds=prompt,
    )


def decoding(
    trials: Sequence[Trial], kinds: Sequence[str], cache_bytes: float
) -> tuple[dict[str, float], dict[str, float], tuple[float, ...]]:
    """Rates near and far by kind; seconds of a token, a node, an entry and a choice."""
    rows = []
    for one in trials:
        far, model = memory_share(one.model, cache_bytes), one.model
        read = np.array([model.read.get(kind, 0.0) for kind in kinds])
        rows.append([1.0, model.nodes, model.vocab, model.choices, *(1 - far) * read, *far * read])
    prior = np.array([*PRIOR_SECONDS, *[1 / PRIOR_RATE] * (2 * len(kinds))])
    found = nonnegative(np.array(rows), np.array([one.token_seconds for one in trials]), prior)
    once = len(PRIOR_SECONDS)
    near, far_rates = (rates(kinds, part) for part in np.split(found[once:], 2))
    return near, far_rates, tuple(map(float, found[:once]))


def rates(kinds: Sequence[str], seconds: Array) -> dict[str, float]:
    """Weights a second, by kind."""
    return {kind: 1 / max(float(one), 1e-14) for kind, one in zip(kinds, seconds, strict=True)}


def reading(
    trials: Sequence[Trial], kinds: Sequence[str], far: Mapping[str, float]
) -> tuple[dict[str, float], float, float]:
    """Rates of a prompt by kind, seconds of a prompt and of a node."""
    rows, seconds = [], []
    for one in trials:
        head = one.model.head
        body = [
            one.model.read.get(kind, 0.0) - (head.values if head.kind == kind else 0)
            for kind in kinds
        ]
        rows.append([1.0, one.model.nodes, *(one.prompt_tokens * weights for weights in body)])
        seconds.append(
            max(one.prompt_seconds - head.values / far[head.kind], 0.1 * one.prompt_seconds)
        )
    prior = np.array([PRIOR_SECONDS[0], 2 * PRIOR_SECONDS[1], *[0.5 / PRIOR_RATE] * len(kinds)])
    found = nonnegative(np.array(rows), np.array(seconds), prior)
    return rates(kinds, found[2:]), float(found[0]), float(found[1])


def sizes(trials: Sequence[Trial]) -> tuple[Buffers, dict[str, float]]:
    """What the runner takes beside weights and cache; copies by kind."""
    kinds = sorted({kind for one in trials for kind in one.model.weight_bytes})
    rows = [
        [
            *Buffers.grow(one.model, one.context),
            *(one.model.weight_bytes.get(kind, 0) for kind in kinds),
        ]
        for one in trials
    ]
    known = np.array([one.peak_bytes - one.model.cache_bytes(one.context) for one in trials])
    found = nonnegative(
        np.array(rows, dtype=float), known, np.array([*BUFFERS.bytes_per(), *[1.0] * len(kinds)])
    )
    ours = len(BUFFERS.bytes_per())
    copies = dict.fromkeys(BY_NAME, 1.0) | dict(zip(kinds, map(float, found[ours:]), strict=True))
    return Buffers(**dict(zip(Buffers.model_fields, map(float, found[:ours]), strict=True))), copies
