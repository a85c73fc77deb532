"""The agent: without a watcher, and under a watcher that the test plays. Ranks are those of fake_rank.py."""

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
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.waiting import PATIENCE_SECONDS, is_alive, until

from tumen.cluster.agents.agent import Agent
from tumen.cluster.agents.agent_options import AgentOptions, parse_options
from tumen.cluster.agents.rank_group import read_exit_reason
from tumen.heartbeat import messages

FAKE_RANK = str(Path(__file__).with_name("fake_rank.py"))
MODULE = (sys.executable, "-m", "tumen.cluster.agents.agent")


class StartedAgent:
    """An agent as a process."""

    def __init__(
        self, folder: Path, *options: str, command: tuple[str, ...] = (), ranks: int = 2
    ) -> None:
        self.folder = folder
        self.job = folder / "job"
        self.secret = messages.make_secret(self.job / "secret")
        command = command or (sys.executable, FAKE_RANK, str(folder), "100000", "0.02")
        where = ("--folder", str(self.job), "--node", "n0", "--ranks-per-node", str(ranks))
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*MODULE, *where, *options, "--", *command], stdout=log, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        return self.log.read_text()

    def facts(self, attempt: int) -> dict[str, Any]:
        """Return what it wrote about its ranks, once it is at an attempt."""

        def facts() -> Any:
            path = self.job / "ranks" / "n0" / "agent.json"
            found = json.loads(path.read_text()) if path.exists() else {}
            return found if found.get("attempt") == attempt else None

        return dict(until(facts))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., StartedAgent]]:
    agents: list[StartedAgent] = []

    def started(*options: str, **kwargs: Any) -> StartedAgent:
        agents.append(StartedAgent(tmp_path, *options, **kwargs))
        return agents[-1]

    yield started
    for agent in agents:
        agent.process.kill()
        agent.process.wait()


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


class TestWithoutWatcher:
    """It does what torchrun does without restarts."""

    def test_ranks_get_torchruns_variables(self, start: Callable[..., StartedAgent]) -> None:
        variables = "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR"
        checks = "test $MASTER_PORT -gt 0; test -f $TUMEN_SECRET"
        agent = start(command=shell(f"echo {variables}; {checks}"))
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert sorted(agent.output().splitlines()) == [
            "[rank 0] 0 0 2 2 127.0.0.1",
            "[rank 1] 1 1 2 2 127.0.0.1",
        ]
        assert (agent.job / "ranks" / "n0" / "1" / "1.log").read_text() == "1 1 2 2 127.0.0.1\n"

    def test_the_second_of_two_nodes(self, start: Callable[..., StartedAgent]) -> None:
        where = ("--nodes", "2", "--node-rank", "1", "--master", "n0:29500")
        agent = start(*where, command=shell("echo $RANK $WORLD_SIZE $MASTER_ADDR"))
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert sorted(agent.output().splitlines()) == ["[rank 2] 2 4 n0", "[rank 3] 3 4 n0"]

    def test_the_first_rank_that_fails_ends_all(self, start: Callable[..., StartedAgent]) -> None:
        fails = "[ $RANK = 0 ] || { sleep 0.2; exit 9; }"
        stays = "echo $$; trap '' TERM; while :; do sleep 0.1; done"
        agent = start(command=shell(f"{fails}; {stays}"))
        assert agent.process.wait(PATIENCE_SECONDS) == 9
        pid = int(agent.output().split()[-1])
        until(lambda: not is_alive(pid))

    def test_a_killed_rank_is_named(self, start: Callable[..., StartedAgent]) -> None:
        agent = start(command=shell("[ $RANK = 0 ] || kill -9 $$; sleep 60"))
        assert agent.process.wait(PATIENCE_SECONDS) == 137
        assert "tumen: rank 1 was ended by SIGKILL" in agent.output()

    def test_after_sigterm_ranks_save(self, start: Callable[..., StartedAgent]) -> None:
        agent = start()
        state = agent.folder / "state"
        until(lambda: agent.output().count("started") == 2 and state.exists())
        agent.process.terminate()
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert agent.output().count("stopped") == 2

    def test_nothing_outlives_it(self, start: Callable[..., StartedAgent]) -> None:
        agent = start()
        pids = agent.facts(1)["ranks"].values()
        agent.process.kill()
        until(lambda: not any(map(is_alive, pids)))

    def test_without_a_secret_it_does_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"short")
        done = subprocess.run(
            [*MODULE, "--folder", str(tmp_path), "--", "true"], capture_output=True, text=True
        )
        assert done.returncode == 11
        assert done.stderr.startswith(f"tumen: {tmp_path}/secret: a secret has 32 bytes")
        assert done.stderr.count("\n") == 1


def test_options_are_those_of_the_command_line() -> None:
    given = ("--folder", "/j", "--node-rank", "3", "--epoch", "7.2", "--standby", "--", "a", "-b")
    assert parse_options(given) == AgentOptions(
        Path("/j"), ("a", "-b"), node_rank=3, epoch="7.2", standby=True
    )
    with pytest.raises(SystemExit):
        parse_options(("--", "true"))


def test_news_are_sent_at_once_and_do_not_move_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order reaches all agents at once; if each counted its second from there, they would report in one burst."""
    messages.make_secret(tmp_path / "secret")
    agent = Agent(AgentOptions(tmp_path, ("true",)))
    reported: list[float] = []
    monkeypatch.setattr(agent, "_report", reported.append)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    agent.next_check = math.inf
    agent.next_report = 100.7
    agent.has_news = True
    for moment, count, turn in (
        (100.0, 1, 100.7),
        (100.3, 1, 100.7),
        (100.8, 2, 101.7),
        (104.0, 3, 104.7),
    ):
        clock[0] = moment
        agent._check()
        assert (len(reported), agent.next_report) == (count, pytest.approx(turn))
    agent.inbox.socket.close()
    agent.selector.close()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"kind": "nan"}', '{"kind": "nan", "why": "x", "step": "soon"}']
)
def test_a_reason_that_is_not_one_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "1-2.json").write_text(text)
    assert read_exit_reason(tmp_path, 1, 2) is None
    assert read_exit_reason(tmp_path, 1, 3) is None


class PlayedWatcher:
    """A watcher that a test plays."""

    def __init__(self, folder: Path) -> None:
        secret = messages.make_secret(folder / "secret")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_SECONDS)
        (folder / "watcher").write_text(f"127.0.0.1:{self.socket.getsockname()[1]}\n")
        self.sender = messages.MessageSender(secret, "watcher")
        self.receiver = messages.MessageReceiver(secret)
        self.agent: Any = None

    def report(
        self, wanted: Callable[[messages.AuthenticatedMessage], Any]
    ) -> messages.AuthenticatedMessage:
        """Return the first report that is as wanted."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            datagram, self.agent = self.socket.recvfrom(65536)
            message = self.receiver.open(datagram)
            if message and wanted(message):
                return message
        raise AssertionError("no such report")

    def note(self, name: str) -> Any:
        """Return an entry of the next note that has it."""
        return self.report(lambda message: name in message.note).note[name]

    def order(
        self, verb: str, attempt: int, sender: messages.MessageSender | None = None, **facts: Any
    ) -> bytes:
        """Send an order; returns the datagram."""
        order = {
            "verb": verb,
            "attempt": attempt,
            "world": 2,
            "master": "127.0.0.1:29512",
            "ranks": [0, 2],
            "code": 0,
            **facts,
        }
        datagram = (sender or self.sender).message(attempt, note=order)
        self.socket.sendto(datagram, self.agent)
        return datagram


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[PlayedWatcher]:
    (tmp_path / "job").mkdir()
    watcher = PlayedWatcher(tmp_path / "job")
    yield watcher
    watcher.socket.close()


class TestOrders:
    def test_attempts_one_after_the_other(
        self, start: Callable[..., StartedAgent], watcher: PlayedWatcher
    ) -> None:
        """Started from standbys, a rank killed and one stopped, started again, saved, ended."""
        agent = start("--standby", "--epoch", "7.2", "--node-rank", "3")
        identity = watcher.note("identity")
        assert identity["pid"] == agent.process.pid
        assert (identity["epoch"], identity["node_rank"]) == ("7.2", 3)
        assert (identity["ranks"], identity["world"]) == ([0, 0], 0)
        assert identity["ranks_per_node"] == 2
        assert identity["health"]["writable"]
        assert identity["master"].startswith("127.0.0.1:")
        watcher.order("run", 3)
        report = watcher.report(
            lambda message: message.attempt == 3 and len(message.heartbeats) == 2
        )
        assert {heartbeat.rank for heartbeat in report.heartbeats} == {0, 1}
        ranks = agent.facts(3)["ranks"]
        watcher.report(lambda message: any(map(trains, message.heartbeats)))
        os.kill(ranks["1"], signal.SIGSTOP)
        ((rank, _),) = watcher.note("stopped")
        assert rank == 1
        os.kill(ranks["0"], signal.SIGKILL)
        assert watcher.note("dead") == [[0, 137, None]]
        watcher.order("run", 4)
        watcher.report(lambda message: message.attempt == 4 and len(message.heartbeats) == 2)
        assert not is_alive(ranks["1"])
        watcher.report(lambda message: any(one.step > 5 for one in message.heartbeats))
        watcher.order("save-and-stop", 4)
        dead = watcher.report(lambda message: len(message.note.get("dead", [])) == 2).note["dead"]
        assert sorted(dead) == [[0, 0, None], [1, 0, None]]
        watcher.order("end", 4, code=42)
        assert agent.process.wait(PATIENCE_SECONDS) == 42

    def test_forged_replayed_and_old_orders_change_nothing(
        self, start: Callable[..., StartedAgent], watcher: PlayedWatcher
    ) -> None:
        agent = start()
        watcher.note("identity")
        stranger = messages.MessageSender(bytes(32), "watcher")
        watcher.order("end", 9, stranger)
        not_the_watcher = messages.MessageSender(watcher.sender.secret, "n1")
        watcher.order("end", 9, not_the_watcher)
        first = watcher.order("run", 2)
        agent.facts(2)
        stop = watcher.order("stop", 2)
        watcher.report(lambda message: message.note.get("verb") == "stop")
        watcher.order("run", 5)
        pids = agent.facts(5)["ranks"]
        for datagram in (first, stop, stop[:-1], stop + b"x", b"", b"noise"):
            watcher.socket.sendto(datagram, watcher.agent)
        watcher.order("stop", 4)  # of an attempt that is over
        watcher.report(
            lambda message: (
                message.attempt == 5 and sum(one.step > 20 for one in message.heartbeats) == 2
            )
        )
        assert all(map(is_alive, pids.values()))
        assert agent.process.poll() is None

    def test_the_reason_of_a_rank_is_reported(
        self, start: Callable[..., StartedAgent], watcher: PlayedWatcher, tmp_path: Path
    ) -> None:
        (tmp_path / "do-1").write_text("nan")
        start()
        watcher.note("identity")
        watcher.order("run", 1)
        ((rank, code, reason),) = watcher.note("dead")
        assert (rank, code) == (1, 7)
        assert reason["kind"] == "nan"

    def test_an_agent_that_leaves_says_so_and_takes_no_order(
        self, start: Callable[..., StartedAgent], watcher: PlayedWatcher
    ) -> None:
        agent = start()
        watcher.note("identity")
        watcher.order("run", 1)
        watcher.report(lambda message: any(map(trains, message.heartbeats)))
        agent.process.terminate()
        assert watcher.note("leaving") is True
        watcher.order("run", 2)
        assert agent.process.wait(PATIENCE_SECONDS) == 0
        assert agent.facts(1)["attempt"] == 1


def trains(heartbeat: messages.Heartbeat) -> bool:
    return heartbeat.step > 0 and heartbeat.phase == "train" and heartbeat.age_ms < 5000
