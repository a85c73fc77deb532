"""Runs that die go on exactly: 50 seeds on 1, 2 and 4 gloo ranks, the real MLA + MoE network under `fit` (tests/train/deaths.py).

Every death here is real: a rank, or all of them, sends itself SIGKILL. Where one rank dies, the test also asks that the others
end by themselves. Faults of a disk are the kernel's own (/dev/full) but for the one that cannot be had: EIO, which is raised.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train import deaths
from tests.train.deaths import (
    EPOCH,
    ROWS,
    STEPS,
    TOKENS,
    Death,
    Run,
    drawn,
    errors,
    losses,
    samples,
    start,
)

from tumen.cluster.agents import ReplicaStore
from tumen.core import events
from tumen.core.artifact import manifest_of, verify
from tumen.data import Loader, read_shards
from tumen.heartbeat import transfer
from tumen.heartbeat.messages import make_secret
from tumen.recipe import Recipe
from tumen.train.checkpoints import replicas as copies
from tumen.train.weights import read_final

SIGKILLED, PLAIN, TRAIN, DISK, ARTIFACT = -signal.SIGKILL, 1, 7, 5, 3  # exit codes
SEEDS = {
    "one": 37,
    "fsdp": 2,
    "ep": 2,
    "tp": 2,
    "pp": 3,
    "fsdp x ep": 1,
    "ep x tp": 1,
    "pp x fsdp": 2,
}
DRAWS = [
    (seed, mesh)
    for seed, mesh in enumerate(mesh for mesh, count in SEEDS.items() for _ in range(count))
]

Unbroken = Callable[[str], Run]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deaths.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """A mesh's run that was never killed, made once."""
    made: dict[str, Run] = {}

    def of(mesh: str) -> Run:
        if mesh not in made:
            run = Run(mesh, tmp_path_factory.mktemp("unbroken") / "cloud", data)
            assert start(run) == [0] * run.world, errors(run)
            made[mesh] = run
        return made[mesh]

    return of


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Run:
    return Run("one", tmp_path / "cloud", data)


def die(run: Run, death: Death) -> None:
    """Start a run that dies; the ranks that live on end by themselves, in one line."""
    codes = start(replace(run, death=death))
    for rank, (code, said) in enumerate(zip(codes, errors(run), strict=True)):
        if death.rank in (-1, rank):
            assert code == SIGKILLED, (codes, errors(run))
        else:
            assert (code, said) == (TRAIN, f"PeerError: rank {rank}: {GONE}"), (codes, errors(run))


GONE = "another rank exited or hung; see that rank's log for the cause. The last checkpoint is intact: start all ranks again"


def finish_like(run: Run, reference: Run) -> None:
    """Start it once more; it ends in the samples and the bits of the reference."""
    assert start(run) == [0] * run.world, errors(run)
    assert verify(run.out).digest == verify(reference.out).digest
    assert manifest_of(run.out).facts["seen"] == manifest_of(reference.out).facts["seen"]
    same_samples(run, reference)


def same_samples(run: Run, reference: Run) -> None:
    """Whenever and wherever a step was done, it saw the reference's samples."""
    wanted, found = samples(reference), samples(run)
    assert sorted(found) == list(range(STEPS))
    assert all(ids == wanted[step][0] for step, notes in found.items() for ids in notes)


def told(run: Run, event: str) -> list[dict[str, Any]]:
    return list(events.read(run.out.parent / "cloud.events", event))


def checkpoints(run: Run) -> list[str]:
    return sorted(path.name for path in run.out.with_name(".cloud.work").glob("step-*"))


def test_all_deaths_are_in_the_second_epoch_or_later(data: Path) -> None:
    assert Loader(read_shards(data / "train"), ROWS, TOKENS, 3).rows_per_epoch() <= EPOCH * ROWS
    found = [drawn(seed, Run(mesh, data, data).world) for seed, mesh in DRAWS]
    assert len(found) == 50
    assert all(death.step > EPOCH for death in found)
    assert {death.place for death in found} == set(deaths.PLACES)


@pytest.mark.parametrize(("seed", "mesh"), DRAWS)
def test_killed_anywhere_it_ends_in_the_same_bits(
    seed: int, mesh: str, run: Run, unbroken: Unbroken
) -> None:
    run = replace(run, mesh=mesh)
    death = drawn(seed, run.world)
    die(run, death)
    assert not run.out.exists()
    if seed % 5 == 0 and death.place != "before the final artifact":
        die(run, Death("after a step", death.step, run.world - 1))
    finish_like(run, unbroken(mesh))
    assert all(event["step"] in range(2, STEPS + 1) for event in told(run, "resumed"))
    assert not run.out.with_name(".cloud.work").exists(), "nothing half written is left"


def test_every_mesh_sees_the_same_samples_in_a_step(unbroken: Unbroken) -> None:
    """Rows are those of the whole step, over all ranks."""
    wanted = {step: notes[0] for step, notes in samples(unbroken("one")).items()}
    for mesh in ("fsdp", "tp", "pp", "fsdp x ep", "pp x fsdp"):
        for step, notes in samples(unbroken(mesh)).items():
            assert notes == [wanted[step]] * unbroken(mesh).world


def test_moved_from_mesh_to_mesh_it_learns_the_same(run: Run, data: Path, tmp_path: Path) -> None:
    """Each mesh goes on where another world left, does two steps, and is killed after the second, before that is saved."""
    fields = {"precision": "fp32", "checkpoint_every": 1}
    still = Run("one", tmp_path / "still" / "cloud", data, fields=fields)
    still.out.parent.mkdir()
    assert start(still) == [0]
    order = ["one", "tp", "fsdp x ep", "one", "pp x fsdp", "ep x tp", "pp", "fsdp"]
    assert len(order) < STEPS
    for number, mesh in enumerate(order[:-1]):
        die(replace(run, mesh=mesh, fields=fields), Death("after a step", number + 2))
    assert start(replace(run, mesh=order[-1], fields=fields)) == [0, 0]
    assert [event["step"] for event in told(run, "resumed")] == list(range(1, len(order)))
    same_samples(run, still)
    for step, loss in losses(run).items():
        assert loss == pytest.approx(losses(still)[step], abs=1e-4)
    weights, wanted = read_final(run.out)[1], read_final(still.out)[1]
    assert set(weights) == set(wanted)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-4, msg=name)


@pytest.fixture(scope="module", params=["one", "ep"])
def killed(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    run = Run(request.param, tmp_path_factory.mktemp("killed") / "cloud", data)
    die(run, Death("after a step", 7))
    assert checkpoints(run) == ["step-000004", "step-000006"]
    return run


class TestDamaged:
    @pytest.mark.parametrize(
        ("name", "how"),
        [
            ("shard-00001", "cut"),
            ("shard-00001", "flipped"),
            ("shard-00002", "flipped"),
            ("state.json", "cut"),
            ("manifest.json", "cut"),
        ],
    )
    def test_the_one_before_is_used(
        self, name: str, how: str, killed: Run, unbroken: Unbroken, tmp_path: Path
    ) -> None:
        if name == "shard-00002" and killed.world == 1:
            pytest.skip("one rank writes one shard")
        shutil.copytree(killed.out.parent, tmp_path, dirs_exist_ok=True)
        (path,) = (tmp_path / ".cloud.work" / "step-000006").glob(f"{name}*")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content if how == "flipped" else content[: len(content) // 2])
        run = replace(killed, out=tmp_path / "cloud")
        finish_like(run, unbroken(killed.mesh))
        (damaged,) = told(run, "checkpoint_damaged")
        assert "step-000006" in damaged["path"]
        assert [event["step"] for event in told(run, "resumed")] == [4]


class TestFaultOfOneRank:
    def go_wrong(self, run: Run, fault: str) -> list[int]:
        codes = start(replace(run, fault=fault))
        assert 1000 not in codes, "a rank was left hanging"
        assert all("\n" not in said for said in errors(run))
        return codes

    @pytest.mark.parametrize(
        ("mesh", "later"), [("one", True), ("fsdp", True), ("pp x fsdp", False)]
    )
    def test_full_disk_is_everybodys(
        self, mesh: str, later: bool, run: Run, unbroken: Unbroken
    ) -> None:
        run = replace(run, mesh=mesh, fields={"async_checkpoint": later})
        assert self.go_wrong(run, "full_disk") == [DISK] * run.world, errors(run)
        assert all(
            "the disk is full; what was written before is intact" in said for said in errors(run)
        )
        assert checkpoints(run) == ["step-000002", "step-000004"]
        finish_like(run, unbroken(mesh))

    def test_a_shard_that_cannot_be_read_back_is_everybodys(
        self, run: Run, unbroken: Unbroken
    ) -> None:
        run = replace(run, mesh="tp")
        assert self.go_wrong(run, "unreadable_shard") == [TRAIN, TRAIN]
        assert all("Input/output error" in said for said in errors(run))
        assert checkpoints(run) == ["step-000002", "step-000004"]

    @pytest.mark.parametrize("mesh", ["fsdp", "pp", "ep x tp"])
    def test_what_nobody_expected_ends_the_others_at_once(self, mesh: str, run: Run) -> None:
        run = replace(run, mesh=mesh)
        assert self.go_wrong(run, "broken_learner") == [TRAIN] * (run.world - 1) + [PLAIN]
        assert errors(run)[0] == f"PeerError: rank 0: {GONE}"


@pytest.mark.parametrize(
    ("mesh", "place"),
    [
        ("one", "before the seal"),
        ("fsdp", "before the seal"),
        ("tp", "before its shard is written"),
    ],
)
def test_killed_while_it_writes_later_the_one_before_is_there(
    mesh: str, place: str, run: Run, unbroken: Unbroken
) -> None:
    run = replace(run, mesh=mesh, fields={"async_checkpoint": True})
    die(run, Death(place, 6, 0))
    newest = checkpoints(run)[-1]
    assert newest in ("step-000002", "step-000004"), "the one being written is not seen"
    finish_like(run, unbroken(mesh))
    assert [f"step-{event['step']:06d}" for event in told(run, "resumed")] == [newest]


@pytest.mark.parametrize("mesh", ["one", "tp", "fsdp x ep"])
def test_told_to_stop_it_writes_a_checkpoint_after_the_step_and_goes_on_from_there(
    mesh: str, run: Run, unbroken: Unbroken
) -> None:
    """One rank is told; all agree."""
    run = replace(run, mesh=mesh, fields={"checkpoint_every": 100})
    assert start(replace(run, change="told_to_stop")) == [0] * run.world
    assert not run.out.exists()
    assert checkpoints(run) == ["step-000003"]
    assert [event["step"] for event in told(run, "stopped")] == [3]
    assert [len(notes) for notes in samples(run).values()] == [run.world] * 3, (
        "no step is done after it"
    )
    finish_like(run, unbroken(mesh))
    assert [event["step"] for event in told(run, "resumed")] == [3]


def test_it_grows_and_shrinks_again_and_sees_every_sample_once(
    run: Run, unbroken: Unbroken
) -> None:
    """Two ranks, four, and two again, each asked to stop before the next begin; the sums of others are rounded otherwise."""
    fields = {"precision": "fp32", "checkpoint_every": 100}
    small, large = (replace(run, mesh=mesh, fields=fields) for mesh in ("fsdp", "grown fsdp"))
    for part in (small, large):
        assert start(replace(part, change="told_to_stop")) == [0] * part.world, errors(part)
    assert start(small) == [0, 0], errors(small)
    assert [event["step"] for event in told(run, "resumed")] == [3, 6]
    same_samples(run, unbroken("fsdp"))
    assert [len(notes) for _, notes in sorted(samples(run).items())] == [2] * 3 + [4] * 3 + [2] * 3
    still = Run("fsdp", run.out.with_name("still"), run.data, fields=fields)
    assert start(still) == [0, 0]
    weights, wanted = read_final(run.out)[1], read_final(still.out)[1]
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-4, msg=name)


class TestCopiesInMemory:
    """No checkpoint is written before the end: what a killed run goes on from was in memory."""

    @pytest.fixture
    def kept(self, run: Run, tmp_path: Path) -> Iterator[Run]:
        secret = make_secret(tmp_path / "secret")
        keepers = [ReplicaStore(tmp_path / "memory" / node, secret) for node in "ab"]
        nodes = tuple((str(keeper.folder), keeper.address) for keeper in keepers)
        yield replace(run, nodes=nodes, change="copied_often", fields={"checkpoint_every": 100})
        for keeper in keepers:
            keeper.close(remove=True)

    def begin(self, run: Run, death: Death, attempt: int = 0) -> None:
        self.variables = {
            "TUMEN_SECRET": str(run.out.with_name("secret")),
            "TUMEN_ATTEMPT": str(attempt),
        }
        codes = start(replace(run, death=death), **self.variables)
        assert SIGKILLED in codes, errors(run)
        assert checkpoints(run) == []

    def finish(self, run: Run, reference: Run, attempt: int = 1) -> list[tuple[int, str]]:
        assert start(run, **self.variables | {"TUMEN_ATTEMPT": str(attempt)}) == [0] * run.world, (
            errors(run)
        )
        assert verify(run.out).digest == verify(reference.out).digest
        same_samples(run, reference)
        return [(event["step"], event["source"]) for event in told(run, "resumed")]

    @pytest.mark.parametrize("mesh", ["fsdp", "tp", "pp x fsdp"])
    def test_a_node_that_dies_costs_a_step(self, mesh: str, kept: Run, unbroken: Unbroken) -> None:
        run = replace(kept, mesh=mesh)
        self.begin(run, Death("after a step", 6, run.world - 1))
        shutil.rmtree(
            run.nodes[1][0]
        )  # its memory is gone with it; the machine that replaces it has none
        Path(run.nodes[1][0]).mkdir(mode=0o700)
        ((step, source),) = self.finish(run, unbroken(mesh))
        assert source == "memory"
        assert step >= 4

    def test_again_and_again(self, kept: Run, unbroken: Unbroken) -> None:
        run = replace(kept, mesh="fsdp")
        for attempt, step in enumerate((4, 5, 7)):
            self.begin(run, Death("after a step", step, attempt % 2), attempt)
        steps = [
            step for step, source in self.finish(run, unbroken("fsdp"), 3) if source == "memory"
        ]
        assert len(steps) == 3
        assert steps == sorted(steps)

    def test_one_that_is_cut_is_passed_over(self, kept: Run, unbroken: Unbroken) -> None:
        run = replace(kept, mesh="fsdp")
        self.begin(run, Death("after a step", 6))
        for folder, _ in run.nodes:
            for path in sorted(Path(folder).glob("attempt-*rank-1*"))[-1:]:
                os.truncate(path, path.stat().st_size // 2)
        newest = max(transfer.replicas_in(Path(run.nodes[0][0]))).step
        ((step, source),) = self.finish(run, unbroken("fsdp"))
        assert (step, source) == (newest - 1, "memory")

    def test_those_of_another_recipe_or_world_are_not_used(
        self, kept: Run, unbroken: Unbroken
    ) -> None:
        self.begin(replace(kept, mesh="pp x fsdp"), Death("after a step", 6))
        for path in kept.out.parent.glob("cloud.samples.*"):
            path.unlink()
        run = replace(kept, mesh="fsdp")
        assert self.finish(run, unbroken("fsdp")) == []
        assert all(
            copy.world == 2
            for folder, _ in run.nodes
            for copy in transfer.replicas_in(Path(folder))
        )

    def test_without_room_checkpoints_alone_are_made(
        self, kept: Run, unbroken: Unbroken, small_disk: Path
    ) -> None:
        (small_disk / "filler").write_bytes(bytes(900_000))
        run = replace(
            kept, mesh="fsdp", nodes=(kept.nodes[0], (str(small_disk), kept.nodes[1][1])), fields={}
        )
        self.variables = {"TUMEN_SECRET": str(run.out.with_name("secret"))}
        assert self.finish(run, unbroken("fsdp")) == []
        (off,) = told(run, "replicas_off")
        assert "MiB of memory" in off["error"]

    def test_a_file_that_vanishes_while_it_is_counted_is_no_reason(self, tmp_path: Path) -> None:
        """A keeper renames its unfinished file between a rank's look at the folder and its look at the file."""
        (tmp_path / "gone.part").symlink_to(tmp_path / "nowhere")
        copies.refuse_full(tmp_path, {"weight": torch.zeros(4)})

    def test_a_neighbour_that_is_gone_costs_nothing_but_its_copy(
        self, kept: Run, unbroken: Unbroken
    ) -> None:
        run = replace(kept, mesh="fsdp", nodes=(kept.nodes[0], (kept.nodes[1][0], "127.0.0.1:9")))
        self.variables = {"TUMEN_SECRET": str(run.out.with_name("secret"))}
        assert self.finish(run, unbroken("fsdp")) == []
        assert "refused" in told(run, "replica_unsent")[0]["error"]


class TestRefusedBeforeTheFirstStep:
    def says(self, run: Run, code: int, part: str, **variables: str) -> None:
        before = samples(run)
        assert start(run, **variables) == [code] * run.world, errors(run)
        for said in errors(run):
            assert part in said
            assert "\n" not in said
        assert samples(run) == before

    def test_another_number_of_ranks(self, run: Run) -> None:
        self.says(
            replace(run, mesh="fsdp"),
            TRAIN,
            "the mesh needs 2 ranks, 1 were started",
            WORLD_SIZE="1",
        )
        self.says(run, TRAIN, "the mesh needs 1 ranks, 2 were started", WORLD_SIZE="2")

    def test_no_address_to_meet_at(self, run: Run) -> None:
        self.says(replace(run, mesh="fsdp"), TRAIN, "MASTER_ADDR expected", MASTER_ADDR="")

    @pytest.mark.parametrize("mesh", ["one", "fsdp", "pp"])
    def test_a_checkpoint_of_another_shape(self, mesh: str, run: Run) -> None:
        """Under a pipeline only the first rank has the layer that differs; the other says it too."""
        run = replace(run, mesh=mesh)
        die(run, Death("after a step", 5))
        self.says(
            replace(run, shape={"intermediate_size": 64}), ARTIFACT, "it is of another network"
        )


@pytest.mark.slow
class TestTorchrun:
    """`tumen train` as an engine starts it on several ranks."""

    @pytest.fixture
    def folder(
        self, recipe: Recipe, corpus: Path, tokenizer: Path, dataset: Path, tmp_path: Path
    ) -> Path:
        for made in (corpus, tokenizer, dataset):
            shutil.copytree(made, tmp_path / made.name)
        tier = recipe.family["cloud"]
        train = tier.train.model_copy(
            update={"steps": 12, "mesh": tier.train.mesh.model_copy(update={"dp": 2})}
        )
        changed = {**recipe.family, "cloud": tier.model_copy(update={"train": train})}
        (tmp_path / "recipe.json").write_text(
            recipe.model_copy(update={"family": changed}).model_dump_json()
        )
        return tmp_path

    def torchrun(self, folder: Path, ranks: int) -> subprocess.Popen[str]:
        command = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={ranks}",
            "-m",
            "tumen",
            "train",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *command, folder, "cloud"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def test_a_killed_rank_ends_the_run_and_it_goes_on(self, folder: Path) -> None:
        process = self.torchrun(folder, 2)
        deadline = time.monotonic() + 120
        while not (saved := list(events.read(folder / "events.jsonl", "checkpoint"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(saved[0]["pid"], signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
        assert process.returncode != 0
        assert not (folder / "cloud").exists()
        process = self.torchrun(folder, 2)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
        (resumed,) = events.read(folder / "events.jsonl", "resumed")
        assert resumed["step"] >= 2
        assert verify(folder / "cloud").facts["ranks"] == 2

    def test_an_error_is_one_line(self, folder: Path) -> None:
        process = self.torchrun(folder, 1)
        said = process.communicate(timeout=60)[1]
        assert process.returncode != 0
        lines = [line for line in said.splitlines() if "tumen: " in line]
        assert lines == [
            "tumen: the mesh needs 2 ranks, 1 were started; start 2, or change the mesh"
        ]
        assert 'File "' not in said.split("ChildFailedError")[0].split("Traceback")[0]
