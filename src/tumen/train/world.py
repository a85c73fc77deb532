"""The processes that train together, as torchrun's variables say: their ranks, and what they tell each other."""

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

from tumen.core.errors import PeerError, TrainError
from tumen.recipe import Train
from tumen.train.stop import Stop

PATIENCE = timedelta(minutes=30)  # of a collective; whoever watches the run is quicker (cluster)
GONE = (
    "connection closed",
    "connection reset",
    "connection was likely closed",
    "broken pipe",
    "timed out",
    "remote process",
)


def half(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it at full speed, else fp32: without AVX-512 or AMX a CPU emulates bf16, several times
    slower than fp32 (docs/log.md, 2026-11-25).
    """
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def type_of(section: Train, device: torch.device) -> torch.dtype:
    """What the network computes in; master weights and moments are fp32 always."""
    return {"bf16": torch.bfloat16, "fp32": torch.float32, "auto": half(device)}[section.precision]


def name_of(dtype: torch.dtype) -> str:
    """bf16 or fp32."""
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


@dataclass(frozen=True)
class Team:
    """This process among its peers; alone it is rank 0 of 1 and talks to nobody."""

    rank: int
    world: int
    device: torch.device
    stop: Stop = field(default_factory=Stop)

    def stops(self) -> bool:
        """Whether the run is to end after this step: the same on every rank, as they agreed with its loss (`Together.learn`)."""
        return self.stop.asked if self.world == 1 else self.stop.agreed

    def tell(self, said: Any) -> Any:
        """What rank 0 says, on every rank."""
        if self.world == 1:
            return said
        box = [said]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all(self, said: Any) -> list[Any]:
        """What every rank says, on every rank."""
        if self.world == 1:
            return [said]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, said)
        return found

    def each(self, make: Callable[[], Any]) -> list[Any]:
        """What every rank makes, on every rank; the error of one is everybody's, so that none waits for it."""
        made, fault = None, None
        try:
            made = make()
        except Exception as error:
            fault = error
        found = self.all((made, fault))
        for _, fault in found:
            if fault is not None:
                raise fault
        return [made for made, _ in found]

    def total(self, number: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.world > 1:
            dist.all_reduce(number)
        return number

    def most(self, number: float) -> float:
        """The largest over all ranks."""
        found = torch.tensor(number, dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    @contextmanager
    def first(self) -> Iterator[bool]:
        """Rank 0 works inside, the others wait; its error is everybody's. Yields whether this is rank 0."""
        fault: Exception | None = None
        try:
            if self.rank == 0:
                yield True
            else:
                yield False
        except Exception as error:
            if self.rank:
                raise
            fault = error
        fault = self.tell(fault)
        if fault is not None:
            raise fault


@contextmanager
def peers() -> Iterator[None]:
    """Around what ranks do together: a rank that is gone is one line on those that waited for it.

    Raises:
        PeerError: another rank ended or hangs.
    """
    try:
        yield
    except RuntimeError as error:  # what gloo and NCCL raise, DistBackendError included
        if not dist.is_initialized() or not any(
            sign in text for text in _causes(error) for sign in GONE
        ):
            raise
        raise PeerError(
            f"rank {dist.get_rank()}: another rank ended or hangs; what that one said is the reason. "
            "The last checkpoint is intact: start all ranks again"
        ) from error


def _causes(error: BaseException | None) -> Iterator[str]:
    """What an error says, and the ones it comes from: a pipeline's schedule wraps them."""
    while error is not None:
        yield str(error).lower()
        error = error.__cause__ or error.__context__


def join(ranks: int) -> Team:
    """Meet the other ranks under torchrun's variables (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Raises:
        TrainError: other than `ranks` processes were started, or they do not find each other.
    """
    try:
        world, rank, local = (
            int(os.environ.get(name, unset))
            for name, unset in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
        )
    except ValueError as error:
        raise TrainError(
            f"torchrun's variables WORLD_SIZE, RANK and LOCAL_RANK are no numbers: {error}"
        ) from None
    if world != ranks:
        raise TrainError(
            f"the mesh needs {ranks} ranks, {world} were started; start {ranks}, or change the mesh"
        )
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        if device.type == "cuda":  # not run here
            torch.cuda.set_device(device)
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE
            )
        except (ValueError, RuntimeError) as error:
            raise TrainError(
                f"the {world} ranks do not meet at MASTER_ADDR:MASTER_PORT: {str(error).splitlines()[0]}"
            ) from None
    return Team(rank, world, device)


def leave() -> None:
    """Part from the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()
