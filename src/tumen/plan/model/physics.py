"""The constants of the cost model: few, named, each with a prior.

`facts/physics.toml` holds the fitted values and what they were fitted to. One set serves all rows,
networks and accelerators.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources

import numpy as np

from tumen.plan.model.scenario import Array


@dataclass(frozen=True)
class Physics:
    """Fitted constants. The defaults are the priors that a fit starts from and is pulled to."""

    # matmuls: share of the best measured matmul that training reaches, by generation
    matmul_ampere: float = 0.88
    matmul_hopper: float = 0.8
    matmul_blackwell: float = 0.75
    matmul_other: float = 0.8
    matmul8_hopper: float = 0.9  # 8-bit as a multiple of the 16-bit share
    matmul8_blackwell: float = 0.95
    matmul4: float = 0.7  # 4-bit as a multiple of the 8-bit share
    matmul8_row: float = 0.65  # the same for 8-bit with a scale a row, which has no library kernel
    knee: float = 200.0  # side of a matmul that runs at half the best rate on an A100
    knee_power: float = 0.6  # the knee grows with this power of the peak
    grouped: float = 1.1  # seconds of grouped expert matmuls over those of plain ones
    # attention: share of the bf16 peak on causal FLOPs, Ampere
    flash1: float = 0.4
    flash2: float = 0.62
    flash3: float = 0.65
    flash_hopper: float = 0.75  # the same kernels on Hopper and Blackwell, as a multiple
    flash_blackwell: float = 0.7
    head_knee: float = 16.0  # head width that runs at half the rate
    context_knee: float = 256.0  # context length that runs at half the rate
    batched: float = 0.5  # share of the peak of batched matmuls, unfused attention
    unaligned: float = 3.0  # slow-down of heads whose width is not a multiple of 8
    softmax_unfused: float = 2.5  # passes over the scores of a softmax that is not fused
    score_bytes: float = 11.0  # bytes moved for one attention score, unfused, forward
    # elementwise operators
    memory: float = 0.75  # share of the memory bandwidth
    eager: float = 1.6  # time over that of hand-fused operators
    compiled: float = 0.7
    permute: float = 8.0  # passes over routed tokens
    permute_fused: float = 6.0  # where dispatch and permutation are one kernel (wide domains)
    # links: shares of the peak, and seconds of one hop
    link: float = 0.75
    network: float = 0.75
    network_p2p: float = 0.7
    all_to_all: float = 0.7  # share of either link that dispatch and combine reach
    link_latency: float = 8e-6
    network_latency: float = 15e-6
    bucket_bytes: float = 2e8  # of gradients sent at once
    # shares of traffic that hide behind compute
    tp_hidden: float = 0.7
    tp_hidden_backward: float = 0.2
    tp_meet: float = 2e-5  # seconds a rank waits for the slowest host at a collective
    cp_hidden: float = 0.8
    ep_hidden: float = 0.6
    fsdp_hidden: float = 0.85
    dp_hidden: float = 0.8
    dp_window: float = 1.0  # share of the last backward pass that gradients can hide behind
    pp_hidden: float = 0.8
    pp_shown: float = 0.6  # share of a send that shows without overlap
    # host: seconds
    launch: float = 6e-4  # forward kernels of one layer
    launch_tp: float = 1e-5  # more for (tp - 1) squared: ranks wait for each other's hosts
    launch_moe: float = 2.0  # a mixture layer launches as much again, times this
    launch_moe_graph: float = 1.0  # where the router and its dispatch are captured in a graph
    launch_backward: float = 1.2  # over the forward pass
    step_overhead: float = 0.01  # of a step


NAMES = tuple(f.name for f in fields(Physics))
# Constants between 0 and 1; the others are above 0.
SHARES = frozenset(
    {
        "tp_hidden",
        "tp_hidden_backward",
        "cp_hidden",
        "ep_hidden",
        "fsdp_hidden",
        "dp_hidden",
        "pp_hidden",
        "link",
        "network",
        "all_to_all",
        "network_p2p",
        "memory",
        "pp_shown",
        "flash1",
        "flash2",
        "flash3",
        "batched",
    }
)


def physics_of(values: Mapping[str, float]) -> Physics:
    """Return the priors with some constants replaced."""
    return replace(Physics(), **values)


@cache
def fitted() -> Physics:
    """Return the constants that this release ships."""
    text = resources.files("tumen.plan.facts").joinpath("physics.toml").read_text("utf-8")
    return physics_of(tomllib.loads(text)["constants"])


def vector(physics: Physics) -> Array:
    """Return the constants as unbounded numbers: logits of shares, logarithms of the others."""
    return np.array([_unbounded(name, getattr(physics, name)) for name in NAMES])


def from_vector(numbers: Array) -> Physics:
    """Return the constants of unbounded numbers, the inverse of `vector`."""
    values = {name: _bounded(name, x) for name, x in zip(NAMES, numbers, strict=True)}
    return Physics(**values)


def _unbounded(name: str, value: float) -> float:
    if name in SHARES:
        return float(np.log(value / (1 - value)))
    return float(np.log(value))


def _bounded(name: str, x: float) -> float:
    if name in SHARES:
        return float(1 / (1 + np.exp(-x)))
    return float(np.exp(x))
