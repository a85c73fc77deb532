"""The agent alone, under a scripted watcher, and under a real one that is killed too. Ranks are those of fake_rank.py."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tumen.cluster.agents.agent import Agent, AgentOptions
from tumen.cluster.engines import JobSpec, connect
from tumen.cluster.engines.engine import SECRET_FILE
from tumen.cluster.watcher import announce_watcher, request_resize
from tumen.core import events
from tumen.heartbeat import messages

BEATING = str(Path(__file__).with_name("fake_rank.py"))
PATIENCE_SECONDS = 90.0


def until(happened: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


class Started:
    """An agent as a process."""

    def __init__(
        self, folder: Path, *options: str, command: tuple[str, ...] = (), processes: int = 2
    ) -> None:
        self.folder, self.job = folder, folder / "job"
        self.secret = messages.make_secret(self.job / "secret")
        command = command or (sys.executable, BEATING, str(folder), "100000", "0.02")
        where = (
            "--folder",
            str(self.job),
            "--node",
            "n0",
            "--ranks-per-node",
            str(processes),
            *options,
        )
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tumen.cluster.agents.agent", *where, "--", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.log.read_text()

    def facts(self, attempt: int) -> dict[str, Any]:
        """What it wrote of its ranks, once it is at an attempt."""

        def there() -> Any:
            path = self.job / "ranks" / "n0" / "agent.json"
            facts = json.loads(path.read_text()) if path.exists() else {}
            return facts if facts.get("attempt") == attempt else None

        return dict(until(there))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    agents: list[Started] = []

    def started(*options: str, **kwargs: Any) -> Started:
        agents.append(Started(tmp_path, *options, **kwargs))
        return agents[-1]

    yield started
    for agent in agents:
        agent.process.kill()
        agent.process.wait()


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


class TestAlone:
    """Without a watcher: torchrun without restarts."""

    def test_ranks_find_torchruns_variables(self, start: Callable[..., Started]) -> None:
        says = "echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR; test $MASTER_PORT -gt 0; test -f $TUMEN_SECRET"
        agent = start(command=shell(says))
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert sorted(agent.said().splitlines()) == [
            "[rank 0] 0 0 2 2 127.0.0.1",
            "[rank 1] 1 1 2 2 127.0.0.1",
        ]
        assert (agent.job / "ranks" / "n0" / "1" / "1.log").read_text() == "1 1 2 2 127.0.0.1\n"

    def test_the_second_of_two_nodes(self, start: Callable[..., Started]) -> None:
        agent = start(
            "--nodes",
            "2",
            "--node-rank",
            "1",
            "--master",
            "n0:29500",
            command=shell("echo $RANK $WORLD_SIZE $MASTER_ADDR"),
        )
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert sorted(agent.said().splitlines()) == ["[rank 2] 2 4 n0", "[rank 3] 3 4 n0"]

    def test_the_first_that_fails_ends_all(self, start: Callable[..., Started]) -> None:
        agent = start(
            command=shell(
                "[ $RANK = 0 ] || { sleep 0.2; exit 9; }; echo $$; trap '' TERM; while :; do sleep 0.1; done"
            )
        )
        assert agent.process.wait(PATIENCE_SECONDS) == 9
        pid = int(agent.said().split()[-1])
        until(lambda: not is_alive(pid))

    def test_a_killed_rank_is_named(self, start: Callable[..., Started]) -> None:
        agent = start(command=shell("[ $RANK = 0 ] || kill -9 $$; sleep 60"))
        assert agent.process.wait(PATIENCE_SECONDS) == 137
        assert "tumen: rank 1 was ended by SIGKILL" in agent.said()

    def test_sigterm_lets_the_ranks_save(self, start: Callable[..., Started]) -> None:
        agent = start()
        until(lambda: agent.said().count("started") == 2 and (agent.folder / "state").exists())
        agent.process.terminate()
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert agent.said().count("stopped") == 2

    def test_nothing_outlives_it(self, start: Callable[..., Started]) -> None:
        agent = start()
        pids = agent.facts(1)["ranks"].values()
        agent.process.kill()
        until(lambda: not any(map(is_alive, pids)))

    def test_without_a_secret_it_does_nothing(
        self, start: Callable[..., Started], tmp_path: Path
    ) -> None:
        (tmp_path / "job").mkdir()
        (tmp_path / "job" / "secret").write_bytes(b"short")
        said = subprocess.run(
            [
                sys.executable,
                "-m",
                "tumen.cluster.agents.agent",
                "--folder",
                str(tmp_path / "job"),
                "--",
                "true",
            ],
            capture_output=True,
            text=True,
        )
        assert said.returncode == 11
        assert (
            said.stderr
            == f"tumen: {tmp_path}/job/secret: 5 bytes are no secret; delete it and launch the run again\n"
        )


def test_news_come_between_and_it_keeps_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order reaches all agents at once; if each counted its second from there, all would report in one burst from then on."""
    messages.make_secret(tmp_path / SECRET_FILE)
    made = Agent(AgentOptions(tmp_path, ("true",)))
    reported: list[float] = []
    monkeypatch.setattr(made, "_report", reported.append)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    made.next_look, made.next_report, made.news = math.inf, 100.7, True
    for moment, count, turn in (
        (100.0, 1, 100.7),
        (100.3, 1, 100.7),
        (100.8, 2, 101.7),
        (104.0, 3, 104.7),
    ):
        clock[0] = moment
        made._look()
        assert (len(reported), made.next_report) == (count, pytest.approx(turn))
    made.ears.close()
    made.selector.close()


class Scripted:
    """A watcher that a test plays."""

    def __init__(self, folder: Path) -> None:
        secret = messages.make_secret(folder / "secret")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_SECONDS)
        (folder / "watcher").write_text(f"127.0.0.1:{self.socket.getsockname()[1]}\n")
        self.sender, self.receiver = (
            messages.MessageSender(secret, "watcher"),
            messages.MessageReceiver(secret),
        )
        self.agent: Any = None

    def report(self, wanted: Callable[[messages.Message], Any]) -> messages.Message:
        """The first report that is as wanted."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            datagram, self.agent = self.socket.recvfrom(65536)
            message = self.receiver.open(datagram)
            if message and wanted(message):
                return message
        raise AssertionError("no such report")

    def order(
        self, verb: str, attempt: int, sender: messages.MessageSender | None = None, **facts: Any
    ) -> bytes:
        said = {
            "verb": verb,
            "attempt": attempt,
            "world": 2,
            "master": "127.0.0.1:29512",
            "ranks": [0, 2],
            "code": 0,
        } | facts
        datagram = (sender or self.sender).message(attempt, note=said)
        self.socket.sendto(datagram, self.agent)
        return datagram


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Scripted]:
    (tmp_path / "job").mkdir()
    watcher = Scripted(tmp_path / "job")
    yield watcher
    watcher.socket.close()


class TestOrders:
    def test_an_attempt_after_the_other(
        self, start: Callable[..., Started], watcher: Scripted
    ) -> None:
        """Started from standby, told of a death, a frozen rank killed, stopped with a checkpoint, ended."""
        agent = start("--standby")
        hello = watcher.report(lambda message: "hello" in message.note).note["hello"]
        assert hello["pid"] == agent.process.pid
        assert hello["processes"] == 2
        assert hello["health"]["writable"]
        assert hello["master"].startswith("127.0.0.1:")
        watcher.order("run", 3)
        beats = watcher.report(
            lambda message: message.attempt == 3 and len(message.beats) == 2
        ).beats
        assert {beat.rank for beat in beats} == {0, 1}
        ranks = agent.facts(3)["ranks"]
        watcher.report(
            lambda message: any(
                beat.step > 0 and beat.phase == "train" and beat.age_ms < 5000
                for beat in message.beats
            )
        )
        os.kill(ranks["1"], signal.SIGSTOP)
        ((rank, _),) = watcher.report(lambda message: "stopped" in message.note).note["stopped"]
        assert rank == 1
        os.kill(ranks["0"], signal.SIGKILL)
        assert watcher.report(lambda message: "dead" in message.note).note["dead"] == [
            [0, 137, None]
        ]
        watcher.order("run", 4)
        watcher.report(lambda message: message.attempt == 4 and len(message.beats) == 2)
        assert not is_alive(ranks["1"])
        watcher.report(lambda message: any(beat.step > 5 for beat in message.beats))
        watcher.order("save-and-stop", 4)
        dead = watcher.report(lambda message: len(message.note.get("dead", [])) == 2).note["dead"]
        assert sorted(dead) == [[0, 0, None], [1, 0, None]]
        watcher.order("end", 4, code=42)
        assert agent.process.wait(PATIENCE_SECONDS) == 42

    def test_what_is_forged_replayed_or_old_changes_nothing(
        self, start: Callable[..., Started], watcher: Scripted
    ) -> None:
        agent = start()
        watcher.report(lambda message: "hello" in message.note)
        stranger = messages.MessageSender(bytes(32), "watcher")
        watcher.order("end", 9, stranger)
        watcher.order(
            "end", 9, messages.MessageSender(watcher.sender.secret, "n1")
        )  # who has the secret and is not the watcher
        first = watcher.order("run", 2)
        pids = agent.facts(2)["ranks"]
        stop = watcher.order("stop", 2)
        watcher.report(lambda message: message.note.get("verb") == "stop")
        watcher.order("run", 5)
        pids = agent.facts(5)["ranks"]
        for datagram in (first, stop, stop[:-1], stop + b"x", b"", b"noise"):
            watcher.socket.sendto(datagram, watcher.agent)
        watcher.order("stop", 4)  # of an attempt that is over
        watcher.report(
            lambda message: (
                message.attempt == 5 and sum(beat.step > 20 for beat in message.beats) == 2
            )
        )
        assert all(map(is_alive, pids.values()))
        assert agent.process.poll() is None

    def test_why_a_rank_ended_itself(
        self, start: Callable[..., Started], watcher: Scripted, tmp_path: Path
    ) -> None:
        (tmp_path / "do-1").write_text("nan")
        start()
        watcher.report(lambda message: "hello" in message.note)
        watcher.order("run", 1)
        ((rank, code, why),) = watcher.report(lambda message: "dead" in message.note).note["dead"]
        assert (rank, code) == (1, 7)
        assert why["kind"] == "nan"


WATCHER = """
import sys
from pathlib import Path
from tumen.cluster.engines import JobSpec, connect
from tumen.cluster.watcher import watch_job
folder = Path(sys.argv[1])
job = JobSpec("test", (), folder, nodes=int(sys.argv[2]), ranks_per_node=int(sys.argv[3]))
sys.exit(watch_job(connect("local"), job))
"""


class TestHealing:
    """The local engine, agents, ranks and a watcher, all of them processes that are killed."""

    @pytest.fixture
    def job(self, tmp_path: Path) -> Iterator[JobSpec]:
        command = (sys.executable, BEATING, str(tmp_path), "100000", "0.02")
        job = JobSpec("test", command, tmp_path / "job", nodes=2)
        announce_watcher(job.folder)
        local = connect("local")
        local.submit(job)
        self.watcher = self.watch(job)
        yield job
        local.cancel(str(job.folder))
        self.watcher.kill()
        self.watcher.wait()

    def watch(self, job: JobSpec) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", WATCHER, job.folder, str(job.nodes), str(job.ranks_per_node)]
        )

    def rows(self, job: JobSpec, event: str) -> list[dict[str, Any]]:
        return list(events.read(job.folder / "watch.jsonl", event))

    def facts(self, job: JobSpec, attempt: int) -> dict[str, Any]:
        """What the first node's agent wrote, once both are at an attempt."""

        def there() -> Any:
            found = [job.folder / "ranks" / node / "agent.json" for node in ("n0", "n1")]
            facts = [json.loads(path.read_text()) for path in found if path.exists()]
            return facts[0] if [fact["attempt"] for fact in facts] == [attempt, attempt] else None

        return dict(until(there))

    def test_whatever_is_killed_training_goes_on(self, job: JobSpec) -> None:
        state = job.folder.parent / "state"
        assert stat.S_IMODE((job.folder / "secret").stat().st_mode) == 0o600
        facts = self.facts(job, 1)
        until(state.exists)

        os.kill(facts["ranks"]["0"], signal.SIGKILL)
        until(lambda: len(self.rows(job, "resumed")) == 1)
        facts = self.facts(job, 2)

        os.kill(facts["ranks"]["0"], signal.SIGSTOP)
        until(lambda: len(self.rows(job, "resumed")) == 2)
        assert not is_alive(facts["ranks"]["0"])
        facts = self.facts(job, 3)

        self.watcher.kill()
        self.watcher.wait()
        os.kill(facts["pid"], signal.SIGKILL)  # while nobody watches
        before = state.read_text()
        self.watcher = self.watch(job)
        until(lambda: len(self.rows(job, "watch")) == 2 and state.read_text() != before)
        facts = self.facts(job, 4)

        request_resize(job.folder, 4)
        until(
            lambda: (
                self.rows(job, "decided")[-1]["action"] == "resize"
                and len(self.facts(job, 5)["ranks"]) == 2
            )
        )
        until(lambda: self.rows(job, "resumed")[-1]["attempt"] == 5)

        kinds = [(row["kind"], row["rank"], row["node"]) for row in self.rows(job, "fault")]
        assert kinds[:2] == [("crash", 0, "n0"), ("freeze", 0, "n0")]
        assert set(kinds[2:]) <= {("agent", None, "n0"), ("crash", 1, "n1")}
        for row in self.rows(job, "resumed"):
            assert 0 <= row["detection_seconds"] <= row["seconds"]
        job_id = str(job.folder)
        (job.folder.parent / "do-0").write_text("exit")
        until(lambda: self.rows(job, "resumed")[-1]["attempt"] == 6)
        assert connect("local").status(job_id).state == "running"
