"""The watcher as a pure state machine: every kind of fault, seen, named and decided, without a process or a socket."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tumen.cluster.engines import JobSpec, JobStatus, Node
from tumen.cluster.engines.local import LocalEngine
from tumen.cluster.watcher import RankLayout, RunMonitor, format_row
from tumen.cluster.watcher.service import WatcherService
from tumen.cluster.watcher.snapshot import take_snapshot
from tumen.core.events import Events
from tumen.heartbeat.messages import Heartbeat, Message, MessageReceiver, MessageSender, make_secret

SECRET = bytes(32)
SEE = 0.1  # seconds between two looks


class World:
    """Agents that do as they are told, ranks that train, a clock that a test turns."""

    def __init__(
        self,
        nodes: int = 2,
        each: int = 2,
        step_seconds: float = 0.5,
        elsewhere: bool = False,
        watch: RunMonitor | None = None,
    ) -> None:
        self.layout, self.step_seconds = RankLayout(nodes, each), step_seconds
        self.watch = watch or RunMonitor(self.layout, elsewhere)
        self.now, self.rows, self.sequence = 1000.0, list[dict[str, Any]](), 0
        self.agents = {f"n{i}": Agent(i, each) for i in range(nodes)}
        self.stuck = False

    def turn(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass; returns what was written down in it."""
        before = len(self.rows)
        until = self.now + seconds
        while self.now < until - 1e-9 and self.watch.state != "over":
            self.now = round(self.now + SEE, 6)
            self._train()
            reports = [
                message
                for name, agent in self.agents.items()
                if (message := self._report(name, agent))
            ]
            self.watch.hear(self.now, reports)
            self.say(self.watch.look(self.now))
            for name, agent in self.agents.items():
                if not agent.silent and name in self.watch.seats:
                    agent.obey(self.watch.reply(name), self.now)
        return self.rows[before:]

    def say(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self.rows.append({"time": self.now, **row})
            assert format_row(row)

    def until(self, event: str, seconds: float = 60.0) -> dict[str, Any]:
        """Turn until a row of that kind is written; returns it."""
        deadline = self.now + seconds
        while self.now < deadline:
            for row in self.turn(SEE):
                if row["event"] == event:
                    return row
        raise AssertionError(f"no {event} within {seconds} s: {self.rows}")

    def ranks(self) -> Iterator[Rank]:
        for agent in self.agents.values():
            yield from agent.ranks.values()

    def rank(self, number: int) -> Rank:
        return next(rank for rank in self.ranks() if rank.number == number)

    def _train(self) -> None:
        all_live = all(not agent.silent and not agent.dead for agent in self.agents.values())
        going = all_live and not self.stuck and not any(rank.frozen for rank in self.ranks())
        for rank in self.ranks():
            if going and self.now - rank.since >= self.step_seconds:
                rank.step, rank.since, rank.phase = rank.step + 1, self.now, "train"

    def _report(self, name: str, agent: Agent) -> Message | None:
        if agent.silent or self.now < agent.due:
            return None
        agent.due = self.now + 1.0
        beats = []
        for rank in agent.ranks.values():
            if not rank.frozen:
                rank.heard = self.now
            if rank.number not in agent.dead:
                age = round(1000 * (self.now - rank.heard))
                beats.append(
                    Heartbeat(
                        rank.number,
                        agent.attempt,
                        1,
                        rank.step,
                        self.step_seconds,
                        rank.phase,
                        rank.waiting,
                        2.0,
                        age,
                    )
                )
        receiver = MessageReceiver(SECRET)
        return receiver.open(
            MessageSender(SECRET, name).message(agent.attempt, beats, agent.note())
        )


class Agent:
    def __init__(self, place: int, each: int, start: str = "7.1") -> None:
        self.place, self.each, self.pid, self.start = place, each, 100 + place, start
        self.attempt, self.world, self.verb = 0, 0, "stop"
        self.ranks: dict[int, Rank] = {}
        self.dead: dict[int, list[Any]] = {}
        self.silent, self.due, self.greeting, self.port = False, 0.0, True, 5000
        self.health: dict[str, Any] = {}
        self.stopped: list[list[Any]] = []
        self.leaving = False

    def obey(self, said: dict[str, Any], now: float) -> None:
        self.greeting = said.get("greet", False)
        self.due = now if self.greeting else self.due
        if "verb" in said:
            self.verb, self.due = said["verb"], now
            if self.verb == "run" and said["attempt"] > self.attempt:
                first, count = said["ranks"]
                self.attempt, self.world, self.dead = said["attempt"], said["world"], {}
                self.ranks = {number: Rank(number, now) for number in range(first, first + count)}
            elif self.verb == "stop":
                self.ranks = {}
            elif self.verb == "save-and-stop":
                self.dead = {number: [number, 0, None] for number in self.ranks}

    def die(self, rank: int, code: int, why: dict[str, Any] | None = None) -> None:
        self.dead[rank], self.due = [rank, code, why], 0.0

    def again(self) -> None:
        """Killed and started again."""
        self.pid, self.attempt, self.verb, self.ranks, self.dead, self.due, self.greeting = (
            self.pid + 100,
            0,
            "stop",
            {},
            {},
            0.0,
            True,
        )

    def note(self) -> dict[str, Any]:
        said: dict[str, Any] = {"dead": list(self.dead.values())} if self.dead else {}
        if self.leaving:
            said["leaving"] = True
        if self.stopped:
            said["stopped"] = self.stopped
        if self.verb != "run":
            said["verb"] = self.verb
        if self.greeting:
            self.port += 1
            hello = {
                "pid": self.pid,
                "place": self.place,
                "processes": self.each,
                "master": f"10.0.0.{self.place}:{self.port}",
            }
            first = min(self.ranks, default=0)
            said["hello"] = hello | {
                "start": self.start,
                "ranks": [first, len(self.ranks)],
                "world": self.world,
                "health": self.health,
            }
        return said


class Rank:
    def __init__(self, number: int, now: float) -> None:
        self.number, self.heard, self.since = number, now, now + 2.0
        self.step, self.phase, self.frozen, self.waiting = 20, "load", False, 0.2


@pytest.fixture
def world() -> World:
    world = World()
    world.turn(20)
    assert world.rows == []
    assert world.watch.order.attempt == 1
    assert world.watch.order.world == 4
    assert world.watch.order.master.startswith("10.0.0.0:500")
    assert {name: sorted(agent.ranks) for name, agent in world.agents.items()} == {
        "n0": [0, 1],
        "n1": [2, 3],
    }
    return world


def named(world: World, within: float, **facts: Any) -> dict[str, Any]:
    """The fault that is found, by its facts and in time; then it is decided on, and training goes on in a new attempt."""
    begun, attempt = world.now, world.watch.order.attempt
    fault = world.until("fault")
    assert {name: fault[name] for name in facts} == facts, fault
    assert world.now - begun <= within
    return {"attempt": attempt, **fault}


def heals(world: World, action: str = "restart") -> dict[str, Any]:
    """What is decided, and that training goes on."""
    decided = next(row for row in reversed(world.rows) if row["event"] == "decided")
    assert decided["action"] == action
    for agent in world.agents.values():
        agent.silent = False
    resumed = world.until("resumed")
    assert resumed["attempt"] == decided["attempt"] == world.watch.order.attempt
    assert 0 <= resumed["detection_seconds"] <= resumed["seconds"]
    assert world.turn(20) == [], "and nothing is found where nothing is wrong"
    return decided


class TestFaults:
    def test_crash(self, world: World) -> None:
        world.agents["n1"].die(3, 137)
        named(
            world, 1.5, kind="crash", rank=3, node="n1", why="it ended with exit code 137, signal 9"
        )
        heals(world)

    def test_the_one_that_died_and_not_those_that_missed_it(self, world: World) -> None:
        world.agents["n0"].die(0, 7)
        world.agents["n0"].die(1, 134)
        world.turn(0.2)
        world.agents["n1"].die(2, 139)
        named(world, 1.5, kind="crash", rank=2, node="n1")

    def test_a_rank_that_gives_its_reason(self, world: World) -> None:
        world.agents["n0"].die(0, 7)
        world.agents["n1"].die(
            2, 7, {"kind": "other", "why": "the mesh needs 8 ranks", "step": 3, "rank": 2}
        )
        named(world, 1.5, kind="crash", rank=2, why="the mesh needs 8 ranks")

    @pytest.mark.parametrize("kind", ["nan", "spike"])
    def test_loss(self, world: World, kind: str) -> None:
        for number in range(4):
            world.agents[f"n{number // 2}"].die(
                number, 7, {"kind": kind, "why": "samples 3, 4", "step": 25, "rank": number}
            )
        named(world, 1.5, kind=kind, rank=0, step=25, why="samples 3, 4")
        heals(world)

    def test_nobody_says_why(self, world: World) -> None:
        world.agents["n0"].die(0, 7)
        named(world, 8, kind="crash", rank=0)

    def test_freeze(self, world: World) -> None:
        world.rank(2).frozen = True
        fault = named(world, 6.1, kind="freeze", rank=2, node="n1")
        assert 5.0 <= fault["silent_seconds"] <= 5.2
        heals(world)

    def test_a_rank_that_its_agent_sees_stopped(self, world: World) -> None:
        world.rank(2).frozen = True
        world.agents["n1"].stopped = [[2, 0.9]]
        assert world.turn(1.5) == []
        world.agents["n1"].stopped = [[2, 2.1]]
        fault = named(world, 1.1, kind="freeze", rank=2, node="n1", why="its process is stopped")
        assert fault["silent_seconds"] == 2.1
        world.agents["n1"].stopped = []
        heals(world)

    def test_a_freeze_takes_as_long_as_three_steps(self) -> None:
        world = World(step_seconds=10.0)
        world.turn(200)
        assert world.rows == []
        world.rank(2).frozen = True
        fault = named(world, 32, kind="freeze", rank=2)
        assert 20.0 <= fault["silent_seconds"] <= 30.2, (
            "told by the step that did not come, or by the silence"
        )

    def test_collective(self, world: World) -> None:
        world.stuck = True
        named(world, 6.6, kind="collective", rank=None)
        world.stuck = False
        heals(world)

    def test_a_stuck_collective_has_a_rank_that_does_not_wait(self, world: World) -> None:
        world.stuck = True
        for rank in world.ranks():
            rank.waiting = 0.0 if rank.number == 1 else 0.95
        named(world, 6.6, kind="collective", rank=1, node="n0")

    def test_slow(self) -> None:
        world = World()
        world.turn(40)
        world.step_seconds = 1.0
        for rank in world.ranks():
            rank.waiting = 0.02 if rank.number == 3 else 0.5
        named(world, 8, kind="slow", rank=3, node="n1")
        world.step_seconds = 0.5
        heals(world)

    def test_other_ranks_have_other_steps(self) -> None:
        """Half the ranks take twice as long: that is not slow."""
        world = World()
        world.turn(40)
        assert world.watch.signs.usual_seconds() == 0.5
        world.say(world.watch.tell(world.now, ranks=2))
        world.step_seconds = 1.0
        heals(world, "resize")
        for rank in world.ranks():
            rank.waiting = 0.02 if rank.number == 1 else 0.5
        assert world.turn(60) == []
        assert world.watch.signs.usual_seconds() == 1.0

    def test_slow_twice_is_the_node(self) -> None:
        world = World(elsewhere=True)
        world.turn(40)
        for action in ("restart", "resubmit"):
            world.step_seconds = 1.0
            for rank in world.ranks():
                rank.waiting = 0.02 if rank.number == 3 else 0.5
            named(world, 9, kind="slow", rank=3)
            world.step_seconds = 0.5
            assert world.rows[-1]["action"] == action
            heals(world, action)
        assert world.rows[-2]["avoid"] == ["n1"]

    def test_slow_together_is_no_fault(self) -> None:
        """Longer steps, or a slow network: all wait alike."""
        world = World()
        world.turn(40)
        world.step_seconds = 1.0
        for rank in world.ranks():
            rank.waiting = 0.5
        assert world.turn(60) == []

    def test_agent_killed_and_started_again(self, world: World) -> None:
        world.agents["n0"].die(0, 7)  # they miss the ranks that died with it
        world.agents["n1"].again()
        before = world.watch.order.master
        named(world, 1.5, kind="agent", rank=None, node="n1")
        heals(world)
        assert world.watch.order.master != before, "a port for one attempt"

    def test_agent_silent(self, world: World) -> None:
        world.agents["n1"].silent = True
        fault = named(world, 6.1, kind="agent", node="n1")
        assert 5.0 <= fault["silent_seconds"] <= 5.2
        assert world.turn(5) == []
        world.agents["n1"].again()
        heals(world)

    def test_a_lost_packet_is_no_fault(self, world: World) -> None:
        world.agents["n1"].silent = True
        world.turn(3.8)
        world.agents["n1"].silent = False
        assert world.turn(20) == []

    def test_a_node_that_the_engine_calls_down(self) -> None:
        world = World(elsewhere=True)
        world.turn(20)
        world.agents["n1"].silent = True
        world.turn(1.7)
        assert world.watch.asks(world.now)
        world.watch.tell(
            world.now, nodes=[Node("n0", 8), Node("n1", 8, False, "down*: not responding")]
        )
        named(world, 1.5, kind="node", node="n1", why="down*: not responding")
        assert world.rows[-1]["action"] == "resubmit"
        assert world.rows[-1]["avoid"] == ["n1"]
        world.agents = {"n0": Agent(0, 2), "n5": Agent(1, 2)}
        heals(world, "resubmit")

    def test_many_nodes_at_once(self) -> None:
        world = World(nodes=10, elsewhere=True)
        world.turn(20)
        for number in range(4, 8):
            world.agents[f"n{number}"].silent = True
        fault = named(world, 2.7, kind="node")
        assert fault["why"].startswith("4 nodes at once")
        assert world.rows[-1]["avoid"] == ["n4", "n5", "n6", "n7"]

    def test_disk(self, world: World) -> None:
        told = {"kind": "disk", "why": "the disk is full", "step": 21, "rank": 0}
        for pause in (5, 10, 20):
            for number in range(4):
                world.agents[f"n{number // 2}"].die(number, 5, told if number == 0 else None)
            named(world, 1.5, kind="disk", rank=0, why="the disk is full")
            decided, begun = world.rows[-1], world.now
            assert decided["action"] == "wait"
            resumed = world.until("resumed")
            assert resumed["time"] - begun >= pause
        world.turn(5)

    def test_checkpoint(self, world: World) -> None:
        world.say(world.watch.tell(world.now, damaged="step-20: cut short"))
        assert [row["event"] for row in world.rows] == ["fault", "decided"]
        assert world.rows[0]["kind"] == "checkpoint"
        assert world.turn(10) == [], "training goes on by itself"

    def test_a_damaged_checkpoint_is_read_of_in_every_turn_of_a_fault(self, tmp_path: Path) -> None:
        """Else the fault that it explains may be over, and called by another name, before the next look of a second."""
        make_secret(tmp_path / "secret")
        said = tmp_path / "events.jsonl"
        with ThreadPoolExecutor(1) as beside:
            watcher = WatcherService(
                LocalEngine(),
                JobSpec("x", ("true",), tmp_path),
                "127.0.0.1",
                said,
                lambda row: None,
                beside,
            )
        Events(said).emit("checkpoint_damaged", path="step-20", error="cut short")
        watcher.next_notice = math.inf  # the look of a second is not due
        assert watcher._noticed(1000.0) == []
        watcher.watch.open = (999.0, 999.5)
        assert [(row["event"], row.get("kind")) for row in watcher._noticed(1000.1)] == [
            ("fault", "checkpoint"),
            ("decided", None),
        ]
        watcher.socket.close()

    def test_engine(self, world: World) -> None:
        world.say(
            world.watch.tell(world.now, JobStatus("silent", reason="slurmctld does not answer"))
        )
        world.say(
            world.watch.tell(world.now, JobStatus("silent", reason="slurmctld does not answer"))
        )
        assert [(row["event"], row.get("kind"), row.get("action")) for row in world.rows] == [
            ("fault", "engine", None),
            ("decided", None, "wait"),
        ]
        world.turn(10)
        world.say(world.watch.tell(world.now, JobStatus("running")))
        assert world.rows[-1]["event"] == "resumed"
        assert world.rows[-1]["seconds"] == 10.0
        assert world.watch.order.attempt == 1

    def test_skew_is_told_once(self, world: World) -> None:
        for _ in range(3):
            world.say(world.watch.tell(world.now, skewed={"n9": -45.0}))
        (row,) = world.rows
        assert (row["kind"], row["node"]) == ("skew", "n9")
        assert row["why"].startswith("its clock is 45 s behind")

    def test_an_unfit_node_is_left_out_before_the_run(self) -> None:
        world = World(nodes=4, elsewhere=True)
        for agent in world.agents.values():
            agent.health = {"multiply_seconds": 0.01, "writable": True}
        world.agents["n2"].health = {"multiply_seconds": 0.05, "writable": True}
        world.turn(0.2)
        assert [(row["event"], row.get("kind") or row["action"]) for row in world.rows] == [
            ("fault", "node"),
            ("decided", "drain"),
            ("decided", "resubmit"),
        ]
        assert world.rows[0]["why"] == "it multiplies 5.0 times slower than the others"
        assert world.rows[-1]["avoid"] == ["n2"]
        assert world.watch.order.attempt == 0, "no rank was started"

    def test_a_node_that_ails_during_the_run_is_left_out_after_a_last_checkpoint(self) -> None:
        world = World(nodes=4, elsewhere=True)
        for agent in world.agents.values():
            agent.health = {"writable": True, "disk_bytes": 1 << 40}
        world.turn(10)
        assert (world.rows, world.watch.state) == ([], "run")
        ailing = world.agents["n2"]
        ailing.health, ailing.greeting, ailing.due = {"writable": True, "disk_bytes": 0}, True, 0.0
        assert world.turn(29.0) == []
        while not world.rows or world.rows[-1].get("action") != "resubmit":
            world.turn(SEE)
        assert [(row["event"], row.get("kind") or row["action"]) for row in world.rows] == [
            ("fault", "node"),
            ("decided", "drain"),
            ("decided", "resubmit"),
        ]
        assert all(agent.verb == "save-and-stop" for agent in world.agents.values())
        assert (world.rows[0]["node"], world.rows[-1]["avoid"]) == ("n2", ["n2"])

    def test_what_all_nodes_complain_of_during_the_run_stops_nobody(self) -> None:
        world = World(nodes=2, elsewhere=True)
        world.turn(10)
        for agent in world.agents.values():
            agent.health, agent.greeting, agent.due = {"disk_bytes": 0}, True, 0.0
            assert world.turn(20) == []
        assert world.turn(60) == []
        assert (world.watch.state, world.watch.order.verb) == ("run", "run")


def test_three_times_is_enough(world: World) -> None:
    told = {"kind": "nan", "why": "samples 3, 4", "step": 25, "rank": 0}
    for time in (1, 2, 3):
        world.agents["n0"].die(0, 7, told)
        named(world, 1.5, kind="nan")
        if time < 3:
            heals(world)
    assert world.rows[-1]["action"] == "give_up"
    assert world.rows[-1]["why"] == "nan 3 times at step 25: samples 3, 4"
    assert (world.watch.state, world.watch.code, world.watch.order.verb) == ("over", 7, "end")


def test_all_ranks_end_well(world: World) -> None:
    for number in range(4):
        world.agents[f"n{number // 2}"].die(number, 0)
    world.turn(2)
    assert (world.watch.state, world.watch.code, world.watch.order.verb) == ("over", 0, "end")
    assert world.rows == []


def test_one_agent_alone_is_told_to_stop(world: World) -> None:
    """All ranks agree to stop, and the other agents are not left waiting."""
    world.agents["n0"].leaving = True
    world.turn(2)
    assert world.watch.state == "run"
    for number in range(4):
        world.agents[f"n{number // 2}"].die(number, 0)
    world.turn(2)
    assert (world.watch.state, world.watch.code, world.watch.order.verb) == ("over", 0, "end")


def test_one_that_ended_well_is_not_missed(world: World) -> None:
    world.agents["n1"].die(3, 0)
    world.agents["n1"].die(2, 0)
    for rank in world.ranks():
        rank.phase = "end"
    assert world.turn(30) == []


class TestGathering:
    def test_it_waits_for_every_agent(self) -> None:
        world = World()
        late = world.agents.pop("n1")
        world.turn(30)
        assert world.watch.order.attempt == 0
        world.agents["n1"] = late
        world.turn(2)
        assert world.watch.order.attempt == 1

    def test_a_job_may_wait_for_days_in_its_queue(self) -> None:
        world = World(elsewhere=True)
        agents, world.agents = world.agents, {}
        world.now += 3e5
        world.turn(1)
        world.agents = agents
        world.turn(10)
        assert world.rows == []
        assert world.watch.order.attempt == 1

    def test_an_agent_that_never_comes_back(self, world: World) -> None:
        world.agents["n1"].silent = True
        named(world, 6.1, kind="agent")
        world.turn(25)
        assert world.rows[-1]["action"] == "give_up"
        assert world.watch.state == "over"

    def test_elsewhere_it_is_replaced_at_once(self) -> None:
        """An agent that was killed is back within a second there: what stays silent is a machine."""
        world = World(elsewhere=True)
        world.turn(20)
        world.agents["n1"].silent = True
        named(world, 6.1, kind="node", node="n1")
        assert (world.rows[-1]["action"], world.rows[-1]["avoid"]) == ("resubmit", ["n1"])

    def test_last_words_of_a_job_before_are_not_those_of_the_new_one(self) -> None:
        """Its agent was told to leave; the datagram that says so comes when other agents run already."""
        world = World(elsewhere=True)
        world.turn(20)
        world.agents["n1"].silent = True
        named(world, 6.1, kind="node", node="n1")
        old = world.agents["n0"]
        world.agents = {"n2": Agent(0, 2, "8.1"), "n3": Agent(1, 2, "8.1")}
        world.turn(0.2)
        old.leaving, old.due = True, 0.0
        last = world._report("n0", old)
        assert last
        world.watch.hear(world.now, [last])
        heals(world, "resubmit")
        world.agents["n3"].silent = True
        named(world, 6.1, kind="node", node="n3")

    def test_when_all_are_gone_the_engine_is_asked_first(self) -> None:
        """It may have put the job back into its queue itself."""
        world = World(elsewhere=True)
        world.turn(20)
        for agent in world.agents.values():
            agent.silent = True
        world.turn(10)
        assert world.watch.asks(world.now)
        assert world.rows == []
        world.say(world.watch.tell(world.now, status=JobStatus("waiting", reason="BeginTime")))
        assert [row.get("kind", row.get("action")) for row in world.rows] == ["engine", "wait"]
        world.turn(200)
        world.agents = {"n3": Agent(0, 2), "n4": Agent(1, 2)}
        heals(world, "wait")

    def test_agents_of_a_newer_start_are_gathered_and_older_ones_do_not_count(self) -> None:
        world = World(elsewhere=True)
        world.turn(20)
        world.agents |= {"n3": Agent(0, 2, "7.2"), "n4": Agent(1, 2, "7.2")}
        world.until("decided")
        heals(world, "wait")
        assert {name for name, (_, count) in world.watch.order.ranks.items() if count} == {
            "n3",
            "n4",
        }

    def test_what_runs_is_taken_over(self) -> None:
        """A watcher that comes late, or again."""
        world = World()
        world.turn(20)
        for agent in world.agents.values():
            agent.greeting = True
        late = World(watch=RunMonitor(world.layout))
        late.agents, late.now = world.agents, world.now
        assert late.turn(20) == []
        assert late.watch.order.attempt == 1
        assert all(agent.attempt == 1 for agent in late.agents.values())
        late.rank(2).frozen = True
        named(late, 6.1, kind="freeze", rank=2, node="n1")
        heals(late)


class TestResuming:
    def again(self, world: World) -> World:
        """Another watcher, from what the killed one wrote; its agents are as they were."""
        watch, usual = RunMonitor(world.layout), take_snapshot(world.watch, world.now).usual_seconds
        watch.resume(
            [{"event": "watch", "state": "started", "attempt": 0, "time": 999.0}, *world.rows],
            usual,
        )
        for agent in world.agents.values():
            agent.greeting = True
        other = World(watch=watch)
        other.agents, other.now = world.agents, world.now
        return other

    def test_a_healthy_run_is_left_alone(self, world: World) -> None:
        world.agents["n1"].die(3, 137)
        named(world, 1.5, kind="crash")
        heals(world)
        other = self.again(world)
        assert other.turn(20) == []
        assert other.watch.order.attempt == 2

    def test_what_is_usual_is_remembered(self) -> None:
        world = World()
        world.turn(40)
        other = self.again(world)
        other.turn(4)
        other.step_seconds = 1.0
        for rank in other.ranks():
            rank.waiting = 0.02 if rank.number == 3 else 0.5
        named(other, 8, kind="slow", rank=3, node="n1")

    def test_killed_between_decision_and_order(self, world: World) -> None:
        world.agents["n1"].die(3, 137)
        world.turn(0.1)
        world.say(world.watch.look(world.now + 0.5))
        assert world.rows[-1]["action"] == "restart"
        assert world.agents["n0"].attempt == 1, "nobody heard of it"
        other = self.again(world)
        resumed = other.until("resumed")
        assert resumed["attempt"] == other.watch.order.attempt > 1
        assert resumed["seconds"] >= 0.5

    def test_a_fault_while_nobody_watched(self, world: World) -> None:
        other = self.again(world)
        other.agents["n1"].die(3, 137)
        named(other, 2, kind="crash", rank=3)
        heals(other)

    def test_counts_go_on(self, world: World) -> None:
        told = {"kind": "nan", "why": "samples 3, 4", "step": 25, "rank": 0}
        for _ in range(2):
            world.agents["n0"].die(0, 7, told)
            named(world, 1.5, kind="nan")
            heals(world)
        other = self.again(world)
        other.agents["n0"].die(0, 7, told)
        other.turn(2)
        assert other.rows[-1]["action"] == "give_up"


def test_resize(world: World) -> None:
    world.say(world.watch.tell(world.now, ranks=8))
    assert world.rows[-1]["action"] == "resize"
    assert world.watch.order.verb == "save-and-stop"
    resumed = world.until("resumed")
    assert resumed["attempt"] == 2
    assert {name: len(agent.ranks) for name, agent in world.agents.items()} == {"n0": 4, "n1": 4}
    world.say(world.watch.tell(world.now, ranks=8))
    assert world.turn(10) == [], "a wish that came true"
    world.say(world.watch.tell(world.now, ranks=3))
    assert world.until("resumed")["attempt"] == 3
    assert {name: len(agent.ranks) for name, agent in world.agents.items()} == {"n0": 3, "n1": 0}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (JobStatus("done", 0), 0),
        (JobStatus("failed", 9), 9),
        (JobStatus("cancelled"), 1),
        (JobStatus("lost"), 1),
    ],
)
def test_the_engine_says_that_it_is_over(world: World, status: JobStatus, code: int) -> None:
    world.say(world.watch.tell(world.now, status))
    assert (world.watch.state, world.watch.code) == ("over", code)


def test_a_job_that_was_put_back_gathers_anew(world: World) -> None:
    world.say(world.watch.tell(world.now, JobStatus("waiting", reason="BeginTime")))
    world.agents = {"n7": Agent(0, 2), "n8": Agent(1, 2)}
    world.turn(10)
    assert world.watch.order.attempt == 2
    assert set(world.watch.order.ranks) == {"n7", "n8"}


def test_beats_of_an_old_attempt_change_nothing(world: World) -> None:
    before = world.watch.signs.steps
    stale = MessageSender(SECRET, "n0").message(
        0, [Heartbeat(0, 0, 1, 999, 1.0, "train", math.nan, 0.0)]
    )
    message = MessageReceiver(SECRET).open(stale)
    assert message
    world.watch.hear(world.now, [message])
    assert world.watch.signs.steps == before
