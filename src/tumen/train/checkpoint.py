"""Checkpoints: safetensors and a few integers, sealed by a manifest. A damaged one is passed over for the one before it.

step-000400/weights.safetensors   fp32 master weights by name
step-000400/moments.safetensors   the optimiser's state
step-000400/state.json            {step, loader: {epoch, row}}
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tumen.core import ArtifactError, Events, Shape, TrainError, manifest_of, verify, writing

WEIGHTS, MOMENTS, STATE, SHAPE = "weights.safetensors", "moments.safetensors", "state.json", "shape.json"


@dataclass(frozen=True)
class State:
    """A point to go on from: weights and moments by name, finished steps, the loader's integers."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    step: int
    loader: dict[str, int]


def save(folder: Path, state: State, inputs: str, keep: int) -> None:
    """Write `folder/step-<n>` and remove all but the newest `keep`, and those that were made for other inputs.

    Raises:
        DiskError: the disk refuses; the checkpoints before are intact.
    """
    with writing(folder / f"step-{state.step:06d}", "checkpoint", inputs, [], {"step": state.step}) as stage:
        _save(state.weights, stage / WEIGHTS)
        _save(state.moments, stage / MOMENTS)
        (stage / STATE).write_text(json.dumps({"step": state.step, "loader": state.loader}))
    ours = [path for path in _newest_first(folder) if _made_for(path, inputs)]
    for old in set(_newest_first(folder)) - set(ours[:keep]):
        shutil.rmtree(old, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _made_for(path: Path, inputs: str) -> bool:
    """Whether a checkpoint is of these inputs; a damaged manifest is of none."""
    try:
        return manifest_of(path, "checkpoint").inputs == inputs
    except ArtifactError:
        return False


def newest(folder: Path, inputs: str, events: Events) -> State | None:
    """The newest whole checkpoint made for `inputs`; a damaged one is reported in events and passed over."""
    for path in _newest_first(folder):
        try:
            manifest = verify(path, "checkpoint")
            if manifest.inputs != inputs:
                continue
            state = json.loads((path / STATE).read_text())
            return State(load_tensors(path / WEIGHTS), load_tensors(path / MOMENTS), state["step"], state["loader"])
        except ArtifactError as error:
            events.emit("checkpoint_damaged", path=str(path), error=str(error), action="the one before is used")
    return None


def write_final(
    folder: Path, weights: Mapping[str, Tensor], shape: Shape, inputs: str, made_from: list[str], facts: dict[str, Any]
) -> None:
    """The trained tier as an artifact: weights and their shape."""
    with writing(folder, "checkpoint", inputs, made_from, facts) as stage:
        _save(dict(weights), stage / WEIGHTS)
        (stage / SHAPE).write_text(shape.model_dump_json(indent=1))


def read_final(folder: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Shape and fp32 weights of a trained tier.

    Raises:
        ArtifactError: missing, damaged, or weights that do not fit the shape.
    """
    verify(folder, "checkpoint")
    shape = Shape.model_validate_json((folder / SHAPE).read_text())
    weights = load_tensors(folder / WEIGHTS)
    held = sum(tensor.numel() for tensor in weights.values())
    if held != shape.parameters():
        raise ArtifactError(f"{folder}: holds {held} weights, its shape has {shape.parameters()}; train it again")
    return shape, weights


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; its header is checked against the file's size before anything is allocated.

    Raises:
        ArtifactError: missing, cut short or no safetensors.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            head = handle.read(8)
        if len(head) < 8 or struct.unpack("<Q", head)[0] > size - 8:
            raise ArtifactError(f"{path}: cut short or no safetensors; delete its folder and run the recipe again")
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the recipe again") from None
    except (SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: no whole safetensors ({error}); delete its folder and run the recipe again") from None


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        if "No space" in str(error) or "os error 28" in str(error):
            raise OSError(28, "No space left on device", str(path)) from error
        raise TrainError(f"{path}: {error}") from error
