"""Checkpoints: torch's distributed format in safetensors and a few integers, sealed by a manifest.

    step-000400/shard-00001-model-00001-of-00001.safetensors   rank 0's fp32 weights and moments
    step-000400/state.json                                     {step, loader: {epoch, row, seen}}

Every rank writes and hashes its own file; any number of ranks reads it back. A checkpoint appears
whole or not at all. A damaged one is skipped for the one before it. No pickle is written or read.
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

from tumen.core.artifact import Payload, manifest_of, payload_of, verify, writing
from tumen.core.errors import DISK_ERRNOS, ArtifactError, TrainError, TumenError, disk
from tumen.core.events import Events
from tumen.core.shape import EncoderShape, Shape
from tumen.formats import safetensors_header
from tumen.train.single_process import Trainer
from tumen.train.world import World, peers

WEIGHTS = "weights.safetensors"
STATE = "state.json"
SHAPE = "shape.json"


@dataclass(frozen=True)
class State:
    """Progress of a run: finished steps and the loader's integers."""

    step: int
    loader: dict[str, int]


@dataclass
class Pending:
    """A checkpoint that is being written.

    Attributes:
        target: its final folder.
        stage: the folder it is written into.
        sealing: renames stage to target when closed; open on rank 0 alone.
        digests: of all ranks' files, for the manifest.
        written: the future of an asynchronous write.
    """

    target: Path
    stage: Path
    sealing: ExitStack
    digests: dict[str, Payload]
    written: Any = None


class Checkpoints:
    """The working checkpoints of one run.

    Args:
        folder: parent of `step-<n>`.
        world: the ranks that write.
        inputs: what the run is made for; checkpoints of other inputs are not used, and deleted.
        keep: number of newest ones that stay.
        events: where damaged checkpoints are reported.
        later: copy the state and write it while training continues. Worth it on GPUs; on a CPU the
            writing takes time from the training.
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
        self._group: dist.ProcessGroup | None = None
        if later and world.size > 1:
            # The writing thread has collectives of its own; in training's group they would mix.
            self._group = dist.new_group(backend="gloo")

    def save(self, trainer: Trainer, state: State) -> None:
        """Write `step-<n>` and remove all but the newest `keep`.

        Raises:
            DiskError: the disk is full or not writable; the checkpoints before are intact.
        """
        self.finish()
        pending = self._begin(state)
        self._pending = pending
        writer = HuggingFaceStorageWriter(str(pending.stage), save_distributed=True)
        with or_nothing(pending.sealing, pending.target), quiet():
            write = async_save if self.later else save
            pending.written = write(
                trainer.tensors(),
                storage_writer=writer,
                process_group=self._group,
                no_dist=self.world.size == 1,
            )
        if not self.later:
            self.finish()

    def _begin(self, state: State) -> Pending:
        """Make the folder of a checkpoint on rank 0 and tell all ranks where it is."""
        target = self.folder / f"step-{state.step:06d}"
        sealing = ExitStack()
        digests = dict[str, Payload]()
        stage = None
        with self.world.rank_zero() as mine:
            if mine:
                facts = {"step": state.step}
                folder = writing(target, "checkpoint", self.inputs, [], facts, digests)
                stage = sealing.enter_context(folder)
                content = {"step": state.step, "loader": state.loader}
                (stage / STATE).write_text(json.dumps(content))
        stage = Path(self.world.broadcast(stage))
        return Pending(target, stage, sealing, digests)

    def look(self) -> None:
        """Seal a checkpoint as soon as all ranks have written it.

        A rank that dies then costs the steps since the last save, not since the one before.
        """
        if not self.later or not self._pending:
            return
        done = self.world.gather(self._pending.written.done())
        if all(done):
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and seal it.

        Raises:
            DiskError: the disk is full or not writable; the checkpoints before are intact.
        """
        if self._pending is None:
            return
        pending = self._pending
        self._pending = None
        # Every rank must reach the exchange inside, also one whose write failed.
        with or_nothing(pending.sealing, pending.target):
            if self.later:
                pending.written.result()
            file = f"shard-{self.world.rank + 1:05d}-model-00001-of-00001.safetensors"
            own = pending.stage / file

            def digest() -> dict[str, Payload]:
                return {own.name: payload_of(own)} if own.exists() else {}

            for part in self.world.gather_results(digest):
                pending.digests.update(part)
        with self.world.rank_zero() as mine:
            if mine:
                pending.sealing.close()
                self._sweep()

    def _sweep(self) -> None:
        found = newest_first(self.folder)
        ours = [path for path in found if made_for(path, self.inputs)]
        kept = ours[: self.keep]
        for path in found:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, trainer: Trainer, least: int = 0) -> State | None:
        """Fill the trainer from the newest whole checkpoint of these inputs.

        A damaged one is reported in events and skipped; those before `least` steps are not read.

        Raises:
            ArtifactError: a whole checkpoint that holds another network.
        """
        path = None
        with self.world.rank_zero() as mine:
            if mine:
                for left in self.folder.glob(".step-*"):  # half written by a killed run
                    shutil.rmtree(left, ignore_errors=True)
                path = self._newest(least)
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
    """Read a checkpoint's tensors into place; another number of ranks may have written it.

    Raises:
        ArtifactError: it lacks a tensor, or holds one of another shape.
    """
    reader = HuggingFaceStorageReader(str(path))

    def check() -> None:
        for file in sorted(path.glob("*.safetensors")):
            safetensors_header.check(file)
        held = reader.read_metadata().state_dict_metadata
        check_held(tensors, held, path)

    world.gather_results(check)
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
            what = "is missing" if shape is None else f"has shape {tuple(shape)}"
            raise ArtifactError(
                f"{path}: {name} {what}, {tuple(tensor.shape)} is needed; "
                "it is of another network: remove it"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's warning that only one process writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*torch.distributed is disabled, unavailable or uninitialized.*"
        )
        yield


@contextmanager
def or_nothing(sealing: ExitStack, target: Path) -> Iterator[None]:
    """If any rank fails to write, remove the half-written checkpoint and raise the disk's error."""
    try:
        with peers():
            yield
    except (Exception, CheckpointException) as error:
        cause = _cause(error)
        of_disk = getattr(cause, "errno", None) in DISK_ERRNOS
        if not of_disk and not isinstance(cause, TumenError):
            why = f"{type(cause).__name__}: {cause}".splitlines()[0]
            cause = TrainError(
                f"{target}: cannot be written ({why}); the checkpoints before are intact"
            )
        with disk(target), sealing:
            raise cause from error


def _cause(error: BaseException) -> BaseException:
    """The error itself, or one that a rank had while writing, the disk's own first."""
    if not isinstance(error, CheckpointException):
        return error
    causes = [cause for cause, _ in error.failures.values()]
    for cause in causes:
        if isinstance(cause, OSError):
            return cause
    return causes[0]


def newest_first(folder: Path) -> list[Path]:
    """Working checkpoints, the one of the most steps first."""
    return sorted(folder.glob("step-*"), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Finished steps of a working checkpoint, from its name."""
    return int(path.name.removeprefix("step-"))


def made_for(path: Path, inputs: str) -> bool:
    """Whether a checkpoint is made for these inputs; one with a damaged manifest is not."""
    try:
        return manifest_of(path, "checkpoint").inputs == inputs
    except ArtifactError:
        return False


def write_final(
    folder: Path,
    weights: Mapping[str, Tensor],
    shape: Shape | EncoderShape,
    inputs: str,
    made_from: list[str],
    facts: dict[str, Any],
) -> None:
    """Write the trained tier as an artifact: weights and their shape."""
    with writing(folder, "checkpoint", inputs, made_from, facts) as stage:
        _save(dict(weights), stage / WEIGHTS)
        (stage / SHAPE).write_text(shape.model_dump_json(indent=1))


def is_encoder(folder: Path) -> bool:
    """Whether a checkpoint is an encoder's."""
    return json.loads((folder / SHAPE).read_text()).get("kind") == "encoder"


def decoder_shape(folder: Path) -> Shape:
    """Return the shape of a checkpoint.

    Raises:
        ArtifactError: it is an encoder's.
    """
    if is_encoder(folder):
        raise ArtifactError(f"{folder}: is an encoder; a decoder is needed here")
    return Shape.model_validate_json((folder / SHAPE).read_text())


def read_whole(folder: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Read shape and fp32 weights of a trained tier that is not an adapter (see lora.py).

    Raises:
        ArtifactError: missing, damaged, an encoder, or weights that do not fit the shape.
    """
    verify(folder, "checkpoint")
    shape = decoder_shape(folder)
    return shape, _weights(folder, shape)


def read_encoder(folder: Path) -> tuple[EncoderShape, dict[str, Tensor]]:
    """Read shape and fp32 weights of a trained encoder.

    Raises:
        ArtifactError: missing, damaged, a decoder, or weights that do not fit the shape.
    """
    verify(folder, "checkpoint")
    if not is_encoder(folder):
        raise ArtifactError(f"{folder}: is a decoder; an encoder is needed here")
    shape = EncoderShape.model_validate_json((folder / SHAPE).read_text())
    return shape, _weights(folder, shape)


def _weights(folder: Path, shape: Shape | EncoderShape) -> dict[str, Tensor]:
    """Return the weights, of which the shape must have as many."""
    weights = load_tensors(folder / WEIGHTS)
    held = sum(tensor.numel() for tensor in weights.values())
    if held != shape.parameters():
        raise ArtifactError(
            f"{folder}: holds {held} weights, its shape has {shape.parameters()}; train it again"
        )
    return weights


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
    """Return the trainer's fp32 weights by name, on rank 0.

    Where they are sharded over ranks, they are read from the checkpoint `scratch`.
    """
    found = {}
    if world.size == 1:
        found = trainer.tensors()
    elif world.rank == 0:
        found = _gathered(scratch)
    weights = {}
    for name, tensor in found.items():
        if name.startswith("weights."):
            weights[name.removeprefix("weights.")] = tensor
    return weights


def _gathered(path: Path) -> dict[str, Tensor]:
    """Read the whole weights of a checkpoint that many ranks wrote."""
    reader = HuggingFaceStorageReader(str(path))
    found = {}
    for name, meta in reader.read_metadata().state_dict_metadata.items():
        if name.startswith("weights.") and isinstance(meta, TensorStorageMetadata):
            found[name] = torch.empty(meta.size, dtype=meta.properties.dtype)
    with quiet():
        load(found, storage_reader=reader, no_dist=True)
    return found


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(held, path)
    except SafetensorError as error:
        if "No space" in str(error) or "os error 28" in str(error):
            raise OSError(28, "No space left on device", str(path)) from error
        raise TrainError(f"{path}: {error}") from error
