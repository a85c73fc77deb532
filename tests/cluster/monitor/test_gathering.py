"""Agents are gathered, identified and placed; an attempt begins, or one that runs is adopted."""

from __future__ import annotations

import math

import pytest
from tests.cluster.monitor.simulation import SECRET, SimulatedAgent, SimulatedRun, started_run

from tumen.cluster.watcher import RunMonitor
from tumen.heartbeat.messages import Heartbeat, MessageReceiver, MessageSender


def kinds(run: SimulatedRun) -> list[tuple[str, str]]:
    """Event and kind or action of each row."""
    return [(row["event"], row.get("kind") or row["action"]) for row in run.rows]


class TestFirstAttempt:
    def test_it_waits_for_every_agent(self) -> None:
        run = SimulatedRun()
        late = run.agents.pop("n1")
        run.advance(30)
        assert run.state.order.attempt == 0
        run.agents["n1"] = late
        run.advance(2)
        assert run.state.order.attempt == 1

    def test_ranks_follow_the_order_of_nodes(self) -> None:
        run = SimulatedRun(nodes=3)
        run.agents = {f"a{place}": SimulatedAgent(place, 2) for place in (2, 0, 1)}
        run.advance(2)
        assert run.state.order.ranks == {"a0": (0, 2), "a1": (2, 2), "a2": (4, 2)}

    def test_ranks_meet_at_the_first_node(self) -> None:
        run = started_run(nodes=3)
        assert run.state.order.master.startswith("10.0.0.0:")

    def test_an_agent_that_is_silent_for_five_seconds_is_not_there(self) -> None:
        run = SimulatedRun()
        late = run.agents.pop("n1")
        run.advance(1)
        early, run.agents = run.agents, {"n1": late}
        early["n0"].silent = True
        run.state.agents["n0"].last_report = run.now - 4.9
        run.advance(0.3)
        assert run.state.order.attempt == 0

    def test_an_agent_that_leaves_is_not_there(self) -> None:
        run = SimulatedRun()
        run.agents["n1"].leaving = True
        run.advance(30)
        assert run.state.order.attempt == 0

    def test_an_agent_that_has_not_identified_itself_is_asked(self) -> None:
        run = SimulatedRun()
        run.agents["n1"].must_identify = False
        run.advance(0.1)
        assert run.monitor.reply("n1") == {"identify": True}
        assert run.monitor.reply("n0") == {}
        assert run.state.order.attempt == 0
        run.advance(2)
        assert run.state.order.attempt == 1

    def test_a_job_may_wait_for_days_in_its_queue(self) -> None:
        run = SimulatedRun(can_move=True)
        agents, run.agents = run.agents, {}
        run.now += 3e5
        run.advance(1)
        run.agents = agents
        run.advance(10)
        assert run.rows == []
        assert run.state.order.attempt == 1

    def test_the_patience_begins_with_the_first_agent(self) -> None:
        run = SimulatedRun(can_move=True)
        agents, run.agents = run.agents, {}
        run.now += 3e5
        run.advance(1)
        run.agents = {"n0": agents["n0"]}
        assert run.advance(599.9) == []
        run.advance(0.3)
        assert run.rows[0]["action"] == "resubmit"
        assert run.rows[0]["why"] == "1 of 2 agents reported within 600 s"

    def test_a_missing_agent_ends_the_run_where_it_cannot_move(self) -> None:
        run = SimulatedRun()
        run.agents["n1"].must_identify = False
        run.advance(0.1)
        run.agents["n1"].silent = True
        assert run.advance(599.8) == []
        run.advance(0.3)
        assert (run.rows[0]["action"], run.rows[0]["avoid"]) == ("give_up", ["n1"])
        assert (run.state.mode, run.state.exit_code) == ("over", 1)
        assert run.state.order.verb == "end"


class TestReports:
    def test_heartbeats_of_an_earlier_attempt_change_nothing(self) -> None:
        run = started_run()
        before = run.state.ranks.furthest_step
        stale = Heartbeat(0, 0, 1, 999, 1.0, "train", math.nan, 0.0)
        report = MessageReceiver(SECRET).open(MessageSender(SECRET, "n0").message(0, [stale]))
        assert report
        run.monitor.receive(run.now, [report])
        assert run.state.ranks.furthest_step == before

    def test_an_agent_that_lost_its_attempt_is_asked_for_a_port(self) -> None:
        run = started_run()
        run.agents["n1"].restart()
        run.agents["n1"].must_identify = False
        run.monitor.receive(run.now, [run.report("n1")])
        assert run.monitor.reply("n1")["identify"]
        assert run.state.agents["n1"].master == ""

    def test_another_process_id_before_the_first_attempt_is_not_a_fault(self) -> None:
        run = SimulatedRun()
        late = run.agents.pop("n1")
        run.advance(2)
        run.agents["n0"].restart()
        run.advance(2)
        run.agents["n1"] = late
        assert run.advance(20) == []
        assert run.state.order.attempt == 1

    def test_an_agent_that_follows_its_order_gets_no_note(self) -> None:
        run = started_run()
        assert run.monitor.reply("n0") == {}

    def test_an_agent_that_does_not_follow_gets_its_part(self) -> None:
        run = started_run()
        run.state.agents["n1"].verb = "stop"
        part = {"verb": "run", "attempt": 1, "world": 4, "ranks": [2, 2], "code": 0}
        assert run.monitor.reply("n1") == {**part, "master": run.state.order.master}


class TestEpochs:
    def test_agents_of_a_newer_epoch_are_gathered_and_older_ones_are_ignored(self) -> None:
        run = started_run(can_move=True)
        run.agents |= {"n3": SimulatedAgent(0, 2, "7.2"), "n4": SimulatedAgent(1, 2, "7.2")}
        run.advance_until("decided")
        run.assert_recovers("wait")
        used = {name for name, (_, count) in run.state.order.ranks.items() if count}
        assert used == {"n3", "n4"}

    def test_a_newer_epoch_is_seen_while_ranks_save(self) -> None:
        run = started_run(can_move=True)
        run.record(run.monitor.resize_requested(run.now, 2))
        for agent in run.agents.values():
            agent.silent = True
        run.agents = {"n3": SimulatedAgent(0, 2, "7.2"), "n4": SimulatedAgent(1, 2, "7.2")}
        run.advance_until("fault")
        assert run.rows[-1]["why"] == "the engine starts the job again"
        run.assert_recovers("wait")

    def test_the_last_reports_of_an_earlier_job_do_not_stop_the_new_one(self) -> None:
        """Its agent was ordered to leave; the datagram that says so arrives when others run already."""
        run = started_run(can_move=True)
        run.agents["n1"].silent = True
        run.advance_to_fault(6.1, kind="node", node="n1")
        old = run.agents["n0"]
        run.agents = {"n2": SimulatedAgent(0, 2, "8.1"), "n3": SimulatedAgent(1, 2, "8.1")}
        run.advance(0.2)
        old.leaving = True
        run.agents["n0"] = old
        last = run.report("n0")
        del run.agents["n0"]
        run.monitor.receive(run.now, [last])
        run.assert_recovers("resubmit")
        run.agents["n3"].silent = True
        run.advance_to_fault(6.1, kind="node", node="n3")


class TestAdoption:
    def late(self, run: SimulatedRun) -> SimulatedRun:
        """Another watcher, that knows nothing, for the agents of a run."""
        for agent in run.agents.values():
            agent.must_identify = True
        late = SimulatedRun(monitor=RunMonitor(run.layout))
        late.agents, late.now = run.agents, run.now
        return late

    def test_an_attempt_that_runs_is_adopted(self) -> None:
        late = self.late(started_run())
        assert late.advance(20) == []
        assert late.state.order.attempt == 1
        assert late.state.order.ranks == {"n0": (0, 2), "n1": (2, 2)}
        assert all(agent.attempt == 1 for agent in late.agents.values())
        late.rank(2).frozen = True
        late.advance_to_fault(6.1, kind="freeze", rank=2, node="n1")
        late.assert_recovers()

    def test_agents_at_different_attempts_get_a_new_one(self) -> None:
        run = started_run()
        run.agents["n0"].attempt = 3
        late = self.late(run)
        late.advance(5)
        assert late.state.order.attempt == 4
        assert [agent.attempt for agent in late.agents.values()] == [4, 4]

    def test_agents_whose_ranks_were_stopped_get_a_new_attempt(self) -> None:
        run = started_run()
        for agent in run.agents.values():
            agent.verb = "stop"
        late = self.late(run)
        late.advance(5)
        assert late.state.order.attempt == 2

    def test_the_number_of_ranks_is_adopted_too(self) -> None:
        run = started_run()
        run.record(run.monitor.resize_requested(run.now, 8))
        run.assert_recovers("resize")
        late = self.late(run)
        assert late.advance(5) == []
        assert (late.state.world, late.state.ranks.world) == (8, 8)


class TestHealthBeforeTheRun:
    def test_an_unfit_node_is_left_out(self) -> None:
        run = SimulatedRun(nodes=4, can_move=True)
        for agent in run.agents.values():
            agent.health = {"multiply_seconds": 0.01, "writable": True}
        run.agents["n2"].health = {"multiply_seconds": 0.05, "writable": True}
        run.advance(0.2)
        assert kinds(run) == [("fault", "node"), ("decided", "drain"), ("decided", "resubmit")]
        assert run.rows[0]["why"] == "it multiplies 5.0 times slower than the others"
        assert run.rows[-1]["avoid"] == ["n2"]
        assert run.rows[-1]["why"] == "without n2"
        assert run.state.order.attempt == 0, "no rank was started"

    def test_where_the_job_cannot_move_the_node_is_used(self) -> None:
        run = SimulatedRun(nodes=4)
        run.agents["n2"].health = {"writable": False}
        run.advance(2)
        assert run.rows == []
        assert run.state.order.attempt == 1


@pytest.mark.parametrize(
    ("world", "counts"), [(8, {"n0": 4, "n1": 4}), (3, {"n0": 3, "n1": 0}), (1, {"n0": 1, "n1": 0})]
)
def test_ranks_are_spread_evenly_over_as_many_nodes_as_that_allows(
    world: int, counts: dict[str, int]
) -> None:
    run = started_run()
    run.record(run.monitor.resize_requested(run.now, world))
    run.advance_until("resumed")
    assert {name: len(agent.ranks) for name, agent in run.agents.items()} == counts
