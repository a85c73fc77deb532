"""This machine as a device: short trials of the runner become rates, overheads and sizes.

All unknowns of a thread count are fitted at once and never below zero (`calibration.nonnegative`):

    seconds a token   = token + nodes x node + vocabulary x entry + weights / rate, by kind, from the cache or from memory
    seconds a prompt  = prompt + nodes x node + tokens x weights / rate, by kind; the head runs for the last token alone
    peak bytes        = runtime + a x vocabulary + weights x copies, by kind + cache + context x (b x (width + inner) + c x context)
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tumen.plan.calibration import nonnegative
from tumen.plan.case import Array
from tumen.plan.device import BUFFERS, HERE, Buffers, Device, Pace
from tumen.plan.footprint import BITS, Footprint

PRIOR_RATE = 5e9  # weights a second of a generic core
PRIOR_NODE, PRIOR_ENTRY, PRIOR_ONCE = 3e-6, 2e-9, 3e-4
CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
STORAGE_RATE = 1e9  # bytes a second: an assumption, a file that is read often is in memory anyway


@dataclass(frozen=True)
class Trial:
    """One model measured through the runner.

    Attributes:
        far: whether its weights are too many for the cache.
        token_seconds, prompt_seconds: of one token after the prompt, and of the prompt.
        cpu_share: processor seconds of the runner over wall seconds and threads; far below 1 the machine was busy.
        peak_bytes: of the runner's process.
    """

    model: Footprint
    threads: int
    context: int
    prompt_tokens: int
    far: bool
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
    return max((float(size.rstrip("K")) * 1024 for size in sizes if size.endswith("K")), default=0.0)


def device_here(trials: Sequence[Trial]) -> Device:
    """This machine from its trials."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    buffers, copies = sizes(trials)
    return Device(
        name=HERE,
        what=f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        memory_bytes=memory,
        left_bytes=memory,
        memory_rate=max(one.model.read_bytes / one.token_seconds for one in trials if one.far),
        cores=len(os.sched_getaffinity(0)),
        cache_bytes=cache_size(),
        paces={n: pace([one for one in trials if one.threads == n]) for n in sorted({one.threads for one in trials})},
        copies=copies,
        buffers=buffers,
        storage_rate=STORAGE_RATE,
        npu="not looked for",
        source=f"measured through the runner, {len(trials)} trials",
        assumptions="storage: 1 GB/s",
        grade="measured",
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def pace(trials: Sequence[Trial]) -> Pace:
    """Rates and overheads of one number of threads."""
    kinds = sorted({kind for one in trials for kind in one.model.read if kind != "F32"})
    near, far, token, node, entry = decoding(trials, kinds)
    many, prompt, prompt_node = reading(trials, kinds, near, far)
    return Pace(
        near=near,
        far=far,
        many=many,
        node_seconds=node,
        token_seconds=token,
        vocab_seconds=entry,
        prompt_node_seconds=prompt_node,
        prompt_seconds=prompt,
    )


def decoding(trials: Sequence[Trial], kinds: Sequence[str]) -> tuple[dict[str, float], dict[str, float], float, float, float]:
    """Rates near and far by kind, seconds of a token, a node and an entry."""
    rows = [[1.0, one.model.nodes, one.model.vocab, *by_kind(one, kinds, False), *by_kind(one, kinds, True)] for one in trials]
    prior = np.array([PRIOR_ONCE, PRIOR_NODE, PRIOR_ENTRY, *[1 / PRIOR_RATE] * (2 * len(kinds))])
    found = nonnegative(np.array(rows), np.array([one.token_seconds for one in trials]), prior)
    near, far = (rates(kinds, part) for part in np.split(found[3:], 2))
    return near, far, float(found[0]), float(found[1]), float(found[2])


def by_kind(trial: Trial, kinds: Sequence[str], far: bool) -> list[float]:
    """Weights a token reads, by kind, if the trial is of this sort; zeros otherwise."""
    return [trial.model.read.get(kind, 0.0) if trial.far == far else 0.0 for kind in kinds]


def rates(kinds: Sequence[str], seconds: Array) -> dict[str, float]:
    """Weights a second, by kind."""
    return {kind: 1 / max(float(one), 1e-14) for kind, one in zip(kinds, seconds, strict=True)}


def reading(
    trials: Sequence[Trial], kinds: Sequence[str], near: dict[str, float], far: dict[str, float]
) -> tuple[dict[str, float], float, float]:
    """Rates of a prompt by kind, seconds of a prompt and of a node."""
    rows, seconds = [], []
    for one in trials:
        head = one.model.head
        body = [one.model.read.get(kind, 0.0) - (head.values if head.kind == kind else 0) for kind in kinds]
        rows.append([1.0, one.model.nodes, *(one.prompt_tokens * weights for weights in body)])
        alone = head.values / (far if one.far else near)[head.kind]
        seconds.append(max(one.prompt_seconds - alone, 0.1 * one.prompt_seconds))
    prior = np.array([PRIOR_ONCE, 2 * PRIOR_NODE, *[0.5 / PRIOR_RATE] * len(kinds)])
    found = nonnegative(np.array(rows), np.array(seconds), prior)
    return rates(kinds, found[2:]), float(found[0]), float(found[1])


def sizes(trials: Sequence[Trial]) -> tuple[Buffers, dict[str, float]]:
    """What the runner takes beside weights and cache; copies by kind."""
    kinds = sorted({kind for one in trials for kind in one.model.weight_bytes})
    rows = [[*Buffers.grow(one.model, one.context), *(one.model.weight_bytes.get(kind, 0) for kind in kinds)] for one in trials]
    known = np.array([one.peak_bytes - one.model.cache_bytes(one.context) for one in trials])
    found = nonnegative(np.array(rows, dtype=float), known, np.array([*BUFFERS.bytes_per(), *[1.0] * len(kinds)]))
    ours = len(BUFFERS.bytes_per())
    copies = dict.fromkeys(BITS, 1.0) | dict(zip(kinds, map(float, found[ours:]), strict=True))
    return Buffers(**dict(zip(Buffers.model_fields, map(float, found[:ours]), strict=True))), copies
