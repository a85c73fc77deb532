"""The watcher's loop: its files, its socket, its engine, and what it does with a decision."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.waiting import is_alive, until

from tumen.cluster.engines import JobSpec, JobStatus, Node
from tumen.cluster.engines.local import LocalEngine
from tumen.cluster.watcher import request_resize, service
from tumen.cluster.watcher.channel import AgentChannel, bind
from tumen.cluster.watcher.engine_probe import EngineProbe
from tumen.cluster.watcher.monitor.rows import OpenFault
from tumen.cluster.watcher.resize_request import requested_ranks
from tumen.cluster.watcher.service import WatcherService, WatchLog, kill_agent
from tumen.core import events
from tumen.core.errors import EngineError
from tumen.core.events import Events
from tumen.heartbeat.messages import MessageReceiver, MessageSender, make_secret

RUNNING = JobStatus("running")
RESUBMIT = {"event": "decided", "action": "resubmit", "avoid": ["n1", "n9"], "why": "x"}


class FakeCluster:
    """An engine of many machines that writes down what it is asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.current = RUNNING
        self.refusals = 0

    def submit(self, job: JobSpec) -> str:
        self.calls.append(("submit", job.avoid))
        if self.refusals:
            self.refusals -= 1
            raise EngineError("it is there already")
        return str(job.folder)

    def status(self, job_id: str) -> JobStatus:
        self.calls.append("status")
        return self.current

    def logs(self, job_id: str) -> str:
        return ""

    def cancel(self, job_id: str) -> None:
        self.calls.append("cancel")

    def nodes(self) -> list[Node]:
        self.calls.append("nodes")
        return [Node("n1", 8)]

    def drain(self, node: str, why: str) -> None:
        self.calls.append(("drain", node, why))
        raise EngineError(f"{node}: not permitted")


class Harness:
    """A watcher service in a folder, with its engine and the rows that it wrote."""

    def __init__(self, folder: Path, engine: Any) -> None:
        self.engine = engine
        self.rows: list[dict[str, Any]] = []
        self.secret = make_secret(folder / "secret")
        self.run_events = folder / "events.jsonl"
        self.executor = ThreadPoolExecutor(1)
        job = JobSpec("x", ("true",), folder, nodes=2, avoid=("n9",))
        self.service = WatcherService(
            engine, job, "127.0.0.1", self.run_events, self.rows.append, self.executor
        )

    def close(self) -> None:
        self.service.channel.close()
        self.executor.shutdown()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Callable[[Any], Harness]]:
    made: list[Harness] = []

    def make(engine: Any) -> Harness:
        made.append(Harness(tmp_path, engine))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestFiles:
    def test_a_damaged_checkpoint_is_looked_for_in_every_turn_of_a_fault(
        self, harness: Callable[[Any], Harness]
    ) -> None:
        """Else the fault that it explains may be over, and named something else, before the next look."""
        watcher = harness(LocalEngine()).service
        Events(watcher.job.folder / "events.jsonl").emit(
            "checkpoint_damaged", path="step-20", error="cut short"
        )
        watcher.next_files = math.inf  # the look of every second is not due
        assert watcher._read_files(1000.0) == []
        watcher.monitor.state.history.open = OpenFault(999.0, 999.5)
        rows = watcher._read_files(1000.1)
        assert [(row["event"], row.get("kind")) for row in rows] == [
            ("fault", "checkpoint"),
            ("decided", None),
        ]
        assert rows[0]["why"] == "step-20: cut short"

    def test_events_from_before_its_start_are_not_read(
        self, tmp_path: Path, harness: Callable[[Any], Harness]
    ) -> None:
        Events(tmp_path / "events.jsonl").emit("checkpoint_damaged", path="step-20", error="old")
        watcher = harness(LocalEngine()).service
        assert watcher._read_files(1000.0) == []

    def test_every_second_it_writes_a_snapshot_and_reads_requests(
        self, harness: Callable[[Any], Harness]
    ) -> None:
        watcher = harness(LocalEngine()).service
        folder = watcher.job.folder
        watcher._read_files(1000.0)
        assert json.loads((folder / "snapshot.json").read_text())["time"] == 1000.0
        watcher._read_files(1000.9)
        assert json.loads((folder / "snapshot.json").read_text())["time"] == 1000.0
        watcher._read_files(1001.0)
        assert json.loads((folder / "snapshot.json").read_text())["time"] == 1001.0

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"ranks": 0}', '{"ranks": "4"}'])
    def test_a_request_that_is_not_one_is_ignored(self, tmp_path: Path, text: str) -> None:
        assert requested_ranks(tmp_path) is None
        request_resize(tmp_path, 4)
        assert requested_ranks(tmp_path) == 4
        (tmp_path / "resize.json").write_text(text)
        assert requested_ranks(tmp_path) is None

    def test_rows_that_a_full_disk_rejects_are_written_later(
        self, small_disk: Path, make_read_only: Callable[[], None]
    ) -> None:
        shown: list[dict[str, Any]] = []
        log = WatchLog(small_disk / "watch.jsonl", shown.append)
        log.write({"event": "watch", "state": "started", "attempt": 0})
        make_read_only()
        log.write({"event": "fault", "kind": "crash"})
        assert len(list(events.read(small_disk / "watch.jsonl"))) == 1
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        log.write({"event": "decided", "action": "restart"})
        written = [row["event"] for row in events.read(small_disk / "watch.jsonl")]
        assert written == ["watch", "fault", "decided"] == [row["event"] for row in shown]


class TestChannel:
    def test_the_next_watcher_listens_at_the_same_port(self, tmp_path: Path) -> None:
        first = bind(tmp_path / "watcher", "127.0.0.1")
        address = (tmp_path / "watcher").read_text()
        port = first.getsockname()[1]
        assert address == f"127.0.0.1:{port}\n"
        other = bind(tmp_path / "watcher", "127.0.0.1")
        assert other.getsockname()[1] != port, "the first one still listens there"
        other.close()
        first.close()
        (tmp_path / "watcher").write_text(address)
        again = bind(tmp_path / "watcher", "127.0.0.1")
        assert again.getsockname()[1] == port
        again.close()

    def test_an_address_of_another_machine_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"^192\.0\.2\.1 is not an address of this machine"):
            bind(tmp_path / "watcher", "192.0.2.1")

    def test_reports_arrive_and_orders_go_back(self, tmp_path: Path) -> None:
        secret = make_secret(tmp_path / "secret")
        channel = AgentChannel(secret, tmp_path / "watcher", "127.0.0.1")
        host, port = (tmp_path / "watcher").read_text().split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
            agent.settimeout(60)
            agent.bind(("127.0.0.1", 0))
            for name in ("watcher", "n1"):
                datagram = MessageSender(secret, name).message(3, note={"verb": "stop"})
                agent.sendto(datagram, (host, int(port)))
            agent.sendto(b"noise", (host, int(port)))
            found = until(channel.receive)
            assert [(one.sender, one.attempt) for one in found] == [("n1", 3)]
            assert set(channel.addresses) == {"n1"}, "what claims to be the watcher is ignored"
            channel.send("n1", 4, {"verb": "run"})
            reply = MessageReceiver(secret).open(agent.recv(65536))
            assert reply is not None
            assert (reply.sender, reply.attempt, reply.note) == ("watcher", 4, {"verb": "run"})
        channel.close()


class TestProbe:
    @pytest.fixture
    def asked(self) -> Iterator[tuple[FakeCluster, EngineProbe]]:
        engine = FakeCluster()
        with ThreadPoolExecutor(1) as executor:
            yield engine, EngineProbe(engine, "job", executor)

    def ask(self, probe: EngineProbe, now: float, needs_nodes: bool) -> Any:
        """Ask where it is due; returns the answer, None where it was not due."""
        probe.ask_if_due(now, needs_nodes)
        return None if probe._pending is None else until(probe.answer)

    def test_an_engine_of_many_machines_is_asked_every_five_seconds(
        self, asked: tuple[FakeCluster, EngineProbe]
    ) -> None:
        engine, probe = asked
        assert self.ask(probe, 100.0, False) == (RUNNING, None)
        assert self.ask(probe, 104.9, False) is None
        assert self.ask(probe, 105.0, False) == (RUNNING, None)
        assert engine.calls == ["status", "status"]
        assert probe.answer() is None, "an answer is given once"

    def test_while_an_agent_is_silent_it_is_asked_every_second_with_its_nodes(
        self, asked: tuple[FakeCluster, EngineProbe]
    ) -> None:
        _, probe = asked
        assert self.ask(probe, 100.0, True) == (RUNNING, [Node("n1", 8)])
        assert self.ask(probe, 101.0, True) is None
        assert self.ask(probe, 101.1, False) is None
        assert self.ask(probe, 101.1, True) == (RUNNING, [Node("n1", 8)])

    def test_this_machine_is_asked_twice_a_second(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(1) as executor:
            probe = EngineProbe(LocalEngine(), str(tmp_path), executor)
            assert self.ask(probe, 100.0, False)[0].state == "lost"
            assert self.ask(probe, 100.4, False) is None
            assert self.ask(probe, 100.5, False)

    def test_an_engine_that_refuses_is_silent(
        self, asked: tuple[FakeCluster, EngineProbe], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine, probe = asked

        def refuse(job_id: str) -> JobStatus:
            raise EngineError("no answer")

        monkeypatch.setattr(engine, "status", refuse)
        assert self.ask(probe, 100.0, False) == (JobStatus("silent", reason="no answer"), None)
        assert probe.status.state == "silent"


class TestActions:
    def test_a_job_is_cancelled_and_submitted_without_the_nodes_to_avoid(
        self, harness: Callable[[Any], Harness]
    ) -> None:
        engine = FakeCluster()
        watcher = harness(engine).service
        watcher.channel.addresses["n0"] = ("127.0.0.1", 9)
        watcher._act(RESUBMIT)
        assert engine.calls == ["cancel", ("submit", ("n9", "n1"))]
        assert watcher.channel.addresses == {}

    def test_a_job_of_the_same_name_may_still_be_removed(
        self, harness: Callable[[Any], Harness], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "SUBMIT_RETRY_SECONDS", 0.01)
        engine = FakeCluster()
        engine.refusals = 2
        made = harness(engine)
        made.service._act(RESUBMIT)
        assert engine.calls[1:] == [("submit", ("n9", "n1"))] * 3
        assert made.rows == []

    def test_a_refusal_for_good_is_written_down(
        self, harness: Callable[[Any], Harness], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "SUBMIT_SECONDS", -1.0)
        engine = FakeCluster()
        engine.refusals = 9
        made = harness(engine)
        made.service._act(RESUBMIT)
        (row,) = made.rows
        assert (row["event"], row["kind"], row["why"]) == ("fault", "engine", "it is there already")
        assert row["silent_seconds"] == 0.0

    def test_a_node_is_drained_and_a_refusal_is_written_down(
        self, harness: Callable[[Any], Harness]
    ) -> None:
        engine = FakeCluster()
        made = harness(engine)
        drain = {"event": "decided", "action": "drain", "avoid": ["n7", "n1"], "why": "no disk"}
        made.service._act(drain)
        assert engine.calls == [("drain", "n1", "no disk")]
        assert made.rows[0]["why"] == "n1: not permitted"

    def test_other_rows_need_no_action(self, harness: Callable[[Any], Harness]) -> None:
        engine = FakeCluster()
        watcher = harness(engine).service
        watcher._act({"event": "fault", "kind": "agent", "node": "n1"})
        watcher._act({"event": "decided", "action": "restart", "avoid": []})
        assert engine.calls == []


class TestKillAgent:
    def agent(self, folder: Path, module: str) -> tuple[Path, subprocess.Popen[bytes]]:
        code = "import time; time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", code, "-m", module])
        until(lambda: module.encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        file = folder / "agent.json"
        file.write_text(json.dumps({"pid": process.pid}))
        return file, process

    @pytest.mark.parametrize("module", ["tumen.cluster.agents", "tumen.cluster.agents.agent"])
    def test_an_agent_is_killed_however_it_was_started(self, tmp_path: Path, module: str) -> None:
        """Agents are forked by `python -m tumen.cluster.agents`, whose command line they keep."""
        file, process = self.agent(tmp_path, module)
        os.kill(process.pid, signal.SIGSTOP)
        kill_agent(file)
        assert process.wait(60) == -signal.SIGKILL

    def test_another_process_with_its_number_is_not(self, tmp_path: Path) -> None:
        file, process = self.agent(tmp_path, "somebody.else")
        kill_agent(file)
        time.sleep(0.1)
        assert is_alive(process.pid)
        process.kill()
        process.wait()

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": "x"}'])
    def test_a_damaged_file_kills_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "agent.json").write_text(text)
        kill_agent(tmp_path / "agent.json")
        kill_agent(tmp_path / "missing.json")
