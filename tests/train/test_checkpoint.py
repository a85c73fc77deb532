"""Checkpoints: whole or passed over."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tumen.core.artifact import verify
from tumen.core.errors import ArtifactError, DiskError
from tumen.core.events import Events
from tumen.train.checkpoints import load_tensors
from tumen.train.checkpoints.checkpoint import STATE, WEIGHTS, Checkpoints, State
from tumen.train.weights import read_final
from tumen.train.world import World

SHARD = "shard-00001-model-00001-of-00001.safetensors"
ALONE = World(0, 1, torch.device("cpu"))
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled:UserWarning"
)  # from the thread that writes later


class Holder:
    """A trainer of two tensors."""

    def __init__(self, step: int = 0, size: int = 4) -> None:
        self.kept = {
            "weights.w": torch.full((size,), float(step)),
            "moments.m": torch.full((2,), 1.0 + step),
        }
        self.step = 0

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.kept

    def restored(self, step: int) -> None:
        self.step = step


def save(
    folder: Path, step: int, inputs: str, keep: int, size: int = 4, later: bool = False
) -> None:
    checkpoints = Checkpoints(folder, ALONE, inputs, keep, Events(None), later)
    checkpoints.save(Holder(step, size), State(step, {"epoch": step // 3, "row": step, "seen": 1}))
    checkpoints.finish()


def newest(folder: Path, inputs: str, events: Events, holder: Holder | None = None) -> State | None:
    return Checkpoints(folder, ALONE, inputs, 2, events).restore(holder or Holder())


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("later", [False, True])
def test_comes_back(tmp_path: Path, later: bool) -> None:
    save(tmp_path, 5, "in", keep=2, later=later)
    holder = Holder()
    found = newest(tmp_path, "in", Events(None), holder)
    assert found == State(5, {"epoch": 1, "row": 5, "seen": 1})
    assert holder.step == 5
    assert torch.equal(holder.kept["weights.w"], torch.full((4,), 5.0))
    assert torch.equal(holder.kept["moments.m"], torch.full((2,), 6.0))


def test_what_is_written_later_is_what_stood_when_it_was_asked(tmp_path: Path) -> None:
    checkpoints, holder = (
        Checkpoints(tmp_path, ALONE, "in", 2, Events(None), later=True),
        Holder(5, size=100_000),
    )
    checkpoints.save(holder, State(5, {"epoch": 0, "row": 0, "seen": 0}))
    holder.kept["weights.w"].fill_(-1)
    checkpoints.finish()
    again = Holder(size=100_000)
    newest(tmp_path, "in", Events(None), again)
    assert (again.kept["weights.w"] == 5).all()


def test_what_is_written_later_is_sealed_when_it_is_looked_at(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, "in", 2, Events(None), later=True)
    checkpoints.save(Holder(5), State(5, {"epoch": 0, "row": 0, "seen": 0}))
    assert checkpoints._pending is not None
    checkpoints._pending.written.result()
    assert not list(tmp_path.glob("step-*"))
    checkpoints.look()
    assert steps_in(tmp_path) == ["step-000005"]


def test_no_pickle_is_written(tmp_path: Path) -> None:
    save(tmp_path, 5, "in", keep=2)
    assert sorted(path.name for path in (tmp_path / "step-000005").iterdir()) == [
        "manifest.json",
        SHARD,
        STATE,
    ]


@pytest.mark.parametrize("change", ["shape", "missing"])
def test_one_of_another_network_is_refused(tmp_path: Path, change: str) -> None:
    save(tmp_path, 5, "in", keep=2)
    holder = Holder(size=7 if change == "shape" else 4)
    if change == "missing":
        holder.kept["weights.v"] = torch.zeros(3)
    with pytest.raises(
        ArtifactError,
        match=r"weights\.[vw] (is missing|has shape \(4,\)), .* it is of another network",
    ):
        newest(tmp_path, "in", Events(None), holder)


def test_none_yet(tmp_path: Path) -> None:
    assert newest(tmp_path / "nothing", "in", Events(None)) is None


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, "in", keep=2)
    assert steps_in(tmp_path) == ["step-000003", "step-000004"]


def test_newest_beyond_a_million_steps(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        save(tmp_path, step, "in", keep=2)
    found = newest(tmp_path, "in", Events(None))
    assert found is not None
    assert found.step == 1_000_001
    assert steps_in(tmp_path) == ["step-1000000", "step-1000001"]


def test_those_of_another_recipe_are_not_used_and_do_not_push_ours_out(tmp_path: Path) -> None:
    for step in (300, 400):
        save(tmp_path, step, "old recipe", keep=2)
    assert newest(tmp_path, "new recipe", Events(None)) is None
    save(tmp_path, 100, "new recipe", keep=2)
    found = newest(tmp_path, "new recipe", Events(None))
    assert found is not None
    assert found.step == 100


@pytest.mark.parametrize("name", [SHARD, STATE, "manifest.json"])
@pytest.mark.parametrize("how", ["truncated", "changed", "missing"])
def test_a_damaged_one_is_passed_over_with_an_event(tmp_path: Path, name: str, how: str) -> None:
    for step in (2, 4):
        save(tmp_path, step, "in", keep=2)
    path = tmp_path / "step-000004" / name
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "changed":
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    events = Events(None)
    found = newest(tmp_path, "in", events)
    assert found is not None
    assert found.step == 2
    (event,) = events.seen
    assert event["event"] == "checkpoint_damaged"
    assert "step-000004" in event["path"]


def test_all_damaged(tmp_path: Path) -> None:
    save(tmp_path, 2, "in", keep=2)
    (tmp_path / "step-000002" / SHARD).unlink()
    assert newest(tmp_path, "in", Events(None)) is None


def test_full_disk_keeps_the_one_before(small_disk: Path) -> None:
    save(small_disk / "work", 1, "in", keep=2)
    with pytest.raises(DiskError, match="the disk is full"):
        save(small_disk / "work", 2, "in", keep=2, size=1 << 19)
    found = newest(small_disk / "work", "in", Events(None))
    assert found is not None
    assert found.step == 1
    assert steps_in(small_disk / "work") == ["step-000001"]


class TestTensors:
    def refused(self, path: Path, part: str) -> None:
        with pytest.raises(ArtifactError) as caught:
            load_tensors(path)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none", "missing")

    @pytest.mark.parametrize("keep", [0, 4, 8, 30, -1])
    def test_cut(self, tmp_path: Path, keep: int) -> None:
        save(tmp_path, 1, "in", keep=1)
        path = tmp_path / "step-000001" / SHARD
        os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
        self.refused(path, str(path))

    def test_a_header_that_claims_more_than_there_is(self, tmp_path: Path) -> None:
        (tmp_path / "w").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
        self.refused(tmp_path / "w", "the header claims")

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "w").write_bytes(b"GGUF" + bytes(100))
        self.refused(tmp_path / "w", "w: ")


class TestFinal:
    def test_reads_what_was_trained(self, cloud: Path) -> None:
        shape, weights = read_final(cloud)
        assert sum(weight.numel() for weight in weights.values()) == shape.parameters()
        assert all(weight.dtype == torch.float32 for weight in weights.values())

    def test_truncated(self, cloud: Path, copy_of: Callable[[Path], Path]) -> None:
        copy = copy_of(cloud)
        os.truncate(copy / WEIGHTS, 1000)
        with pytest.raises(ArtifactError, match="1000 bytes, the manifest says"):
            read_final(copy)

    def test_another_shape(self, cloud: Path, tmp_path: Path) -> None:
        from tumen.train.checkpoints.checkpoint import write_final

        shape, weights = read_final(cloud)
        write_final(
            tmp_path / "x", weights, shape.model_copy(update={"intermediate_size": 999}), "", [], {}
        )
        verify(tmp_path / "x")
        with pytest.raises(ArtifactError, match="its shape has"):
            read_final(tmp_path / "x")
