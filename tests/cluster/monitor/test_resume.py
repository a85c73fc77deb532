"""Another watcher continues from watch.jsonl and the snapshot of the one that was killed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.monitor.simulation import SimulatedRun, started_run

from tumen.cluster.watcher import RankLayout, RunMonitor
from tumen.cluster.watcher.snapshot import take_snapshot

STARTED = {"event": "watch", "state": "started", "attempt": 0, "time": 999.0}


def continued(run: SimulatedRun) -> SimulatedRun:
    """Another watcher, with the agents as they are."""
    monitor = RunMonitor(run.layout)
    snapshot = take_snapshot(run.state, run.now)
    monitor.resume([STARTED, *run.rows], snapshot.usual_seconds)
    for agent in run.agents.values():
        agent.must_identify = True
    other = SimulatedRun(monitor=monitor)
    other.agents, other.now = run.agents, run.now
    return other


def test_a_healthy_run_is_left_alone() -> None:
    run = started_run()
    run.agents["n1"].end_rank(3, 137)
    run.advance_to_fault(1.5, kind="crash")
    run.assert_recovers()
    other = continued(run)
    assert other.advance(20) == []
    assert other.state.order.attempt == 2


def test_the_usual_step_time_is_remembered() -> None:
    run = SimulatedRun()
    run.advance(40)
    other = continued(run)
    other.advance(4)
    other.step_seconds = 1.0
    other.set_straggler(3)
    other.advance_to_fault(8, kind="slow", rank=3, node="n1")


def test_killed_between_decision_and_order() -> None:
    run = started_run()
    run.agents["n1"].end_rank(3, 137)
    run.advance(0.1)
    run.record(run.monitor.check(run.now + 0.5))
    assert run.rows[-1]["action"] == "restart"
    assert run.agents["n0"].attempt == 1, "the order was not sent"
    other = continued(run)
    resumed = other.advance_until("resumed")
    assert resumed["attempt"] == other.state.order.attempt > 1
    assert resumed["seconds"] >= 0.5


def test_a_fault_while_no_watcher_was_running() -> None:
    other = continued(started_run())
    other.agents["n1"].end_rank(3, 137)
    other.advance_to_fault(2, kind="crash", rank=3)
    other.assert_recovers()


def test_faults_are_counted_over_all_watchers() -> None:
    run = started_run()
    reason = {"kind": "nan", "why": "samples 3, 4", "step": 25, "rank": 0}
    for _ in range(2):
        run.agents["n0"].end_rank(0, 7, reason)
        run.advance_to_fault(1.5, kind="nan")
        run.assert_recovers()
    other = continued(run)
    other.agents["n0"].end_rank(0, 7, reason)
    other.advance(2)
    assert other.rows[-1]["action"] == "give_up"


def fault(kind: str, **facts: Any) -> dict[str, Any]:
    facts = {"node": None, "step": 5, "time": 100.0, "silent_seconds": 2.0, **facts}
    return {"event": "fault", "kind": kind, **facts}


DECIDED = {"event": "decided", "attempt": 4, "avoid": ["n3"], "world": 8, "time": 101.0}


class TestRows:
    @pytest.fixture
    def monitor(self) -> RunMonitor:
        return RunMonitor(RankLayout(2, 2))

    def test_what_is_kept(self, monitor: RunMonitor) -> None:
        monitor.resume([STARTED, fault("slow", node="n3"), DECIDED], 0.5)
        state = monitor.state
        assert (state.order.attempt, state.order.verb) == (4, "stop")
        assert (state.avoid, state.world, state.ranks.world) == (["n3"], 8, 8)
        assert state.history.slow_nodes == {"n3": 1}
        assert state.history.by_step == {("slow", 5): 1}
        assert state.history.open
        assert (state.history.open.first_sign, state.history.open.detected) == (98.0, 100.0)
        assert state.ranks.usual_seconds() == 0.5

    def test_a_crash_does_not_make_a_node_slow(self, monitor: RunMonitor) -> None:
        monitor.resume([fault("crash", node="n3")])
        assert monitor.state.history.slow_nodes == {}
        assert monitor.state.ranks.usual_seconds() == 0.0

    def test_a_fault_that_was_healed_is_closed(self, monitor: RunMonitor) -> None:
        monitor.resume([fault("crash"), DECIDED, {"event": "resumed", "attempt": 4}])
        assert monitor.state.history.open is None

    def test_a_job_that_ended_begins_anew_but_with_a_new_attempt(self, monitor: RunMonitor) -> None:
        monitor.resume(
            [fault("crash"), DECIDED, {"event": "watch", "state": "ended", "attempt": 5}]
        )
        state = monitor.state
        assert (state.avoid, state.world, state.order.attempt) == ([], 4, 5)
        assert (state.history.by_step, state.history.open) == ({}, None)

    def test_a_decision_without_a_number_of_ranks_keeps_it(self, monitor: RunMonitor) -> None:
        monitor.resume([{**DECIDED, "world": 0, "attempt": None}])
        assert (monitor.state.world, monitor.state.order.attempt) == (4, 0)
