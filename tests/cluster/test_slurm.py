"""The Slurm engine's texts: what is submitted, and what Slurm says. The lab (test_slurm_lab.py) runs them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cluster.jobs import LARGE, SMALL

from tumen.cluster.engines import JobSpec, JobStatus, Node
from tumen.cluster.engines.slurm import SlurmEngine, complaint, parse, parse_accounting, parse_nodes
from tumen.cluster.engines.slurm_script import format_limit, render
from tumen.core.errors import DiskError, EngineError
from tumen.recipe import fleet_section

GOLDEN = Path(__file__).parents[1] / "golden"
SITE = fleet_section.Slurm(
    account="llm",
    partition="h800",
    qos="high",
    reservation="night",
    gres="gpu:h800",
    setup=("module load cuda/12.8",),
)
SHOWN = (  # scontrol show job 2 --oneliner, Slurm 22.05.8, shortened in the middle
    "JobId=2 JobName=x UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901758 Nice=0 Account=(null) QOS=(null) "
    "JobState={state} Reason={reason} Dependency=(null) Requeue=1 Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode={code} "
    "RunTime=00:00:01 NodeList={nodes} Comment=JobState=FAILED NumNodes=8"
)


@pytest.mark.parametrize(
    ("name", "job", "site"), [("slurm_large.sh", LARGE, SITE), ("slurm_small.sh", SMALL, None)]
)
def test_rendered_text_is_as_it_was(
    name: str, job: JobSpec, site: fleet_section.Slurm | None
) -> None:
    assert render(job, site) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("job", [LARGE, SMALL])
def test_rendered_text_is_bash(job: JobSpec) -> None:
    assert (
        subprocess.run(["bash", "-n"], input=render(job), capture_output=True, text=True).stderr
        == ""
    )


def test_nothing_is_invented() -> None:
    text = render(LARGE)
    assert not any(
        f"--{word}=" in text
        for word in ("account", "partition", "qos", "reservation", "constraint", "gres")
    )
    assert "NCCL_IB" not in text


def test_without_a_limit_nothing_waits_for_its_end() -> None:
    text = render(replace(LARGE, limit_seconds=None))
    assert "--time" not in text
    assert "USR1" not in text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "0-00:01:00"), (3661, "0-01:01:01"), (36 * 3600, "1-12:00:00")]
)
def test_limit(seconds: float, shown: str) -> None:
    assert format_limit(seconds) == shown


@pytest.mark.parametrize(
    ("state", "reason", "code", "restarts", "status"),
    [
        ("PENDING", "Resources", "0:0", 0, JobStatus("waiting", reason="Resources")),
        ("PENDING", "None", "0:0", 0, JobStatus("waiting")),
        (
            "PENDING",
            "BeginTime",
            "0:0",
            2,
            JobStatus("waiting", reason="BeginTime, restarted 2 times"),
        ),
        ("RUNNING", "None", "0:0", 0, JobStatus("running", reason="n[1-8]")),
        ("COMPLETING", "None", "0:0", 1, JobStatus("running", reason="n[1-8], restarted 1 times")),
        ("COMPLETED", "None", "0:0", 0, JobStatus("done", 0)),
        ("FAILED", "NonZeroExitCode", "7:0", 0, JobStatus("failed", 7)),
        ("FAILED", "NonZeroExitCode", "0:9", 0, JobStatus("failed", 137)),
        ("NODE_FAIL", "None", "0:0", 0, JobStatus("failed", 1, "NODE_FAIL")),
        ("TIMEOUT", "TimeLimit", "0:1", 0, JobStatus("failed", 129, "TIMEOUT")),
        ("CANCELLED", "None", "0:15", 0, JobStatus("cancelled")),
    ],
)
def test_parse(state: str, reason: str, code: str, restarts: int, status: JobStatus) -> None:
    text = SHOWN.format(state=state, reason=reason, code=code, restarts=restarts, nodes="n[1-8]")
    assert parse(text) == status


@pytest.mark.parametrize("text", ["", "No jobs in the system", "JobId=2"])
def test_parse_lost(text: str) -> None:
    assert parse(text).state == "lost"


def test_accounting() -> None:
    assert parse_accounting("NODE_FAIL|0:0\nCOMPLETED|0:0\n") == JobStatus("done", 0)
    assert parse_accounting("CANCELLED by 1000|0:15\n") == JobStatus("cancelled")
    assert parse_accounting("FAILED|7:0\n") == JobStatus("failed", 7)
    assert parse_accounting("Slurm accounting storage is disabled\n") is None


def test_nodes() -> None:
    text = (
        "n1|idle|gpu:h100:8|none\nn1|idle|gpu:h100:8|none\nn2|mixed|gpu:8(S:0-1),fpga:2|none\nn3|drained|gpu:h100:8|Xid 79, card 3 | twice\n"
        "n4|down*|gpu:a100:4,gpu:v100:2|Not responding\nn5|allocated*|(null)|none\n"
    )
    assert parse_nodes(text) == [
        Node("n1", 8),
        Node("n2", 8),
        Node("n3", 8, False, "drained: Xid 79, card 3 | twice"),
        Node("n4", 6, False, "down*: Not responding"),
        Node("n5", 0, False, "allocated*"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "Invalid partition name specified; invalid partition specified: x",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested reservation is invalid",
            "Requested reservation is invalid",
        ),
        ("", "it gave no reason"),
    ],
)
def test_complaint_is_one_line(text: str, line: str) -> None:
    assert complaint(text) == line


class TestWithoutSlurm:
    @pytest.fixture(autouse=True)
    def _nothing_on_the_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_not_installed_is_one_line_and_nothing_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="sinfo is not on the path; run this on a login node"):
            SlurmEngine().submit(replace(SMALL, folder=tmp_path / "job"))
        assert not (tmp_path / "job").exists()

    def test_a_job_is_silent_not_lost(self, tmp_path: Path) -> None:
        (tmp_path / "id").write_text("12\n")
        assert SlurmEngine().status(str(tmp_path)).state == "silent"


def stand_in(folder: Path, **programs: str) -> None:
    """Commands that say what is written here, where a real cluster would have to be broken."""
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def test_read_only_folder_submits_nothing(
    small_disk: Path,
    make_read_only: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(
        tmp_path, sinfo="echo 'n1|idle|gpu:8|none'", sbatch=f"touch {tmp_path}/submitted; echo 7"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    make_read_only()
    with pytest.raises(DiskError, match="read-only"):
        SlurmEngine().submit(replace(SMALL, folder=small_disk / "job"))
    assert not (tmp_path / "submitted").exists()


def test_a_job_whose_id_cannot_be_kept_is_cancelled(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up between the script and its number: nobody would find the job again."""
    stand_in(
        tmp_path,
        sinfo="echo 'n1|idle|gpu:8|none'",
        sbatch=f"mount -o remount,ro {small_disk}; echo 7",
        scancel=f'echo "$1" > {tmp_path}/cancelled',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin:/usr/sbin:/sbin")
    with pytest.raises(DiskError):
        SlurmEngine().submit(replace(SMALL, folder=small_disk / "job"))
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_an_account_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
    stand_in(tmp_path, sinfo="echo 'n1|idle|gpu:8|none'", sbatch=f"echo '{said}' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(
        EngineError,
        match="^slurm refused tiny-device: Invalid account or account/partition combination specified$",
    ):
        SlurmEngine(fleet_section.Slurm(account="theirs")).submit(
            replace(SMALL, folder=tmp_path / "job")
        )
    assert not (tmp_path / "job" / "id").exists()


class TestScript:
    """The batch script, run by bash with stand-ins of Slurm's commands: one node, whose agent is a shell script."""

    def run(self, folder: Path, agent: str, job: JobSpec = SMALL, **variables: str) -> int:
        programs = folder / "bin"
        programs.mkdir(exist_ok=True)
        python = folder / "python"
        stand_in(folder, python=agent)
        stand_in(
            programs,
            srun='while [ "$1" != bash ]; do shift; done; exec "$@"',
            scontrol=f'case "$1" in show) echo n7;; *) echo "$@" >> {folder}/asked; exit 1;; esac',
            scancel=f'echo "$@" >> {folder}/asked; kill -TERM "$(cat {folder}/agent)"',
        )
        job = replace(job, folder=folder / "job", python=str(python))
        job.folder.mkdir(exist_ok=True)
        script = render(job)
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NODELIST": "n[7-8]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_NODEID": "1",
            "SLURMD_NODENAME": "n8",
            "SLURM_CPUS_ON_NODE": "16",
            **variables,
        }
        command = ["bash", "-c", script]
        return subprocess.run(command, env=environment, timeout=60).returncode

    def test_an_agent_gets_its_place_and_its_epoch(self, tmp_path: Path) -> None:
        says = f'echo "$OMP_NUM_THREADS $@" > {tmp_path}/said'
        assert self.run(tmp_path, says, replace(SMALL, nodes=2, ranks_per_node=4)) == 0
        threads, *options = (tmp_path / "said").read_text().split()
        assert threads == "4"
        assert " ".join(options) == (
            f"-m tumen.cluster.agents --folder {tmp_path}/job --epoch 12.1 --attempt 1"
            " --node n8 --address n8 --nodes 2 --node-rank 1 --ranks-per-node 4"
            " --master n7:20012 --standby -- " + " ".join(SMALL.command)
        )
        found = {path.name: path.read_text() for path in (tmp_path / "job").iterdir()}
        assert found == {"epoch": "12.1\n", "id": "12\n", "exit": "0\n"}

    @pytest.mark.parametrize(
        ("cores", "given", "threads"), [("3", "", "1"), ("16", "7", "7"), ("8", "", "2")]
    )
    def test_ranks_share_the_cores_of_a_node(
        self, tmp_path: Path, cores: str, given: str, threads: str
    ) -> None:
        variables = {"SLURM_CPUS_ON_NODE": cores, **({"OMP_NUM_THREADS": given} if given else {})}
        says = f'echo "$OMP_NUM_THREADS" > {tmp_path}/said'
        self.run(tmp_path, says, replace(SMALL, ranks_per_node=4), **variables)
        assert (tmp_path / "said").read_text() == f"{threads}\n"

    def test_a_failure_is_the_exit_code_of_the_job(self, tmp_path: Path) -> None:
        (tmp_path / "job").mkdir()
        (tmp_path / "job" / "exit").write_text("0\n")
        assert self.run(tmp_path, "exit 9", SLURM_RESTART_COUNT="2") == 9
        assert (tmp_path / "job" / "exit").read_text() == "9\n"
        assert (tmp_path / "job" / "epoch").read_text() == "12.3\n"

    def test_a_stale_script_writes_no_exit_code(self, tmp_path: Path) -> None:
        started_elsewhere = f"echo 12.2 > {tmp_path}/job/epoch; exit 3"
        assert self.run(tmp_path, started_elsewhere) == 3
        assert not (tmp_path / "job" / "exit").exists()

    def test_before_the_time_limit_ranks_are_told_and_the_job_is_queued_again(
        self, tmp_path: Path
    ) -> None:
        """Slurm sends USR1 to the script; here scontrol refuses to queue it again."""
        waits = f"trap 'exit 0' TERM; echo $$ > {tmp_path}/agent; kill -USR1 $PPID; sleep 30 & wait"
        assert self.run(tmp_path, waits, replace(SMALL, limit_seconds=3600.0)) == 0
        assert (tmp_path / "asked").read_text() == "--signal=TERM 12\nrequeue 12\n"
