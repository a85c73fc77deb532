"""The Slurm engine on a real Slurm: eight nodes with host names and networks of their own, on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.lab import slurm as lab

from tumen.cluster.engines import JobSpec, JobStatus
from tumen.cluster.engines.slurm import SlurmEngine
from tumen.core.errors import EngineError
from tumen.recipe import fleet_section

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("slurm_lab")]
PATIENCE_SECONDS = 60.0


@pytest.fixture
def slurm() -> SlurmEngine:
    return SlurmEngine()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A job's folder with a name that shells stumble over. Its job is gone afterwards."""
    folder = tmp_path / "it's 100% $HOME"
    yield folder
    SlurmEngine().cancel(str(folder))


def shell(folder: Path, script: str, nodes: int = 1, cards: int = 0, **asked: float) -> JobSpec:
    return JobSpec(
        "test", ("/bin/sh", "-c", script), folder, nodes=nodes, accelerators_per_node=cards, **asked
    )  # type: ignore[arg-type]


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def end_of(slurm: SlurmEngine, job: str) -> JobStatus:
    until(lambda: slurm.status(job).ended)
    return slurm.status(job)


def test_a_gang_has_true_ranks_on_hosts_of_their_own(slurm: SlurmEngine, folder: Path) -> None:
    script = 'echo "said $RANK $WORLD_SIZE $(hostname) $MASTER_ADDR $CUDA_VISIBLE_DEVICES"'
    job = slurm.submit(shell(folder, script, nodes=8, cards=8))
    assert end_of(slurm, job) == JobStatus("done", 0)
    said = sorted(line for line in slurm.logs(job).splitlines() if "said" in line)
    assert said == [
        f"[rank {rank}] said {rank} 8 n{rank + 1} n1 0,1,2,3,4,5,6,7" for rank in range(8)
    ]
    assert (folder / "id").read_text().strip().isdigit()


def test_the_first_rank_that_fails_ends_all(slurm: SlurmEngine, folder: Path) -> None:
    job = slurm.submit(shell(folder, 'test "$RANK" = 2 && exit 7; exec sleep 600', nodes=4))
    status = end_of(slurm, job)
    assert status.state == "failed"
    assert status.exit_code
    assert "task 2: Exited with exit code 7" in slurm.logs(job)


def test_a_job_can_be_asked_for_when_slurm_forgot_it(slurm: SlurmEngine, folder: Path) -> None:
    job = slurm.submit(shell(folder, "exit 3"))
    end_of(slurm, job)
    (folder / "id").write_text("99999\n")
    assert slurm.status(job) == JobStatus("failed", 3)
    (folder / "exit").unlink()
    assert slurm.status(job).state == "lost"


def test_cancel(slurm: SlurmEngine, folder: Path) -> None:
    job = slurm.submit(shell(folder, "echo up; exec sleep 600", nodes=2))
    until(lambda: slurm.logs(job).count("up\n") == 2)
    slurm.cancel(job)
    slurm.cancel(job)
    assert end_of(slurm, job).state == "cancelled"


def test_a_drained_node_gets_no_work_and_says_why(slurm: SlurmEngine, folder: Path) -> None:
    slurm.drain("n1", "Xid 79, card 3")
    try:
        (node,) = [node for node in slurm.nodes() if node.name == "n1"]
        assert (node.ready, node.reason, node.accelerators) == (False, "drained: Xid 79, card 3", 8)
        job = slurm.submit(shell(folder, "hostname", nodes=7))
        assert end_of(slurm, job).state == "done"
        assert "] n1\n" not in slurm.logs(job)
    finally:
        subprocess.run(["scontrol", "update", "nodename=n1", "state=resume"], check=True)


def test_nodes_to_avoid(slurm: SlurmEngine, folder: Path) -> None:
    job = slurm.submit(JobSpec("test", ("hostname",), folder, avoid=("n1", "n3")))
    assert end_of(slurm, job).state == "done"
    assert "] n2\n" in slurm.logs(job)


def test_more_cards_than_are_free_wait(slurm: SlurmEngine, folder: Path, tmp_path: Path) -> None:
    first = slurm.submit(shell(folder, "exec sleep 600", nodes=8, cards=8))
    second = slurm.submit(shell(tmp_path / "second", "true", cards=1))
    until(lambda: slurm.status(second).reason)
    assert slurm.status(second).state == "waiting"
    slurm.cancel(first)
    assert end_of(slurm, second).state == "done"


def test_a_node_that_dies_puts_the_job_back_and_it_goes_on_elsewhere(
    slurm: SlurmEngine, folder: Path
) -> None:
    script = 'echo "start on $(hostname)"; test "$SLURM_RESTART_COUNT" && exit 0; exec sleep 600'
    job = slurm.submit(shell(folder, script, nodes=3))
    until(lambda: slurm.logs(job).count("start on") == 3)
    os.kill(int((lab.FOLDER / "run" / "n2.pid").read_text()), signal.SIGKILL)
    lab.kill_node("n2")
    try:
        assert end_of(slurm, job) == JobStatus("done", 0)
        second = slurm.logs(job).partition("start 2, on ")[2]
        assert second.count("start on") == 3
        assert "start on n2" not in second
    finally:
        lab.start_node("n2")
        until(lambda: lab.states().get("idle") == 8)


def test_requeue_by_hand(slurm: SlurmEngine, folder: Path) -> None:
    job = slurm.submit(
        shell(folder, 'echo up; test "$SLURM_RESTART_COUNT" && exit 0; exec sleep 600')
    )
    until(lambda: "up" in slurm.logs(job))
    slurm.requeue(job)
    assert end_of(slurm, job) == JobStatus("done", 0)


def test_before_the_limit_ranks_are_told_and_the_job_is_queued_again(
    slurm: SlurmEngine, folder: Path
) -> None:
    """A minute is Slurm's smallest limit; the grace is most of it."""
    script = 'trap "echo saved; exit 5" TERM; test "$SLURM_RESTART_COUNT" && exit 0; while :; do sleep 0.1; done'
    job = slurm.submit(shell(folder, script, nodes=2, limit_seconds=60.0, grace_seconds=59.0))
    assert end_of(slurm, job) == JobStatus("done", 0)
    assert slurm.logs(job).count("saved") == 2


@pytest.mark.parametrize(
    ("site", "nodes", "line"),
    [
        (
            {"partition": "nosuch"},
            1,
            "no partition nosuch, or it is empty; it has closed, main, one: set fleet.slurm.partition",
        ),
        ({}, 9, "asks for 9 nodes, the cluster has 8"),
        ({"partition": "one"}, 2, "asks for 2 nodes, partition one has 1"),
        ({"partition": "closed"}, 1, "slurm refused test: .*account"),
        ({"reservation": "night"}, 1, "Requested reservation is invalid"),
        ({"gres": "gpu:a100"}, 1, "Requested node configuration is not available"),
        ({"constraint": "ib"}, 1, "Invalid feature specification"),
    ],
)
def test_a_refusal_is_one_line_and_nothing_is_queued(
    folder: Path, site: dict[str, str], nodes: int, line: str
) -> None:
    with pytest.raises(EngineError, match=line) as raised:
        SlurmEngine(fleet_section.Slurm.model_validate(site)).submit(
            shell(folder, "true", nodes=nodes, cards=1)
        )
    assert "\n" not in str(raised.value)
    assert subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout == ""


def test_while_the_controller_is_down_a_job_is_silent(
    slurm: SlurmEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for those who ask: a controller at a port where nobody listens."""
    job = slurm.submit(shell(folder, "true"))
    text = (lab.FOLDER / "slurm.conf").read_text()
    away = folder / "slurm.conf"
    away.write_text(
        text.replace("SlurmctldHost=", "SlurmctldPort=1\nMessageTimeout=2\nSlurmctldHost=")
    )
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(away))
        assert slurm.status(job).state == "silent"
    assert end_of(slurm, job).state == "done"
