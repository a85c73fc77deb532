"""What follows from a fault, from the engine's answers, from a resize and from a node that is not fit."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.monitor.simulation import TICK_SECONDS, SimulatedAgent, SimulatedRun, started_run

from tumen.cluster.engines import JobStatus, Node
from tumen.cluster.watcher.monitor import Fault, RankLayout
from tumen.cluster.watcher.monitor.decide import choose_response
from tumen.cluster.watcher.monitor.run_state import new_run_state

NAN = {"kind": "nan", "why": "samples 3, 4", "step": 25, "rank": 0}
FULL_DISK = {"kind": "disk", "why": "the disk is full", "step": 21, "rank": 0}


@pytest.fixture
def run() -> SimulatedRun:
    """Two nodes with two ranks each that train; the job cannot move."""
    return started_run()


def kinds(run: SimulatedRun) -> list[tuple[str, str]]:
    """Event and kind or action of each row."""
    return [(row["event"], row.get("kind") or row.get("action", "")) for row in run.rows]


def ended(run: SimulatedRun) -> tuple[str, int, str]:
    return run.state.mode, run.state.exit_code, run.state.order.verb


@pytest.mark.parametrize(
    ("kind", "times", "job_ended", "here", "movable"),
    [
        ("crash", 1, False, "restart", "restart"),
        ("crash", 2, False, "restart", "restart"),
        ("crash", 3, False, "give_up", "give_up"),
        ("agent", 1, False, "restart", "restart"),
        ("node", 1, False, "restart", "resubmit"),
        ("node", 3, False, "give_up", "give_up"),
        ("crash", 1, True, "restart", "resubmit"),
        ("slow", 1, False, "restart", "restart"),
        ("disk", 1, False, "wait", "wait"),
        ("disk", 7, True, "wait", "wait"),
        ("disk", 8, False, "give_up", "give_up"),
    ],
)
def test_response(kind: Any, times: int, job_ended: bool, here: str, movable: str) -> None:
    for can_move, expected in ((False, here), (True, movable)):
        state = new_run_state(RankLayout(2, 2), can_move)
        fault = Fault(kind, "why", 5, 0.0, nodes=("n1",))
        assert choose_response(state, fault, times, job_ended) == expected


@pytest.mark.parametrize(("earlier", "response"), [(1, "restart"), (2, "resubmit")])
def test_a_node_that_is_slow_twice_is_left_out(earlier: int, response: str) -> None:
    state = new_run_state(RankLayout(2, 2), can_move=True)
    state.history.slow_nodes["n1"] = earlier
    slow = Fault("slow", "why", 5, 0.0, nodes=("n1",))
    assert choose_response(state, slow, 1, False) == response
    crash = Fault("crash", "why", 5, 0.0, nodes=("n1",))
    assert choose_response(state, crash, 1, False) == "restart"


class TestGiveUp:
    def test_the_same_fault_three_times_at_one_step_ends_the_run(self, run: SimulatedRun) -> None:
        for time in (1, 2, 3):
            run.agents["n0"].end_rank(0, 7, NAN)
            run.advance_to_fault(1.5, kind="nan")
            if time < 3:
                run.assert_recovers()
        assert run.rows[-1]["action"] == "give_up"
        assert run.rows[-1]["why"] == "nan 3 times at step 25: samples 3, 4"
        assert run.rows[-1]["attempt"] == 3, "of the attempt that failed"
        assert ended(run) == ("over", 7, "end")

    def test_at_another_step_it_counts_anew(self, run: SimulatedRun) -> None:
        for step in (25, 26, 27, 28):
            run.agents["n0"].end_rank(0, 7, {**NAN, "step": step})
            run.advance_to_fault(1.5, kind="nan", step=step)
            run.assert_recovers()

    def test_without_a_rank_that_ended_the_exit_code_is_one(self, run: SimulatedRun) -> None:
        run.silence("n1")
        run.state.history.by_step["agent", run.state.ranks.furthest_step] = 2
        run.advance_to_fault(5.2, kind="agent")
        assert run.rows[-1]["action"] == "give_up"
        assert ended(run) == ("over", 1, "end")

    def test_an_agent_that_never_comes_back(self, run: SimulatedRun) -> None:
        run.silence("n1")
        run.advance_to_fault(5.2, kind="agent")
        assert run.advance(19.9) == []
        run.advance(0.3)
        assert run.rows[-1]["action"] == "give_up"
        assert run.rows[-1]["why"] == "1 of 2 agents reported within 20 s"
        assert ended(run) == ("over", 1, "end")


class TestDisk:
    def test_it_waits_longer_each_time(self, run: SimulatedRun) -> None:
        for pause in (5, 10, 20):
            for number in range(4):
                reason = FULL_DISK if number == 0 else None
                run.agents[f"n{number // 2}"].end_rank(number, 5, reason)
            run.advance_to_fault(1.5, kind="disk", rank=0, why="the disk is full")
            decided, begun = run.rows[-1], run.now
            assert decided["action"] == "wait"
            assert decided["why"] == f"retry in {pause} s, when the disk has room"
            assert run.advance(pause - 0.1) == []
            assert all(agent.verb == "stop" for agent in run.agents.values())
            resumed = run.advance_until("resumed")
            assert pause < resumed["time"] - begun < pause + 5
        run.advance(5)


class TestEndOfTheRun:
    def test_all_ranks_end_well(self, run: SimulatedRun) -> None:
        for number in range(4):
            run.agents[f"n{number // 2}"].end_rank(number, 0)
        run.advance(2)
        assert ended(run) == ("over", 0, "end")
        assert run.rows == []

    def test_three_of_four_ranks_are_not_all(self, run: SimulatedRun) -> None:
        for number in range(3):
            run.agents[f"n{number // 2}"].end_rank(number, 0)
        run.advance(2)
        assert run.state.mode == "run"

    def test_an_agent_that_leaves_alone_does_not_hold_up_the_others(
        self, run: SimulatedRun
    ) -> None:
        """Its ranks agree with all others to stop, so the run is complete."""
        run.agents["n0"].leaving = True
        run.advance(2)
        assert run.state.mode == "run"
        for number in range(4):
            run.agents[f"n{number // 2}"].end_rank(number, 0)
        run.advance(2)
        assert ended(run) == ("over", 0, "end")

    def test_a_rank_that_fails_while_an_agent_leaves_is_not_a_fault(
        self, run: SimulatedRun
    ) -> None:
        run.agents["n0"].leaving = True
        run.agents["n0"].next_report = 0.0
        run.agents["n1"].end_rank(3, 137)
        assert run.advance(20) == []
        assert run.state.mode == "run"

    def test_when_all_agents_leave_the_engine_says_how_it_ended(self, run: SimulatedRun) -> None:
        for agent in run.agents.values():
            agent.leaving = True
        for number in range(4):
            run.agents[f"n{number // 2}"].end_rank(number, 0)
        assert run.advance(5) == []
        assert run.state.mode == "run"
        run.monitor.engine_answered(run.now, JobStatus("done", 0))
        assert run.state.mode == "over"

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (JobStatus("done", 0), 0),
            (JobStatus("done"), 0),
            (JobStatus("failed", 9), 9),
            (JobStatus("cancelled"), 1),
            (JobStatus("cancelled", 0), 1),
            (JobStatus("lost"), 1),
        ],
    )
    def test_the_engine_says_that_the_job_ended(
        self, run: SimulatedRun, status: JobStatus, code: int
    ) -> None:
        run.record(run.monitor.engine_answered(run.now, status))
        assert run.rows == []
        assert ended(run) == ("over", code, "run")

    def test_after_the_end_nothing_is_decided(self, run: SimulatedRun) -> None:
        run.monitor.engine_answered(run.now, JobStatus("done", 0))
        assert run.monitor.engine_answered(run.now, JobStatus("silent")) == []
        assert run.monitor.clocks_differ(run.now, {"n9": 40.0}) == []
        assert run.monitor.checkpoint_damaged(run.now, "step-20: cut") == []
        assert run.monitor.resize_requested(run.now, 8) == []
        assert run.monitor.check(run.now) == []


class TestEngine:
    def test_an_engine_that_does_not_answer_is_waited_for(self, run: SimulatedRun) -> None:
        silent = JobStatus("silent", reason="slurmctld does not answer")
        run.record(run.monitor.engine_answered(run.now, silent))
        run.record(run.monitor.engine_answered(run.now, silent))
        assert kinds(run) == [("fault", "engine"), ("decided", "wait")]
        assert run.rows[0]["why"] == "slurmctld does not answer"
        assert run.rows[0]["step"] == run.state.ranks.furthest_step > 0
        assert run.rows[1]["why"] == "the job may be healthy; nothing is launched again"
        assert run.rows[1]["attempt"] == 1
        run.advance(10)
        run.record(run.monitor.engine_answered(run.now, JobStatus("running")))
        assert run.rows[-1]["event"] == "resumed"
        assert (run.rows[-1]["seconds"], run.rows[-1]["detection_seconds"]) == (10.0, 0.0)
        assert run.state.order.attempt == 1
        run.record(run.monitor.engine_answered(run.now, JobStatus("running")))
        assert len(run.rows) == 3
        run.record(run.monitor.engine_answered(run.now, silent))
        assert kinds(run)[3:] == [("fault", "engine"), ("decided", "wait")]

    def test_an_engine_that_answers_again_may_have_requeued_the_job(
        self, run: SimulatedRun
    ) -> None:
        run.record(run.monitor.engine_answered(run.now, JobStatus("silent")))
        run.advance(5)
        run.record(run.monitor.engine_answered(run.now, JobStatus("waiting", reason="BeginTime")))
        assert [row["event"] for row in run.rows[2:]] == ["resumed", "fault", "decided"]
        assert run.rows[2]["seconds"] == 5.0

    def test_an_engine_that_answers_again_may_have_lost_the_job(self) -> None:
        run = started_run(can_move=True)
        run.record(run.monitor.engine_answered(run.now, JobStatus("silent")))
        run.advance(5)
        run.record(run.monitor.engine_answered(run.now, JobStatus("lost")))
        assert [row["event"] for row in run.rows[2:]] == ["resumed", "fault", "decided"]
        assert run.rows[-1]["action"] == "resubmit"

    def test_a_requeued_job_gathers_its_new_agents(self, run: SimulatedRun) -> None:
        run.record(run.monitor.engine_answered(run.now, JobStatus("waiting", reason="BeginTime")))
        assert kinds(run) == [("fault", "engine"), ("decided", "wait")]
        assert run.rows[0]["why"] == "the engine requeued the job (BeginTime)"
        run.agents = {"n7": SimulatedAgent(0, 2), "n8": SimulatedAgent(1, 2)}
        run.advance(10)
        assert run.state.order.attempt == 2
        assert set(run.state.order.ranks) == {"n7", "n8"}

    def test_a_job_requeued_for_a_dead_node_names_it(self) -> None:
        run = started_run(can_move=True)
        run.silence("n1")
        run.advance(2.0)
        nodes = [Node("n0", 8), Node("n1", 8, False, "down*"), Node("n9", 8, False, "drained")]
        waiting = JobStatus("waiting", reason="BeginTime")
        run.record(run.monitor.engine_answered(run.now, waiting, nodes))
        assert [row.get("kind") for row in run.rows] == ["node", None]
        fault = run.rows[0]
        assert (fault["node"], fault["why"], fault["silent_seconds"]) == ("n1", "down*", 2.0)
        assert fault["step"] == run.state.ranks.furthest_step > 0

    def test_a_job_requeued_for_several_dead_nodes_gives_their_reasons(self) -> None:
        run = started_run(nodes=3, can_move=True)
        run.silence("n1", "n2")
        nodes = [Node("n0", 8), Node("n1", 8, False, "down*"), Node("n2", 8, False, "drained")]
        run.record(run.monitor.engine_answered(run.now, JobStatus("waiting"), nodes))
        assert run.rows[0]["why"] == "down*; drained"

    def test_a_job_that_waits_for_its_first_start_is_not_requeued(self) -> None:
        run = SimulatedRun(can_move=True)
        run.agents = {}
        run.advance(1)
        assert run.monitor.engine_answered(run.now, JobStatus("waiting")) == []

    def test_a_fault_that_is_open_keeps_its_first_sign(self) -> None:
        run = started_run(can_move=True)
        run.agents["n1"].end_rank(3, 137)
        run.advance_to_fault(1.5, kind="crash")
        first = run.state.history.open
        run.record(run.monitor.engine_answered(run.now, JobStatus("waiting", reason="BeginTime")))
        assert run.state.history.open is first

    @pytest.mark.parametrize("state", ["failed", "lost"])
    def test_a_job_that_failed_is_submitted_again(self, state: Any) -> None:
        run = started_run(can_move=True)
        run.record(run.monitor.engine_answered(run.now, JobStatus(state, 1, "NODE_FAIL")))
        assert kinds(run) == [("fault", "node"), ("decided", "resubmit")]
        assert run.rows[0]["why"] == run.rows[1]["why"] == "NODE_FAIL"
        run.agents = {"n5": SimulatedAgent(0, 2, "8.1"), "n6": SimulatedAgent(1, 2, "8.1")}
        run.assert_recovers("resubmit")

    def test_a_failed_job_without_a_reason(self) -> None:
        run = started_run(can_move=True)
        run.record(run.monitor.engine_answered(run.now, JobStatus("failed", 1)))
        assert run.rows[0]["why"] == "the engine reports the job as failed"

    def test_a_job_that_failed_before_its_first_attempt_is_over(self) -> None:
        run = SimulatedRun(can_move=True)
        run.record(run.monitor.engine_answered(run.now, JobStatus("failed", 3)))
        assert (run.rows, run.state.mode, run.state.exit_code) == ([], "over", 3)

    def test_a_cancelled_job_is_not_submitted_again(self) -> None:
        run = started_run(can_move=True)
        run.record(run.monitor.engine_answered(run.now, JobStatus("cancelled")))
        assert (run.rows, run.state.mode) == ([], "over")

    @pytest.mark.parametrize(("reason", "why"), [("", "the job lost"), ("x", "the job lost: x")])
    def test_a_job_that_ends_while_an_agent_is_waited_for(self, reason: str, why: str) -> None:
        """Its agent ended the job: the fault was written down already."""
        run = started_run(can_move=True)
        run.agents["n1"].restart()
        run.advance_to_fault(1.5, kind="agent")
        run.state.mode, run.state.awaiting_agent = "gather", True
        run.record(run.monitor.engine_answered(run.now, JobStatus("lost", reason=reason)))
        assert kinds(run)[1:] == [("decided", "restart"), ("decided", "resubmit")]
        assert run.rows[-1]["why"] == why
        assert not run.state.awaiting_agent
        assert run.state.since == run.now

    def test_a_fault_three_times_ends_the_run_on_any_engine(self) -> None:
        run = started_run(can_move=True)
        step = run.state.ranks.furthest_step
        run.state.history.by_step["node", step] = 2
        run.record(run.monitor.engine_answered(run.now, JobStatus("failed", 1)))
        assert run.rows[-1]["action"] == "give_up"
        assert run.state.exit_code == 1


class TestReported:
    def test_a_clock_that_is_off_is_reported_once(self, run: SimulatedRun) -> None:
        for _ in range(3):
            run.record(run.monitor.clocks_differ(run.now, {"n9": -45.0, "n8": 31.0}))
        behind, ahead = run.rows
        assert (behind["kind"], behind["node"]) == ("skew", "n9")
        assert behind["why"].startswith("its clock is 45 s behind; its reports are dropped")
        assert ahead["why"].startswith("its clock is 31 s ahead")

    def test_a_damaged_checkpoint_changes_nothing(self, run: SimulatedRun) -> None:
        run.record(run.monitor.checkpoint_damaged(run.now, "step-20: cut short"))
        assert kinds(run) == [("fault", "checkpoint"), ("decided", "restart")]
        assert run.rows[0]["why"] == "step-20: cut short"
        assert run.rows[1]["attempt"] == 1
        assert run.advance(10) == [], "training continues by itself"


class TestResize:
    def test_ranks_save_and_a_larger_attempt_begins(self, run: SimulatedRun) -> None:
        run.record(run.monitor.resize_requested(run.now, 8))
        decided = run.rows[-1]
        assert (decided["action"], decided["attempt"], decided["world"]) == ("resize", 2, 8)
        assert decided["why"] == "from 4 to 8 ranks, as requested"
        assert run.state.order.verb == "save-and-stop"
        resumed = run.advance_until("resumed")
        assert resumed["attempt"] == 2
        assert 0 < resumed["seconds"] < 10
        run.record(run.monitor.resize_requested(run.now, 8))
        assert run.advance(10) == [], "a request that was carried out"

    def test_a_request_waits_until_an_attempt_runs(self) -> None:
        run = SimulatedRun()
        late = run.agents.pop("n1")
        run.advance(1)
        assert run.monitor.resize_requested(run.now, 8) == []
        run.agents["n1"] = late
        run.advance(1)
        assert run.monitor.resize_requested(run.now, 8) != []

    @pytest.mark.parametrize("code", [0, 1])
    def test_it_waits_until_all_ranks_have_saved(
        self, run: SimulatedRun, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """A rank that fails meanwhile cannot save: then there is nothing to wait for."""
        for agent in run.agents.values():
            monkeypatch.setattr(agent, "obey", lambda note, now: None)
        run.record(run.monitor.resize_requested(run.now, 2))
        run.agents["n0"].end_rank(0, code)
        run.advance(20)
        waits = code == 0
        assert (run.state.mode == "save") == waits
        assert (run.state.order.attempt == 1) == waits

    def test_it_does_not_wait_for_ever(
        self, run: SimulatedRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for agent in run.agents.values():
            monkeypatch.setattr(agent, "obey", lambda note, now: None)
        run.record(run.monitor.resize_requested(run.now, 2))
        run.advance(600.0)
        assert run.state.mode == "save"
        run.advance(0.2)
        assert run.state.mode != "save"


class TestSlowNode:
    def test_a_node_that_is_slow_twice_is_replaced(self) -> None:
        run = SimulatedRun(can_move=True)
        run.advance(40)
        for action in ("restart", "resubmit"):
            run.step_seconds = 1.0
            run.set_straggler(3)
            run.advance_to_fault(9, kind="slow", rank=3)
            run.step_seconds = 0.5
            assert run.rows[-1]["action"] == action
            run.assert_recovers(action)
        assert run.rows[-2]["avoid"] == ["n1"]


class TestLostNode:
    def test_after_a_resubmission_training_resumes_on_other_nodes(self) -> None:
        run = started_run(can_move=True)
        run.silence("n1")
        run.advance_to_fault(6.1, kind="node", node="n1")
        assert run.state.order.verb == "stop"
        assert run.state.agents == {}
        run.agents = {"n0": SimulatedAgent(0, 2), "n5": SimulatedAgent(1, 2)}
        decided = run.assert_recovers("resubmit")
        assert (decided["attempt"], decided["avoid"]) == (2, ["n1"])

    def test_a_node_is_avoided_once(self) -> None:
        run = started_run(can_move=True)
        run.state.avoid = ["n1", "n7"]
        run.silence("n1")
        run.advance_to_fault(6.1, kind="node", node="n1")
        assert run.rows[-1]["avoid"] == ["n1", "n7"]


class TestHealthDuringTheRun:
    def unfit(self) -> SimulatedRun:
        run = SimulatedRun(nodes=4, can_move=True)
        for agent in run.agents.values():
            agent.health = {"writable": True, "disk_bytes": 1 << 40}
        run.advance(10)
        assert (run.rows, run.state.mode) == ([], "run")
        run.agents["n2"].report_health(writable=True, disk_bytes=0)
        return run

    def test_an_unfit_node_is_left_out_after_a_last_checkpoint(self) -> None:
        run = self.unfit()
        assert run.advance(30.0) == []
        run.advance(0.2)
        assert kinds(run)[:2] == [("fault", "node"), ("decided", "drain")]
        while not run.rows or run.rows[-1].get("action") != "resubmit":
            run.advance(TICK_SECONDS)
        assert kinds(run)[2:] == [("decided", "resubmit")]
        assert all(agent.verb == "save-and-stop" for agent in run.agents.values())
        assert (run.rows[0]["node"], run.rows[-1]["avoid"]) == ("n2", ["n2"])
        assert run.rows[-1]["why"] == "without n2"
        assert run.state.since == run.now

    def test_a_node_that_is_fit_again_stays(self) -> None:
        run = self.unfit()
        assert run.advance(29.0) == []
        run.agents["n2"].report_health(writable=True, disk_bytes=1 << 40)
        assert run.advance(5) == []
        run.agents["n2"].report_health(writable=True, disk_bytes=0)
        assert run.advance(29.0) == [], "its time begins anew"

    def test_a_complaint_of_all_nodes_is_not_the_fault_of_one(self) -> None:
        run = SimulatedRun(can_move=True)
        run.advance(10)
        for agent in run.agents.values():
            agent.report_health(disk_bytes=0)
            assert run.advance(20) == []
        assert run.advance(60) == []
        assert (run.state.mode, run.state.order.verb) == ("run", "run")

    def test_where_the_job_cannot_move_the_node_stays(self) -> None:
        run = started_run(nodes=4)
        run.agents["n2"].report_health(writable=False)
        assert run.advance(60) == []
