"""Measure this machine as a device: trials of the runner become rates, overheads and sizes.

All unknowns of a thread count are fitted at once and are never negative (`nnls.nonnegative`):

    seconds a token   = token + nodes x node + experts x choice + vocabulary x entry
                        + weights / rate, by tensor type, from the cache and from memory
    seconds a prompt  = prompt + nodes x node + tokens x weights / rate, by tensor type;
                        the head runs for the last token only
    peak bytes        = runtime + a x vocabulary + weights x copies, by tensor type + cache
                        + context x (b x (width + inner) + c x context)
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tumen.fit.device import BUFFERS, HERE, Buffers, Device, Pace, memory_share
from tumen.fit.footprint import Footprint
from tumen.fit.nnls import Array, nonnegative
from tumen.formats.ggml_types import BY_NAME

# Priors of a generic core: what an unknown is near where the trials do not decide.
PRIOR_RATE = 5e9  # weights a second
PRIOR_SECONDS = (3e-4, 3e-6, 2e-9, 9e-6)  # a token, a node, an entry, a choice
LEAST_SECONDS = 1e-14  # of a weight; one that the fit finds to be free gets this
LEAST_BODY_SHARE = 0.1  # of a prompt's time, whatever the head is measured to take
CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
STORAGE_RATE = 1e9  # bytes a second: an assumption, a file that is read often is in memory anyway


@dataclass(frozen=True)
class Trial:
    """One model measured through the runner.

    Attributes:
        token_seconds, prompt_seconds: of one token after the prompt, and of the prompt.
        cpu_share: processor seconds of the runner over wall seconds and threads; well below 1 the
            machine was busy with something else.
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
    """Bytes of this machine's last-level cache; 0 where the system does not say."""
    try:
        sizes = [entry.read_text().strip() for entry in CACHE.glob("index*/size")]
    except OSError:
        return 0.0
    # The kernel writes sizes such as 32768K; the largest is that of the last level.
    kibibytes = [float(size.rstrip("K")) for size in sizes if size.endswith("K")]
    return max(kibibytes, default=0.0) * 1024


def device_here(trials: Sequence[Trial]) -> Device:
    """Return this machine as a device, from trials of the runner."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    # Of the cores those that this process may use, as in a container.
    cores = len(os.sched_getaffinity(0))
    buffers, copies = sizes(trials)
    cache = cache_size()
    paces = {}
    for threads in sorted({trial.threads for trial in trials}):
        same = [trial for trial in trials if trial.threads == threads]
        paces[threads] = pace(same, cache)
    return Device(
        name=HERE,
        what=f"{platform.processor() or platform.machine()}, {cores} cores",
        memory_bytes=memory,
        left_bytes=memory,
        memory_rate=_memory_rate(trials, cache),
        cores=cores,
        cache_bytes=cache,
        paces=paces,
        copies=copies,
        buffers=buffers,
        storage_rate=STORAGE_RATE,
        npu="not looked for",
        source=f"measured through the runner, {len(trials)} trials",
        assumptions="storage: 1 GB/s",
        grade="measured",
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _memory_rate(trials: Sequence[Trial], cache_bytes: float) -> float:
    """Bytes a second, from the fastest trial among those that read most from memory."""
    # A model that the cache holds says nothing about the memory.
    rates = []
    for trial in trials:
        share = memory_share(trial.model, cache_bytes)
        rates.append((share, trial.model.read_bytes / trial.token_seconds))
    return max(rates)[1]


def pace(trials: Sequence[Trial], cache_bytes: float) -> Pace:
    """Return rates and overheads of one number of threads."""
    found = {kind for trial in trials for kind in trial.model.read}
    # Only routers are fp32, too small to measure.
    kinds = sorted(found - {"F32"})
    decoded = decoding(trials, kinds, cache_bytes)
    prompts = reading(trials, kinds, decoded["far"])
    return Pace.model_validate({**decoded, **prompts})


def decoding(trials: Sequence[Trial], kinds: Sequence[str], cache_bytes: float) -> dict[str, Any]:
    """Fit the time of a token.

    Args:
        trials: of one number of threads.
        kinds: tensor types in them.
        cache_bytes: of this machine.

    Returns:
        Fields of `Pace`: rates from the cache and from memory, and seconds of a token, a node, an
        entry of the vocabulary and a choice of an expert.
    """
    rows = [_token_row(trial.model, kinds, cache_bytes) for trial in trials]
    seconds = np.array([trial.token_seconds for trial in trials])
    prior_weights = [1 / PRIOR_RATE] * (2 * len(kinds))
    prior = np.array([*PRIOR_SECONDS, *prior_weights])
    found = nonnegative(np.array(rows), seconds, prior)
    overheads, weights = np.split(found, [len(PRIOR_SECONDS)])
    near, far = np.split(weights, 2)
    token, node, entry, choice = map(float, overheads)
    return {
        "near": rates(kinds, near),
        "far": rates(kinds, far),
        "token_seconds": token,
        "node_seconds": node,
        "vocab_seconds": entry,
        "choice_seconds": choice,
    }


def _token_row(model: Footprint, kinds: Sequence[str], cache_bytes: float) -> list[float]:
    """How often one token pays each unknown: overheads, weights near, weights far."""
    far = memory_share(model, cache_bytes)
    read = np.array([model.read.get(kind, 0.0) for kind in kinds])
    counts = [1.0, model.nodes, model.vocab, model.choices]
    return [*counts, *(1 - far) * read, *far * read]


def rates(kinds: Sequence[str], seconds: Array) -> dict[str, float]:
    """Return weights a second by kind, from the seconds of a weight."""
    found = {}
    for kind, one in zip(kinds, seconds, strict=True):
        found[kind] = 1 / max(float(one), LEAST_SECONDS)
    return found


def reading(
    trials: Sequence[Trial], kinds: Sequence[str], far: Mapping[str, float]
) -> dict[str, Any]:
    """Fit the time of a prompt.

    Args:
        trials: of one number of threads.
        kinds: tensor types in them.
        far: weights a second from memory, by kind, as `decoding` found.

    Returns:
        Fields of `Pace`: rates in a batch, seconds of a prompt and of a node.
    """
    rows = []
    seconds = []
    for trial in trials:
        body = _body_weights(trial.model, kinds)
        rows.append([1.0, trial.model.nodes, *(trial.prompt_tokens * body)])
        seconds.append(_body_seconds(trial, far))
    # One core computes a batch some twice as fast, weight for weight.
    prior_weights = [0.5 / PRIOR_RATE] * len(kinds)
    prior = np.array([PRIOR_SECONDS[0], 2 * PRIOR_SECONDS[1], *prior_weights])
    found = nonnegative(np.array(rows), np.array(seconds), prior)
    prompt, node, *weights = map(float, found)
    return {
        "many": rates(kinds, np.array(weights)),
        "prompt_seconds": prompt,
        "prompt_node_seconds": node,
    }


def _body_seconds(trial: Trial, far: Mapping[str, float]) -> float:
    """Seconds of a prompt without its head, which reads its weights once."""
    head = trial.model.head
    rest = trial.prompt_seconds - head.values / far[head.kind]
    # Noise must not make the rest negative.
    least = LEAST_BODY_SHARE * trial.prompt_seconds
    return max(rest, least)


def _body_weights(model: Footprint, kinds: Sequence[str]) -> Array:
    """Weights that each token of a prompt reads, by kind: all but the head."""
    weights = np.array([model.read.get(kind, 0.0) for kind in kinds])
    if model.head.kind in kinds:
        weights[kinds.index(model.head.kind)] -= model.head.values
    return weights


def sizes(trials: Sequence[Trial]) -> tuple[Buffers, dict[str, float]]:
    """Fit the memory of the runner.

    Args:
        trials: of all numbers of threads.

    Returns:
        Buffers, and bytes held for a byte of weights by kind.
    """
    kinds = sorted({kind for trial in trials for kind in trial.model.weight_bytes})
    rows = np.array([_memory_row(trial, kinds) for trial in trials])
    # The cache is counted exactly, so only the rest is unknown.
    rest = [trial.peak_bytes - trial.model.cache_bytes(trial.context) for trial in trials]
    prior_buffers = BUFFERS.bytes_per()
    prior = np.array([*prior_buffers, *[1.0] * len(kinds)])
    found = nonnegative(rows, np.array(rest), prior)
    buffers_found, copies_found = np.split(found, [len(prior_buffers)])
    buffers = dict(zip(Buffers.model_fields, map(float, buffers_found), strict=True))
    # A type without a trial is taken to be mapped, not copied.
    copies = dict.fromkeys(BY_NAME, 1.0)
    copies.update(zip(kinds, map(float, copies_found), strict=True))
    return Buffers(**buffers), copies


def _memory_row(trial: Trial, kinds: Sequence[str]) -> list[float]:
    """How often a trial needs each unknown: buffers, bytes of weights by kind."""
    weights = [float(trial.model.weight_bytes.get(kind, 0)) for kind in kinds]
    return [*map(float, Buffers.grow(trial.model, trial.context)), *weights]
