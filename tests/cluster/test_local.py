"""The local engine: what a job prints, how it ends, and that nothing outlives its starter."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tumen.cluster.engines import JobSpec, JobStatus
from tumen.cluster.engines.local import LocalEngine, parse, render

GOLDEN = Path(__file__).parents[1] / "golden" / "local_job.sh"
PATIENCE_SECONDS = 20.0


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def shell(folder: Path, script: str, **environment: str) -> JobSpec:
    return JobSpec("test", ("/bin/sh", "-c", script), folder, environment)


@pytest.fixture
def local() -> LocalEngine:
    return LocalEngine()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a job's folder"


def test_rendered_text_is_as_it_was() -> None:
    job = JobSpec(
        "tiny-cloud",
        ("python", "-m", "tumen", "train", "runs/it's", "cloud"),
        Path("/runs/tiny/jobs/cloud"),
        {"MASTER_PORT": "1 2"},
    )
    assert render(job) == GOLDEN.read_text()


def test_several_ranks_have_an_agent() -> None:
    text = render(
        JobSpec(
            "x",
            ("python", "-m", "tumen", "train", "runs/x", "cloud"),
            Path("/x"),
            ranks_per_node=2,
            nodes=2,
        )
    )
    where = "--folder /x --nodes 2 --ranks-per-node 2 --standby"
    assert (
        f"{sys.executable} -m tumen.cluster.agents {where} -- python -m tumen train runs/x cloud"
        in text
    )
    assert "WORLD_SIZE" not in text, "the agent says it"
    assert "--standby" not in render(JobSpec("x", ("true",), Path("/x"), ranks_per_node=2)), (
        "not everything can stand by"
    )


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("[ $RANK = 0 ] || exit 5; sleep 60", 5), ("kill -9 $$", 137)],
)
def test_several_ranks_end_together(
    local: LocalEngine, folder: Path, script: str, code: int
) -> None:
    job = local.submit(JobSpec("test", ("/bin/sh", "-c", script), folder, ranks_per_node=2))
    until(lambda: local.status(job).ended)
    assert local.status(job) == JobStatus("done" if code == 0 else "failed", code)


@pytest.mark.parametrize(
    ("text", "alive", "status"),
    [
        ("0\n", False, JobStatus("done", 0)),
        ("7\n", False, JobStatus("failed", 7)),
        ("137", False, JobStatus("failed", 137)),
        ("0\n", True, JobStatus("done", 0)),
        ("cancelled\n", False, JobStatus("cancelled")),
        (None, True, JobStatus("running")),
        ("", True, JobStatus("running")),
    ],
)
def test_parse(text: str | None, alive: bool, status: JobStatus) -> None:
    assert parse(text, alive) == status


@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_parse_lost(text: str | None) -> None:
    status = parse(text, alive=False)
    assert status.state == "lost"
    assert status.ended
    assert "killed" in status.reason


@pytest.mark.parametrize("code", [0, 1, 77])
def test_exit_codes_and_logs(local: LocalEngine, folder: Path, code: int) -> None:
    job = local.submit(shell(folder, f"echo said; echo complained >&2; exit {code}"))
    until(lambda: local.status(job).ended)
    assert local.status(job) == JobStatus("done" if code == 0 else "failed", code)
    assert local.logs(job) == "said\ncomplained\n"


def test_a_job_finds_torchruns_variables_and_its_own(local: LocalEngine, folder: Path) -> None:
    job = local.submit(
        shell(folder, 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $MINE"', MINE="a 'quoted' $HOME")
    )
    until(lambda: local.status(job).ended)
    assert local.logs(job) == "0 1 0 a 'quoted' $HOME\n"


def test_a_job_has_no_input(local: LocalEngine, folder: Path) -> None:
    job = local.submit(shell(folder, "cat; echo end"))
    until(lambda: local.status(job).ended)
    assert local.logs(job) == "end\n"


def test_cancel_stops_it_and_says_so(local: LocalEngine, folder: Path) -> None:
    job = local.submit(shell(folder, "echo $$; sleep 60"))
    until(lambda: local.logs(job))
    assert local.status(job) == JobStatus("running")
    local.cancel(job)
    assert local.status(job) == JobStatus("cancelled")
    assert not is_alive(int(local.logs(job).split()[0]))


def test_cancel_lets_a_job_end_well(local: LocalEngine, folder: Path) -> None:
    job = local.submit(
        shell(folder, "trap 'echo saved; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    )
    until(lambda: "ready" in local.logs(job))
    local.cancel(job)
    assert "saved" in local.logs(job)
    assert local.status(job).state == "cancelled"


def test_cancel_reaches_what_will_not_listen(
    local: LocalEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumen.cluster.engines.local.GRACE_SECONDS", 0.2)
    stubborn = "import signal, time, os; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    job = local.submit(JobSpec("test", (sys.executable, "-c", stubborn), folder))
    until(lambda: local.logs(job))
    local.cancel(job)
    until(lambda: not is_alive(int(local.logs(job).split()[0])))
    assert local.status(job).state == "cancelled"


def test_cancel_leaves_what_ended_as_it_ended(local: LocalEngine, folder: Path) -> None:
    job = local.submit(shell(folder, "exit 5"))
    until(lambda: local.status(job).ended)
    local.cancel(job)
    local.cancel(job)
    assert local.status(job) == JobStatus("failed", 5)


def test_a_killed_job_is_lost(local: LocalEngine, folder: Path) -> None:
    job = local.submit(shell(folder, "sleep 60"))
    group = int((folder / "pid").read_text().split()[0])
    os.killpg(group, signal.SIGKILL)
    until(lambda: local.status(job).ended)
    assert local.status(job).state == "lost"


def test_an_unknown_job_is_lost(local: LocalEngine, tmp_path: Path) -> None:
    for name in ("nothing", "../.."):
        assert local.status(str(tmp_path / name)).state == "lost"
    assert local.logs(str(tmp_path / "nothing")) == ""
    local.cancel(str(tmp_path / "nothing"))


def test_a_reused_pid_is_not_the_job(local: LocalEngine, folder: Path) -> None:
    """The machine restarted, and another process has the job's number now: ours. It must not be hurt."""
    folder.mkdir()
    (folder / "pid").write_text(f"{os.getpid()} 1")
    assert local.status(str(folder)).state == "lost"
    local.cancel(str(folder))


def test_a_second_job_in_a_folder_starts_afresh(local: LocalEngine, folder: Path) -> None:
    first = local.submit(shell(folder, "exit 5"))
    until(lambda: local.status(first).ended)
    second = local.submit(shell(folder, "sleep 60"))
    assert local.status(second).state == "running"
    local.cancel(second)


def test_another_process_can_ask(local: LocalEngine, folder: Path) -> None:
    """A job's id is a text that survives the process that has it."""
    job = local.submit(shell(folder, "echo $$; sleep 60"))
    until(lambda: local.logs(job))
    code = f"from tumen.cluster.engines import connect; e = connect('local'); print(e.status({job!r}).state); e.cancel({job!r})"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said == "running\n"
    assert local.status(job).state == "cancelled"
    assert not is_alive(int(local.logs(job).split()[0]))


def test_never_lost_while_it_ends(local: LocalEngine, tmp_path: Path) -> None:
    """Asked again and again around its end, a job is running and then done."""
    for number in range(10):
        job = local.submit(shell(tmp_path / str(number), "exit 0"))
        states = [local.status(job).state]
        while states[-1] == "running":
            states.append(local.status(job).state)
        assert states[-1] == "done"


STARTER = """
import sys, time
from pathlib import Path
from tumen.cluster.engines import JobSpec, connect
command = (sys.executable, "-c", {command!r})
job = connect("local").submit(JobSpec("test", command, Path(sys.argv[1])))
print("submitted", flush=True)
time.sleep(60)
"""
FAITHFUL = """
import os, time
time.sleep({pause})
from tumen.cluster.engines import die_with_parent
die_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("pause", [0.0, 0.6])
def test_a_job_dies_when_its_starter_is_killed(folder: Path, pause: float) -> None:
    """Also when it had no time to ask for that: with a pause, the starter is gone before the job asks."""
    program = STARTER.format(command=FAITHFUL.format(pause=pause))
    starter = subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    with starter.stdout:
        assert starter.stdout.readline() == b"submitted\n"
    local = LocalEngine()
    if not pause:
        until(lambda: local.logs(str(folder)))
    starter.kill()
    starter.wait()
    until(lambda: local.status(str(folder)).state == "lost")
    group = int((folder / "pid").read_text().split()[0])

    def members() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = path.read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z" and int(fields[2]) == group:
                    found.append(int(path.parent.name))
        return found

    until(lambda: not members())
    if pause:
        assert local.logs(str(folder)) == "", "it did nothing after its starter was gone"
