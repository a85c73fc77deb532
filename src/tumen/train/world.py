"""The processes that train together, found by torchrun's variables, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tumen.core.errors import PEER_LOST, RANKS_CANNOT_MEET, PeerError, TrainError
from tumen.recipe import Train
from tumen.train.stop import StopRequest

# Time limit of a collective. The watcher (cluster) detects a lost rank much earlier.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)

# What gloo and NCCL write when a peer is gone.
PEER_LOST_SIGNS = (
    "connection closed",
    "connection reset",
    "connection was likely closed",
    "broken pipe",
    "timed out",
    "remote process",
)


def half(device: torch.device) -> torch.dtype:
    """Return bf16 where the device multiplies it at full speed, else fp32.

    Without AVX-512 or AMX a CPU emulates bf16, several times slower than fp32 (docs/log.md,
    2026-11-25).
    """
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def type_of(section: Train, device: torch.device) -> torch.dtype:
    """Return the type the network computes in. Master weights and moments are always fp32."""
    types = {"bf16": torch.bfloat16, "fp32": torch.float32, "auto": half(device)}
    return types[section.precision]


def name_of(dtype: torch.dtype) -> str:
    """Return bf16 or fp32."""
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


@dataclass(frozen=True)
class World:
    """This process among its peers. A single process is rank 0 of 1 and exchanges nothing.

    Attributes:
        rank: number of this process, from 0.
        size: processes of the training.
        device: what this process computes on.
        stop: request to end early.
    """

    rank: int
    size: int
    device: torch.device
    stop: StopRequest = field(default_factory=StopRequest)

    def should_stop(self) -> bool:
        """Return whether to end after this step; the same on every rank, agreed with its loss."""
        if self.size == 1:
            return self.stop.asked
        return self.stop.agreed

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_results(self, make: Callable[[], Any]) -> list[Any]:
        """Call `make` on every rank and return all results on every rank.

        Raises:
            Exception: the error of any rank, on every rank, so that no rank waits for a failed one.
        """
        result: Any = None
        fault: Exception | None = None
        try:
            result = make()
        except Exception as error:
            fault = error
        pairs = self.gather((result, fault))
        for _, other in pairs:
            if other is not None:
                raise other
        return [value for value, _ in pairs]

    def sum(self, number: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(number)
        return number

    def max(self, number: float) -> float:
        """Return the largest number of all ranks."""
        largest = torch.tensor(number, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return float(largest)

    @contextmanager
    def rank_zero(self) -> Iterator[bool]:
        """Let rank 0 work inside while the others wait. Yields whether this is rank 0.

        Raises:
            Exception: rank 0's error, on every rank.
        """
        fault: Exception | None = None
        try:
            yield self.rank == 0
        except Exception as error:
            if self.rank:
                raise
            fault = error
        fault = self.broadcast(fault)
        if fault is not None:
            raise fault


@contextmanager
def peers() -> Iterator[None]:
    """Turn the error of a lost peer into one line.

    Raises:
        PeerError: another rank exited or hung.
    """
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL raise it, DistBackendError included
        if not dist.is_initialized() or not _peer_lost(error):
            raise
        raise PeerError(
            f"rank {dist.get_rank()}: {PEER_LOST}; see that rank's log for the "
            "cause. The last checkpoint is intact: start all ranks again"
        ) from error


def _peer_lost(error: BaseException) -> bool:
    return any(sign in text for text in _causes(error) for sign in PEER_LOST_SIGNS)


def _causes(error: BaseException | None) -> Iterator[str]:
    """Yield the text of an error and of those that caused it; pipeline schedules wrap them."""
    while error is not None:
        yield str(error).lower()
        error = error.__cause__ or error.__context__


def join(ranks: int) -> World:
    """Join the other ranks by torchrun's variables.

    These are WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Raises:
        TrainError: not `ranks` processes were started, or they cannot reach each other.
    """
    try:
        size = int(os.environ.get("WORLD_SIZE", "1"))
        rank = int(os.environ.get("RANK", "0"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise TrainError(
            f"torchrun's variables WORLD_SIZE, RANK and LOCAL_RANK must be numbers: {error}"
        ) from None
    if size != ranks:
        raise TrainError(
            f"the mesh needs {ranks} ranks, {size} were started; start {ranks}, or change the mesh"
        )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
    if size > 1 and not dist.is_initialized():
        _start_process_group(device, size)
    return World(rank, size, device)


def _start_process_group(device: torch.device, size: int) -> None:
    backend = "gloo"
    if device.type == "cuda":  # not run here
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        cause = str(error).splitlines()[0]
        raise TrainError(
            f"the {size} ranks {RANKS_CANNOT_MEET} at MASTER_ADDR:MASTER_PORT: {cause}"
        ) from None


def leave() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
