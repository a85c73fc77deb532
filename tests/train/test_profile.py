"""A profile: every part of a step is found, forward and backward, and a run is left as it was."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.train.test_parallel import free_port

from tumen.core.errors import DiskError, PlanError
from tumen.core.shape import Shape
from tumen.model import build
from tumen.recipe import Train
from tumen.train import profile, profile_steps
from tumen.train.calibrate import batch_of
from tumen.train.profile import GROUPS, ROOT, STEPS, attributed, networks_of, scopes
from tumen.train.single_process import SingleProcessTrainer
from tumen.train.world import World

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def section() -> Train:
    return Train(steps=12, batch_size=4, seq_len=192, compile=False, threads=1, precision="fp32")


@pytest.fixture(scope="module")
def shape(shape_of: Callable[[str], Shape]) -> Shape:
    return shape_of("cloud")


def shares(page: str) -> dict[str, float]:
    return {
        name: float(share)
        for name, share in re.findall(r"^\| ([a-z ]+) \| ([\d.]+)% \|", page, re.M)
    }


def test_writes_a_trace_and_a_page_and_nothing_else(
    section: Train, shape: Shape, dataset: Path, tmp_path: Path
) -> None:
    page = profile_steps(section, shape, dataset, tmp_path / "here", tier="cloud")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "profile.md",
        "trace.json",
    ]
    assert (tmp_path / "here" / "profile.md").read_text() == page
    assert page.startswith("# Where a step of cloud goes\n")
    assert re.search(r"[\d,]+ tokens/s \(\d+% of them real.* MFU [\d.]+% of the measured", page)
    found = shares(page)
    assert set(found) <= set(GROUPS)
    assert found.keys() >= {
        "attention",
        "experts",
        "dense matmuls",
        "head and loss",
        "norms and elementwise",
        "optimizer",
        "host",
    }
    assert sum(found.values()) == pytest.approx(100, abs=0.5)
    trace = json.loads((tmp_path / "here" / "trace.json").read_text())
    names = [row.get("name") for row in trace["traceEvents"]]
    assert names.count(ROOT) == STEPS
    assert "tumen: experts" in names


def test_backward_operators_belong_where_their_forward_ones_were(
    section: Train, shape: Shape
) -> None:
    trainer = SingleProcessTrainer(section, shape, World(0, 1, CPU), 0)
    with (
        scopes(networks_of(trainer)),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen,
        torch.autograd.profiler.record_function(ROOT),
        torch.autograd.profiler.record_function("tumen: head and loss"),
    ):
        trainer.learn(batch_of(shape, section, 0))
    _, ops = attributed(seen.events(), CPU)
    calls = {(op.name, op.group): op.calls for op in ops}
    mixtures = len(trainer.network.mixtures())
    assert calls["aten::bmm", "experts"] == 9 * mixtures, "three forward, six backward"
    assert calls["aten::mm", "head and loss"] == 3
    assert calls["aten::bmm", "attention"] == 6 * shape.num_hidden_layers, "scores and sums"
    assert not [op for op in ops if op.group == "other"]


def test_hooks_are_gone_afterwards_and_change_nothing(section: Train, shape: Shape) -> None:
    first, second = (SingleProcessTrainer(section, shape, World(0, 1, CPU), 0) for _ in range(2))
    with scopes(networks_of(first)):
        profiled = first.learn(batch_of(shape, section, 0))
    assert profiled == second.learn(batch_of(shape, section, 0))
    assert torch.equal(first.optimizer.gradient, second.optimizer.gradient)
    assert not any(
        module._forward_pre_hooks or module._forward_hooks for module in first.network.modules()
    )


def test_every_step_is_accounted_for(section: Train, shape: Shape) -> None:
    trainer = SingleProcessTrainer(section, shape, World(0, 1, CPU), 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for step in range(2):
            with torch.autograd.profiler.record_function(ROOT):
                trainer.learn(batch_of(shape, section, step))
            build(shape)  # outside of a step
    seconds, ops = attributed(seen.events(), CPU)
    assert sum(op.seconds for op in ops) == pytest.approx(2 * seconds, rel=0.02)


def test_a_shared_expert_is_dense_and_a_router_is_not(shape: Shape) -> None:
    network = build(shape)
    groups = {id(module): group for module, group in profile.scoped(network)}
    mixture = network.mixtures()[0]
    assert groups[id(mixture)] == "experts"
    assert id(mixture.router) not in groups, "it is inside of its mixture"
    assert groups[id(mixture.shared.down)] == "dense matmuls"
    assert groups[id(network.every_block()[0].attention)] == "attention"


RANK = """
import sys
from pathlib import Path
from tumen.core.shape import Shape
from tumen.recipe import Train
from tumen.train import profile_steps
from tumen.train.world import leave
profile_steps(Train.model_validate_json(sys.argv[1]), Shape.model_validate_json(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
leave()
"""


def test_two_ranks_write_one_page_with_what_they_exchange(
    section: Train, shape: Shape, dataset: Path, tmp_path: Path
) -> None:
    mesh = section.mesh.model_copy(update={"dp": 2})
    asked = [
        section.model_copy(update={"mesh": mesh}).model_dump_json(),
        shape.model_dump_json(),
        dataset,
        tmp_path / "x",
    ]
    place = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, *map(str, asked)],
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [child.wait(120) for child in children] == [0, 0]
    found = shares((tmp_path / "x" / "profile.md").read_text())
    assert found["communication"] > 0
    assert found.get("other", 0) < 10
    assert sum(found.values()) == pytest.approx(100, abs=0.5)


class TestRefused:
    def test_a_mesh_that_does_not_divide(
        self, section: Train, shape: Shape, dataset: Path, tmp_path: Path
    ) -> None:
        mesh = section.mesh.model_copy(update={"micro_batch_size": 3})
        with pytest.raises(PlanError):
            profile_steps(section.model_copy(update={"mesh": mesh}), shape, dataset, tmp_path / "x")
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_is_read_only(
        self,
        section: Train,
        shape: Shape,
        dataset: Path,
        small_disk: Path,
        make_read_only: Callable[[], None],
    ) -> None:
        make_read_only()
        with pytest.raises(DiskError, match="read-only"):
            profile_steps(section, shape, dataset, small_disk / "x")
