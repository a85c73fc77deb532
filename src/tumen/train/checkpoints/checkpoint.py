"""Checkpoints: torch's distributed format in safetensors and a few integers, sealed by a manifest.

    step-000400/shard-00001-model-00001-of-00001.safetensors   what rank 0 holds: fp32 weights and the optimiser's moments
    step-000400/state.json                                     {step, loader: {epoch, row, seen}}

Every rank writes and hashes its own file; any number of ranks reads it back. It appears whole or not at all, a damaged one is
passed over for the one before it, and no pickle is written or read.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.tensor import DTensor

from tumen.core.artifact import Payload, manifest_of, payload_of, verify, writing
from tumen.core.errors import DISK_ERRNOS, ArtifactError, TrainError, TumenError, disk
from tumen.core.events import Events
from tumen.core.shape import Shape
from tumen.formats import safetensors_header
from tumen.train.single_process import Trainer
from tumen.train.world import World, peers

WEIGHTS = "weights.safetensors"
STATE = "state.json"
SHAPE = "shape.json"


@dataclass(frozen=True)
class State:
    """Where a run stands: finished steps and the loader's integers."""

    step: int
    loader: dict[str, int]


@dataclass
class Pending:
    """A checkpoint between its writing and its seal; `digests` of all ranks' files end in its manifest."""

    target: Path
    stage: Path
    sealing: ExitStack
    digests: dict[str, Payload]
    written: Any = None


class Checkpoints:
    """The working checkpoints of one run.

    Args:
        folder: where `step-<n>` stand.
        world: who writes.
        inputs: what the run is made for; checkpoints of other inputs are not used, and swept.
        keep: newest ones that stay.
        later: copy the state and write it while training goes on (pays on GPUs; a CPU only moves the cost).
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        inputs: str,
        keep: int,
        events: Events,
        later: bool = False,
    ) -> None:
        self.folder = folder
        self.world = world
        self.inputs = inputs
        self.keep = keep
        self.events = events
        self.later = later
        self._pending: Pending | None = None
        # What is written later is agreed on in another thread: training's own group would mix up the two.
        if later and world.size > 1:
            self._group = dist.new_group(backend="gloo")
        else:
            self._group = None

    def save(self, trainer: Trainer, state: State) -> None:
        """Write `step-<n>` and remove all but the newest `keep`.

        Raises:
            DiskError: the disk refuses; the checkpoints before are intact.
        """
        self.finish()
        target = self.folder / f"step-{state.step:06d}"
        sealing = ExitStack()
        digests = dict[str, Payload]()
        stage = None
        with self.world.rank_zero() as mine:
            if mine:
                stage = sealing.enter_context(
                    writing(target, "checkpoint", self.inputs, [], {"step": state.step}, digests)
                )
                (stage / STATE).write_text(json.dumps({"step": state.step, "loader": state.loader}))
        stage = Path(self.world.broadcast(stage))
        self._pending = Pending(target, stage, sealing, digests)
        writer = HuggingFaceStorageWriter(str(stage), save_distributed=True)
        with or_nothing(sealing, target), quiet():
            write = async_save if self.later else save
            alone = self.world.size == 1
            self._pending.written = write(
                trainer.tensors(), storage_writer=writer, process_group=self._group, no_dist=alone
            )
        if not self.later:
            self.finish()

    def look(self) -> None:
        """Seal what is written by now: a death costs the steps since the last save, not since the one before."""
        if self.later and self._pending and all(self.world.gather(self._pending.written.done())):
            self.finish()

    def finish(self) -> None:
        """Wait for what is still being written, and seal it.

        Raises:
            DiskError: the disk refuses; the checkpoints before are intact.
        """
        if self._pending is None:
            return
        pending = self._pending
        self._pending = None
        with or_nothing(pending.sealing, pending.target):
            if self.later:
                pending.written.result()
            own = (
                pending.stage / f"shard-{self.world.rank + 1:05d}-model-00001-of-00001.safetensors"
            )
            for part in self.world.gather_results(
                lambda: {own.name: payload_of(own)} if own.exists() else {}
            ):
                pending.digests.update(part)
        with self.world.rank_zero() as mine:
            if mine:
                pending.sealing.close()
                self._sweep()

    def _sweep(self) -> None:
        ours = [path for path in newest_first(self.folder) if made_for(path, self.inputs)]
        for old in set(newest_first(self.folder)) - set(ours[: self.keep]):
            shutil.rmtree(old, ignore_errors=True)

    def restore(self, trainer: Trainer, least: int = 0) -> State | None:
        """Fill the trainer from the newest whole checkpoint of these inputs; a damaged one is told in events and passed over.

        Those of fewer than `least` steps are not looked at.

        Raises:
            ArtifactError: a whole checkpoint that holds another network.
        """
        with self.world.rank_zero() as mine:
            for left in self.folder.glob(".step-*") if mine else ():  # a kill left it half written
                shutil.rmtree(left, ignore_errors=True)
            path = self._newest(least) if mine else None
        path = self.world.broadcast(path)
        if path is None:
            return None
        state = State(**json.loads((path / STATE).read_text()))
        fill(trainer.tensors(), path, self.world)
        trainer.restored(state.step)
        return state

    def _newest(self, least: int) -> Path | None:
        for path in newest_first(self.folder):
            if step_of(path) < least:
                return None
            try:
                if verify(path, "checkpoint").inputs == self.inputs:
                    return path
            except ArtifactError as error:
                self.events.emit(
                    "checkpoint_damaged",
                    path=str(path),
                    error=str(error),
                    action="the one before is used",
                )
        return None


def fill(tensors: dict[str, Tensor], path: Path, world: World) -> None:
    """Read a checkpoint's tensors into place, whatever ranks wrote it.

    Raises:
        ArtifactError: it lacks a tensor, or holds one of another shape.
    """
    reader = HuggingFaceStorageReader(str(path))

    def judge() -> None:
        for file in sorted(path.glob("*.safetensors")):
            safetensors_header.check(file)
        check_held(tensors, reader.read_metadata().state_dict_metadata, path)

    world.gather_results(judge)
    with quiet():
        load(tensors, storage_reader=reader, no_dist=world.size == 1)


def check_held(tensors: Mapping[str, Tensor], held: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint of another network.

    Raises:
        ArtifactError: it lacks a tensor, or holds one of another shape.
    """
    for name, tensor in tensors.items():
        shape = getattr(held.get(name), "size", None)
        if shape is None or tuple(shape) != tuple(tensor.shape):
            if shape is None:
                what = "is missing"
            else:
                what = f"has shape {tuple(shape)}"
            raise ArtifactError(
                f"{path}: {name} {what}, {tuple(tensor.shape)} is needed; it is of another network: remove it"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """One process is meant, torch need not warn of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*torch.distributed is disabled, unavailable or uninitialized.*"
        )
        yield


@contextmanager
def or_nothing(sealing: ExitStack, target: Path) -> Iterator[None]:
    """Write inside; when any rank cannot, the half-written stage is removed and what the disk said is raised."""
    try:
        with peers():
            yield
    except (Exception, CheckpointException) as error:
        if isinstance(error, CheckpointException):
            causes = [cause for cause, _ in error.failures.values()]
        else:
            causes = [error]
        cause = next((cause for cause in causes if isinstance(cause, OSError)), causes[0])
        if not isinstance(cause, TumenError) and getattr(cause, "errno", None) not in DISK_ERRNOS:
            why = f"{type(cause).__name__}: {cause}".splitlines()[0]
            cause = TrainError(
                f"{target}: cannot be written ({why}); the checkpoints before are intact"
            )
        with disk(target), sealing:
            raise cause from error


def newest_first(folder: Path) -> list[Path]:
    """Working checkpoints by their step."""
    return sorted(folder.glob("step-*"), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Steps that were done when a working checkpoint was written, as its name says."""
    return int(path.name.removeprefix("step-"))


def made_for(path: Path, inputs: str) -> bool:
    """Whether a checkpoint is of these inputs; a damaged manifest is of none."""
    try:
        return manifest_of(path, "checkpoint").inputs == inputs
    except ArtifactError:
        return False


def write_final(
    folder: Path,
    weights: Mapping[str, Tensor],
    shape: Shape,
    inputs: str,
    made_from: list[str],
    facts: dict[str, Any],
) -> None:
    """The trained tier as an artifact: weights and their shape."""
    with writing(folder, "checkpoint", inputs, made_from, facts) as stage:
        _save(dict(weights), stage / WEIGHTS)
        (stage / SHAPE).write_text(shape.model_dump_json(indent=1))


def read_whole(folder: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Shape and fp32 weights of a trained tier that is no adapter (see lora.py).

    Raises:
        ArtifactError: missing, damaged, or weights that do not fit the shape.
    """
    verify(folder, "checkpoint")
    shape = Shape.model_validate_json((folder / SHAPE).read_text())
    weights = load_tensors(folder / WEIGHTS)
    held = sum(tensor.numel() for tensor in weights.values())
    if held != shape.parameters():
        raise ArtifactError(
            f"{folder}: holds {held} weights, its shape has {shape.parameters()}; train it again"
        )
    return shape, weights


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; its header is checked against the file before the library sees it.

    Raises:
        ArtifactError: missing, cut short or no safetensors.
    """
    safetensors_header.check(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ArtifactError(
            f"{path}: no whole safetensors ({error}); delete its folder and run the recipe again"
        ) from None


def whole(trainer: Trainer, world: World, scratch: Path) -> dict[str, Tensor]:
    """The trainer's fp32 weights on rank 0 by name, put together from a checkpoint when they are spread over ranks."""
    spread = {
        name: tensor for name, tensor in trainer.tensors().items() if name.startswith("weights.")
    }
    if world.size > 1:
        reader = HuggingFaceStorageReader(str(scratch))
        metas = reader.read_metadata().state_dict_metadata
        held = {
            name: meta
            for name, meta in metas.items()
            if name.startswith("weights.") and isinstance(meta, TensorStorageMetadata)
        }
        if world.rank == 0:
            spread = {
                name: torch.empty(meta.size, dtype=meta.properties.dtype)
                for name, meta in held.items()
            }
            with quiet():
                load(spread, storage_reader=reader, no_dist=True)
    return {
        name.removeprefix("weights."): tensor
        for name, tensor in spread.items()
        if not isinstance(tensor, DTensor)
    }


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path
        )
    except SafetensorError as error:
        if "No space" in str(error) or "os error 28" in str(error):
            raise OSError(28, "No space left on device", str(path)) from error
        raise TrainError(f"{path}: {error}") from error
