"""The constants of the cost model: few, named, with a prior each; `physics.toml` holds the fitted values and how they
came.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources

import numpy as np

from tumen.plan.model.case import Array


@dataclass(frozen=True)
class Physics:
    """Fitted constants; the default is the prior a fit starts from and is pulled to."""

    matmul_ampere: float = 0.88  # share of the best measured matmul that training sees
    matmul_hopper: float = 0.8
    matmul_blackwell: float = 0.75
    matmul_other: float = 0.8
    matmul8_hopper: float = 0.9  # the same for 8-bit, as a multiple of the 16-bit one
    matmul8_blackwell: float = 0.95
    matmul4: float = 0.7
    matmul8_row: float = 0.65  # scales a row: no library kernel
    knee: float = 200.0  # side of a matmul that runs at half the best rate on an A100
    knee_power: float = 0.6
    grouped: float = 1.1  # grouped matmuls of experts against one matmul
    flash1: float = 0.4  # share of the bf16 peak on causal flops, Ampere
    flash2: float = 0.62
    flash3: float = 0.65
    flash_hopper: float = 0.75  # the same kernels on a Hopper and Blackwell card
    flash_blackwell: float = 0.7
    head_knee: float = 16.0
    context_knee: float = 256.0
    batched: float = 0.5  # batched matmuls of unfused attention
    unaligned: float = 3.0  # heads that are no multiple of 8 wide
    softmax_unfused: float = 2.5
    score_bytes: float = 11.0  # bytes moved for one attention score, unfused, forward
    memory: float = 0.75  # share of the memory bandwidth elementwise operators reach
    eager: float = 1.6
    compiled: float = 0.7
    permute: float = 8.0  # passes over routed tokens
    permute_fused: float = (
        6.0  # the same where dispatch and permutation are one kernel (domains wider than a node)
    )
    link: float = 0.75
    network: float = 0.75
    network_p2p: float = 0.7
    all_to_all: float = 0.7  # share of either link that dispatch and combine reach
    link_latency: float = 8e-6
    network_latency: float = 15e-6
    bucket_bytes: float = 2e8
    tp_hidden: float = 0.7
    tp_hidden_backward: float = 0.2
    tp_meet: float = 2e-5  # wait for the slowest host at a collective, a rank
    cp_hidden: float = 0.8
    ep_hidden: float = 0.6
    fsdp_hidden: float = 0.85
    dp_hidden: float = 0.8
    dp_window: float = 1.0
    pp_hidden: float = 0.8
    pp_shown: float = 0.6
    launch: float = 6e-4  # forward kernels of one layer
    launch_tp: float = 1e-5  # more for (tp - 1) squared: ranks wait for each other's hosts
    launch_moe: float = 2.0
    launch_moe_graph: float = 1.0  # where the router and its dispatch are captured in a graph
    launch_backward: float = 1.2
    step_overhead: float = 0.01


NAMES = tuple(f.name for f in fields(Physics))
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
    """Constants with some replaced."""
    return replace(Physics(), **values)


@cache
def fitted() -> Physics:
    """The constants this release ships."""
    text = resources.files("tumen.plan.facts").joinpath("physics.toml").read_text("utf-8")
    return physics_of(tomllib.loads(text)["constants"])


def vector(physics: Physics) -> Array:
    """Constants as unbounded numbers: logit of a share, logarithm of the others."""
    values = [getattr(physics, name) for name in NAMES]
    return np.array(
        [
            np.log(v / (1 - v)) if n in SHARES else np.log(v)
            for n, v in zip(NAMES, values, strict=True)
        ]
    )


def from_vector(numbers: Array) -> Physics:
    """The inverse of `vector`."""
    return Physics(
        **{
            n: float(1 / (1 + np.exp(-x)) if n in SHARES else np.exp(x))
            for n, x in zip(NAMES, numbers, strict=True)
        }
    )
