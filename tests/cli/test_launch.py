"""`tumen launch | status | logs | cancel | nodes | drain`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import TINY, Tumen

from tumen.cluster.engines import JobStatus
from tumen.cluster.watcher import Snapshot, write_snapshot
from tumen.core.artifact import write_text
from tumen.core.errors import PlanError
from tumen.core.events import Events
from tumen.pipeline.training.tier_job import Spread, cause, spread
from tumen.recipe import Fleet

LAB = (
    "--set",
    'fleet.accelerators="cpu:4"',
    "--set",
    "fleet.accelerators_per_node=2",
    "--set",
    "family.cloud.train.mesh.dp=4",
)
IMAGE = ("--set", 'fleet.kubernetes.image="x"', "--set", 'fleet.kubernetes.volumes={ "/" = "all" }')


@pytest.fixture
def ready(whole: Path, tmp_path: Path) -> Path:
    """A run whose data are made and whose tiers are not."""
    run = tmp_path / "run"
    for name in ("corpus", "tokenizer", "dataset"):
        shutil.copytree(whole / name, run / name)
    shutil.copy(whole / "recipe.json", run / "recipe.json")
    return run


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("local", "#!/bin/sh"),
        ("slurm", "#SBATCH --job-name=tiny-cloud"),
        ("kubernetes", "kind: JobSet"),
    ],
)
def test_dry_run_prints_what_would_be_submitted_and_does_nothing(
    tumen: Tumen, tmp_path: Path, engine: str, says: str
) -> None:
    said = tumen("launch", TINY, "--on", engine, "--dry-run", *IMAGE, folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert says in said.stdout
    assert not list(tmp_path.iterdir())


def test_nodes_ranks_and_cards_follow_from_mesh_and_fleet(tumen: Tumen, tmp_path: Path) -> None:
    fleet = (
        "--set",
        'fleet.accelerators="h800:64"',
        "--set",
        "family.cloud.train.mesh.dp=32",
        "--set",
        "family.cloud.train.batch_size=32",
    )
    said = tumen(
        "launch",
        TINY,
        "--on",
        "slurm",
        "--dry-run",
        *fleet,
        "--set",
        'fleet.slurm.partition="p"',
        folder=tmp_path,
    )
    for line in (
        "--nodes=4",
        "--gpus-per-node=8",
        "--exclusive",
        "--partition=p",
        "ranks_per_node=8",
    ):
        assert line in said.stdout


@pytest.mark.parametrize(
    ("fleet", "ranks", "asked"),
    [
        (Fleet(), 1, (1, 1, 0, False)),
        (Fleet(accelerators="h800:8"), 4, (1, 4, 4, False)),
        (Fleet(engine="slurm", accelerators="h800:64"), 1, (1, 1, 1, False)),
        (Fleet(engine="slurm", accelerators="h800:64"), 8, (1, 8, 8, True)),
        (Fleet(engine="slurm", accelerators="h800:64"), 64, (8, 8, 8, True)),
        (
            Fleet(engine="slurm", accelerators="h800:64", accelerators_per_node=4),
            64,
            (16, 4, 4, True),
        ),
        (Fleet(engine="slurm", accelerators="cpu:8"), 4, (1, 4, 0, False)),
        (Fleet(engine="slurm", accelerators="cpu:8", accelerators_per_node=2), 4, (2, 2, 0, True)),
    ],
)
def test_spread(fleet: Fleet, ranks: int, asked: tuple[int, int, int, bool]) -> None:
    assert spread(fleet, ranks) == Spread(*asked)


def test_a_node_that_would_be_half_empty_is_refused() -> None:
    with pytest.raises(
        PlanError, match="the mesh has 12 ranks, which is not a multiple of the 8 accelerators"
    ):
        spread(Fleet(engine="slurm", accelerators="h800:64"), 12)


@pytest.mark.parametrize(
    ("logs", "status", "why"),
    [
        (
            "tumen: job 7, start 0, on n1\n[rank 3] tumen: the loss is NaN\nsrun: error: Terminated\n",
            JobStatus("failed", 7),
            "the loss is NaN",
        ),
        (
            "tumen: the disk is full\ntorch: ChildFailedError\n",
            JobStatus("failed", 5),
            "the disk is full",
        ),
        ("", JobStatus("lost", reason="the machine restarted"), "the machine restarted"),
        ("Traceback\nValueError: x\n\n", JobStatus("failed", 1), "ValueError: x"),
        ("half a line", JobStatus("failed", 1, "NODE_FAIL"), "NODE_FAIL"),
        ("", JobStatus("failed", 1), ""),
    ],
)
def test_cause(logs: str, status: JobStatus, why: str) -> None:
    assert cause(logs, status) == why


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--on", "nowhere"), "fleet.engine 'nowhere' is unknown; known: local, slurm, kubernetes"),
        (("--tier", "none"), "--tier 'none' is not a tier of tiny; it has cloud, device"),
        (("--tier", "device"), "device is trained from cloud, which is missing; `tumen launch "),
        (("--set", "fleet.limit=soon"), "fleet: limit: 'soon' is not a duration"),
        (("--set", 'fleet.slurm.account="a b"'), "fleet.slurm.account: String should match"),
        (("--on", "slurm", "--set", 'fleet.accelerators="h800:2"', "--set", "family.cloud.train.mesh.dp=4"), "the mesh has 4 ranks, fleet.accelerators is"),
    ],
)  # fmt: skip
def test_what_cannot_be_launched_is_told(
    tumen: Tumen, ready: Path, arguments: tuple[str, ...], line: str
) -> None:
    said = tumen("launch", ready, *arguments)
    assert said.returncode
    assert line in said.stderr
    assert "Traceback" not in said.stderr
    assert not (ready / "jobs").exists()


def test_without_data_it_says_what_makes_them(tumen: Tumen, tmp_path: Path) -> None:
    said = tumen("launch", TINY, folder=tmp_path)
    assert (
        "cloud is trained from dataset, which is missing; `tumen run RECIPE --run runs/tiny --until dataset` makes it"
        in said.stderr
    )


def test_on_this_machine_it_waits(tumen: Tumen, ready: Path) -> None:
    said = tumen("launch", ready)
    assert said.returncode == 0, said.stderr
    assert "cloud: trained" in said.stdout
    assert tumen("status", ready).stdout.startswith("cloud: done, step 8 of 8, loss ")
    assert "loss" not in tumen("logs", ready).stderr
    assert tumen("cancel", ready).stdout == "cloud: was done already\n"
    again = tumen("launch", ready, "--dry-run")
    assert "train" in again.stdout


def test_nothing_was_launched(tumen: Tumen, ready: Path) -> None:
    assert "nothing was launched" in tumen("status", ready).stdout
    assert "a tier was never launched; launched so far: none" in tumen("logs", ready).stderr


def test_this_machine_is_a_node_that_cannot_be_drained(tumen: Tumen) -> None:
    name = socket.gethostname()
    assert re.match(
        rf"{name} +1 accelerators  ready\n1 of 1 nodes ready",
        tumen("nodes", "--on", "local").stdout,
    )
    said = tumen("drain", name, "--why", "it smells", "--on", "local")
    assert (
        said.stderr
        == f"tumen: {name}: this engine runs on this machine only; there is no node to drain\n"
    )
    assert "no engine: give --on" in tumen("nodes").stderr


def test_an_engine_that_is_not_installed_is_one_line(
    tumen: Tumen, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(ready))
    said = tumen("launch", ready, "--on", "slurm")
    assert said.returncode == 11
    assert (
        said.stderr
        == "tumen: sinfo is not on the path; run this on a login node of the Slurm cluster\n"
    )
    assert not (ready / "jobs").exists()


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Commands of a cluster that is not here; what they are given to submit is kept in `submitted`."""
    folder.mkdir()
    for name, script in {"sbatch": f"touch {folder}/submitted; echo 7", **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin:/usr/sbin:/sbin")


EIGHT = 'for i in 1 2 3 4 5 6 7 8; do echo "n$i|idle|gpu:h100:8|none"; done'


@pytest.mark.parametrize(
    ("programs", "asked", "code", "line"),
    [
        ({"sinfo": "case $* in *partition*) ;; *) echo main ;; esac"}, 'fleet.slurm.partition="x"', 11, "slurm has no partition x, or it is empty; it has main"),
        ({"sinfo": EIGHT}, "family.cloud.train.mesh.dp=64", 11, "tiny-cloud asks for 32 nodes, the cluster has 8"),
        ({"sinfo": EIGHT, "sbatch": "echo 'sbatch: error: Batch job submission failed: Invalid qos specification' >&2; exit 1"}, 'fleet.slurm.qos="x"', 11, "slurm refused tiny-cloud: Invalid qos"),
        ({"sinfo": "echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2; exit 1"}, 'fleet.slurm.qos="x"', 11, "slurm does not answer: Unable to contact slurm controller"),
        ({"sinfo": EIGHT, "sbatch": "exit 127"}, 'fleet.slurm.qos="x"', 11, "slurm refused tiny-cloud: it gave no reason"),
        ({"sinfo": EIGHT, "sbatch": "echo hello"}, 'fleet.slurm.qos="x"', 11, "slurm accepted tiny-cloud but gave no number"),
    ],
)  # fmt: skip
def test_what_slurm_does_not_take_is_one_line(
    tumen: Tumen,
    ready: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: dict[str, str],
    asked: str,
    code: int,
    line: str,
) -> None:
    stand_in(tmp_path / "bin", monkeypatch, **programs)
    many = (
        "--set",
        'fleet.accelerators="cpu:64"',
        "--set",
        "fleet.accelerators_per_node=2",
        "--set",
        "family.cloud.train.batch_size=64",
    )
    said = tumen("launch", ready, "--on", "slurm", *many, "--set", asked)
    assert (said.returncode, said.stderr.count("\n")) == (code, 1), said.stderr
    assert line in said.stderr
    assert not (tmp_path / "bin" / "submitted").exists()
    assert not (ready / "jobs" / "cloud" / "id").exists()


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_takes_nothing_submits_nothing(
    tumen: Tumen, ready: Path, small_disk: Path, make_read_only: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:  # fmt: skip
    stand_in(tmp_path / "bin", monkeypatch, sinfo=EIGHT)
    run = small_disk / "run"
    run.mkdir()
    shutil.copy(ready / "recipe.json", run / "recipe.json")
    for made in ("corpus", "tokenizer", "dataset"):
        (run / made).symlink_to(ready / made)
    if fault == "full":
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={small_disk}/rest", "bs=64k"],
            capture_output=True,
            check=False,
        )
    else:
        make_read_only()
    said = tumen("launch", run, "--on", "slurm")
    assert (said.returncode, said.stderr.count("\n")) == (5, 1), said.stderr
    assert f"the disk is {fault}" in said.stderr
    assert not (tmp_path / "bin" / "submitted").exists()


def test_a_job_of_1250_nodes_is_few_short_lines(
    tumen: Tumen, ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "JobId=7 JobState=RUNNING Reason=None ExitCode=0:0 Restarts=1 NodeList=n[1-1250]"
    listed = 'i=0; while [ $((i+=1)) -le 1250 ]; do [ $i = 17 ] && echo "n17|drained|gpu:8|Xid 79" || echo "n$i|allocated|gpu:8|none"; done'
    stand_in(tmp_path / "bin", monkeypatch, scontrol=f"echo '{shown}'", sinfo=listed)
    recipe = json.loads((ready / "recipe.json").read_text())
    recipe["fleet"]["engine"] = "slurm"
    write_text(ready / "recipe.json", json.dumps(recipe))
    job = ready / "jobs" / "cloud"
    job.mkdir(parents=True)
    (job / "id").write_text("7\n")
    write_snapshot(
        job,
        Snapshot(
            time=time.time(),
            attempt=2,
            nodes=1250,
            phases={"train": 9992, "load": 8},
            step=40,
            step_seconds=1.2,
            silent={"n9": 7.0},
        ),
    )
    Events(job / "watch.jsonl").emit(
        "fault", kind="node", rank=-1, node="n9", step=40, why="no report for 5 s"
    )
    lines = tumen("status", ready).stdout.splitlines()
    assert lines[:3] == [
        "cloud: running, n[1-1250], restarted 1 times, job 7",
        "  10,000 ranks on 1,250 nodes, attempt 2: 9,992 train, 8 load; a step takes 1.2 s",
        "  silent: n9, for 7 s",
    ]
    assert len(lines) == 5
    assert max(map(len, lines)) < 120
    assert tumen("nodes", ready).stdout.splitlines() == [
        "n[1-16,18-1250]            8 accelerators  ready",
        "n17                        8 accelerators  drained: Xid 79",
        "1249 of 1250 nodes ready, 9992 accelerators",
    ]


@pytest.mark.lab
@pytest.mark.usefixtures("slurm_lab")
class TestOnSlurm:
    def test_a_real_training_over_two_hosts(self, tumen: Tumen, ready: Path, whole: Path) -> None:
        """Four ranks by torchrun's agents on two hosts learn what one process learns."""
        said = tumen("launch", ready, "--on", "slurm", *LAB)
        assert said.returncode == 0, said.stderr
        assert re.search(r"cloud: submitted to slurm as job \d+, 2 nodes x 2 ranks", said.stdout)
        second = tumen("launch", ready)
        assert second.returncode == 11, "the run remembers its engine"
        assert re.search(
            r"cloud is (waiting|running) already as job \d+; `tumen cancel", second.stderr
        )
        deadline = time.monotonic() + 150
        while json.loads(tumen("status", ready, "--json").stdout)["cloud"]["state"] in (
            "waiting",
            "running",
        ):
            assert time.monotonic() < deadline, tumen("logs", ready).stdout
            time.sleep(1)
        logs = tumen("logs", ready).stdout
        assert tumen("status", ready).stdout.startswith("cloud: done, job "), logs
        assert "on n[1-2]" in logs
        assert len(list((ready / "jobs" / "cloud" / "ranks").glob("n[12]/1/[0-3].log"))) == 4
        losses = [
            json.loads((run / "cloud" / "manifest.json").read_text())["facts"]["validation_loss"]
            for run in (ready, whole)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)

    def test_run_uses_it_for_its_training(self, tumen: Tumen, ready: Path) -> None:
        fleet = ("--set", 'fleet.engine="slurm"', "--set", 'fleet.slurm.partition="main"')
        said = tumen("run", TINY, "--run", ready, "--until", "cloud", *fleet)
        assert said.returncode == 0, said.stderr
        assert tumen("status", ready).stdout.startswith("cloud: done, job ")
        assert (ready / "cloud" / "manifest.json").exists()

    def test_a_training_that_fails_says_why(self, tumen: Tumen, ready: Path) -> None:
        """Found by a rank on its node, told by `tumen run` here."""
        fault = ("--set", "family.cloud.train.mesh.micro_batch_size=3")
        said = tumen(
            "run", TINY, "--run", ready, "--until", "cloud", "--set", 'fleet.engine="slurm"', *fault
        )
        assert said.returncode == 7, said.stderr
        assert re.fullmatch(
            r"tumen: cloud: mesh: dp 1 x micro_batch_size 3 must divide 8 rows \(log: .*/jobs/cloud/log\)\n",
            said.stderr,
        )

    def test_nodes_and_drain(self, tumen: Tumen) -> None:
        try:
            assert (
                tumen("drain", "n8", "--why", "Xid 79", "--on", "slurm").stdout
                == "n8: takes no new work (Xid 79)\n"
            )
            said = tumen("nodes", "--on", "slurm").stdout
            assert re.search(
                r"n8 +8 accelerators  drained: Xid 79\n7 of 8 nodes ready, 56 accelerators\n", said
            )
        finally:
            subprocess.run(["scontrol", "update", "nodename=n8", "state=resume"], check=True)
        assert (
            "slurm does not drain n99: "
            in tumen("drain", "n99", "--why", "x", "--on", "slurm").stderr
        )

    def test_no_such_partition_leaves_nothing(self, tumen: Tumen, ready: Path) -> None:
        said = tumen("launch", ready, "--on", "slurm", "--set", 'fleet.slurm.partition="x"')
        assert said.returncode == 11
        assert said.stderr.startswith(
            "tumen: slurm has no partition x, or it is empty; it has closed, main, one"
        )
        assert not (ready / "jobs").exists()
