"""Every kind of fault is detected, named and healed, without a process or a socket."""

from __future__ import annotations

import pytest
from tests.cluster.monitor.simulation import SimulatedRun, started_run

from tumen.cluster.engines import JobStatus
from tumen.core.errors import RANKS_CANNOT_MEET

RUNNING = JobStatus("running")
OTHER_ERROR = {"kind": "other", "why": "the mesh needs 8 ranks", "step": 3, "rank": 2}


@pytest.fixture
def run() -> SimulatedRun:
    """Two nodes with two ranks each that train."""
    run = started_run()
    assert run.state.order.world == 4
    assert run.state.order.master.startswith("10.0.0.0:500")
    placed = {name: sorted(agent.ranks) for name, agent in run.agents.items()}
    assert placed == {"n0": [0, 1], "n1": [2, 3]}
    return run


class TestRankThatEnds:
    def test_a_killed_rank_is_a_crash(self, run: SimulatedRun) -> None:
        run.agents["n1"].end_rank(3, 137)
        why = "rank ended with exit code 137, signal 9"
        step = run.rank(0).step
        fault = run.advance_to_fault(1.5, kind="crash", rank=3, node="n1", why=why, step=step)
        assert 0.3 <= fault["silent_seconds"] <= 0.5
        run.assert_recovers()

    def test_an_exit_code_below_128_is_not_a_signal(self, run: SimulatedRun) -> None:
        for code in (3, 128):
            run.agents["n1"].end_rank(3, code)
            run.advance_to_fault(1.5, kind="crash", why=f"rank ended with exit code {code}")
            run.assert_recovers()

    def test_the_cause_is_named_and_not_the_ranks_that_missed_it(self, run: SimulatedRun) -> None:
        run.agents["n0"].end_rank(0, 7)
        run.agents["n0"].end_rank(1, 134)
        run.advance(0.2)
        run.agents["n1"].end_rank(2, 139)
        run.advance_to_fault(1.5, kind="crash", rank=2, node="n1")

    @pytest.mark.parametrize("killed", [0, 3])
    def test_a_killed_rank_is_named_before_one_that_ended_itself(
        self, run: SimulatedRun, killed: int
    ) -> None:
        """The other one gave a reason of its own, such as a broken connection to the killed one."""
        for number in (0, 3):
            code, reason = (137, None) if number == killed else (7, OTHER_ERROR)
            run.agents[f"n{number // 2}"].end_rank(number, code, reason)
        run.advance_to_fault(1.5, kind="crash", rank=killed)

    def test_a_rank_killed_by_the_first_signal_counts_as_killed(self, run: SimulatedRun) -> None:
        run.agents["n0"].end_rank(0, 1, OTHER_ERROR)
        run.agents["n1"].end_rank(3, 129)
        why = "rank ended with exit code 129, signal 1"
        run.advance_to_fault(1.5, kind="crash", rank=3, why=why)

    def test_of_two_killed_ranks_the_first_reported_is_named(self, run: SimulatedRun) -> None:
        run.agents["n0"].end_rank(1, 139)
        run.agents["n0"].end_rank(0, 137)
        run.advance_to_fault(1.5, kind="crash", rank=1)

    def test_a_rank_with_a_reason_is_named_before_one_without(self, run: SimulatedRun) -> None:
        run.agents["n0"].end_rank(0, 7)
        run.agents["n1"].end_rank(2, 7, OTHER_ERROR)
        run.advance_to_fault(1.5, kind="crash", rank=2, why="the mesh needs 8 ranks")

    def test_a_rank_that_met_nobody_is_not_the_cause(self, run: SimulatedRun) -> None:
        alone = {**OTHER_ERROR, "why": f"the 4 ranks {RANKS_CANNOT_MEET} at MASTER_ADDR"}
        run.agents["n0"].end_rank(0, 7, alone)
        run.agents["n1"].end_rank(2, 3)
        run.advance_to_fault(1.5, kind="crash", rank=2)

    @pytest.mark.parametrize("kind", ["nan", "spike", "disk"])
    def test_a_rank_that_names_its_fault(self, run: SimulatedRun, kind: str) -> None:
        reason = {"kind": kind, "why": "samples 3, 4", "step": 25, "rank": 2}
        run.agents["n0"].end_rank(0, 137)
        for number in (2, 3):
            run.agents["n1"].end_rank(number, 7, reason)
        fault = run.advance_to_fault(1.5, kind=kind, rank=2, node="n1", step=25, why="samples 3, 4")
        assert 0.3 <= fault["silent_seconds"] <= 0.4

    def test_a_loss_fault_is_healed(self, run: SimulatedRun) -> None:
        reason = {"kind": "nan", "why": "samples 3, 4", "step": 25, "rank": 0}
        run.agents["n0"].end_rank(0, 7, reason)
        run.advance_to_fault(1.5, kind="nan", rank=0)
        run.assert_recovers()

    def test_a_killed_rank_with_a_reason_is_a_crash(self, run: SimulatedRun) -> None:
        """The reason may be of an attempt to save what was left; the kill is what happened."""
        reason = {"kind": "nan", "why": "samples 3, 4", "step": 25, "rank": 0}
        run.agents["n0"].end_rank(0, 128, reason)
        run.advance_to_fault(1.5, kind="crash", rank=0, why="samples 3, 4")

    def test_a_full_disk_that_took_no_reason_is_known_by_the_exit_code(
        self, run: SimulatedRun
    ) -> None:
        run.agents["n1"].end_rank(3, 5)
        step = run.rank(0).step
        run.advance_to_fault(1.5, kind="disk", rank=3, step=step, why="disk error")

    def test_when_all_say_that_another_ended_it_waits_for_the_cause(
        self, run: SimulatedRun
    ) -> None:
        run.agents["n0"].end_rank(0, 7)
        run.agents["n1"].end_rank(3, 134)
        assert run.advance(5.9) == []
        fault = run.advance_to_fault(0.5, kind="crash", rank=0)
        assert 6.0 <= fault["silent_seconds"] <= 6.1

    def test_an_exit_of_an_earlier_attempt_changes_nothing(
        self, run: SimulatedRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An agent to which the new order was lost still reports the exit of the old attempt."""
        late = run.agents["n1"]
        late.end_rank(3, 137)
        run.advance_to_fault(1.5, kind="crash")
        with monkeypatch.context() as patch:
            patch.setattr(late, "obey", lambda note, now: None)
            rows = run.advance(8)
        assert [row["event"] for row in rows] == ["resumed"]

    def test_ranks_that_ended_well_are_not_missed(self, run: SimulatedRun) -> None:
        run.agents["n1"].end_rank(3, 0)
        run.agents["n1"].end_rank(2, 0)
        for rank in run.ranks():
            rank.phase = "end"
        assert run.advance(30) == []


class TestRankThatIsAlive:
    @pytest.mark.parametrize("rank", [0, 2])
    def test_a_rank_without_heartbeats_is_frozen(self, run: SimulatedRun, rank: int) -> None:
        run.rank(rank).frozen = True
        step, node = run.rank(rank).step, f"n{rank // 2}"
        fault = run.advance_to_fault(6.1, kind="freeze", rank=rank, node=node, step=step)
        assert 5.0 <= fault["silent_seconds"] <= 5.2
        assert fault["why"].startswith("process is alive but sent no heartbeat for 5.")
        run.assert_recovers()

    def test_a_stopped_process_is_reported_by_its_agent(self, run: SimulatedRun) -> None:
        run.rank(2).frozen = True
        run.agents["n1"].stopped = [[2, 0.9]]
        assert run.advance(1.5) == []
        run.agents["n1"].stopped = [[2, 2.0]]
        facts = {"why": "process is stopped", "step": run.rank(2).step, "silent_seconds": 2.0}
        run.advance_to_fault(1.1, kind="freeze", rank=2, node="n1", **facts)
        run.agents["n1"].stopped = []
        run.assert_recovers()

    def test_of_two_stopped_processes_the_longest_is_named(self, run: SimulatedRun) -> None:
        run.agents["n0"].stopped = [[0, 2.5], [1, 3.5]]
        run.agents["n1"].stopped = [[2, 3.0]]
        run.advance_to_fault(1.1, kind="freeze", rank=1)

    def test_a_rank_may_be_silent_for_three_steps(self) -> None:
        run = SimulatedRun(step_seconds=10.0)
        assert run.advance(200) == []
        run.rank(2).frozen = True
        fault = run.advance_to_fault(32, kind="freeze", rank=2)
        assert 20.0 <= fault["silent_seconds"] <= 30.2, "by the missing step, or by the silence"

    def test_a_run_without_steps_is_stuck_in_a_collective(self, run: SimulatedRun) -> None:
        run.stuck = True
        step = run.rank(0).step
        fault = run.advance_to_fault(6.6, kind="collective", rank=None, node=None, step=step)
        assert fault["why"].startswith("all ranks are alive, but no step finished for 5.")
        assert 5.0 <= fault["silent_seconds"] <= 5.2
        run.stuck = False
        run.assert_recovers()

    @pytest.mark.parametrize("rank", [0, 1, 3])
    def test_the_rank_that_does_not_wait_keeps_the_others_waiting(
        self, run: SimulatedRun, rank: int
    ) -> None:
        run.stuck = True
        run.set_straggler(rank, waiting=0.0, others=0.95)
        run.advance_to_fault(6.6, kind="collective", rank=rank, node=f"n{rank // 2}")

    def test_a_slow_rank_that_the_others_wait_for(self) -> None:
        run = SimulatedRun()
        run.advance(40)
        run.step_seconds = 1.0
        run.set_straggler(3)
        fault = run.advance_to_fault(8, kind="slow", rank=3, node="n1", silent_seconds=0.0)
        assert fault["why"].startswith("a step takes 1 s instead of 0.5 s")
        run.step_seconds = 0.5
        run.assert_recovers()

    def test_steps_that_are_slow_for_all_are_not_a_fault(self) -> None:
        """Longer sequences, or a slow network: all ranks wait alike."""
        run = SimulatedRun()
        run.advance(40)
        run.step_seconds = 1.0
        for rank in run.ranks():
            rank.waiting = 0.5
        assert run.advance(60) == []

    def test_another_number_of_ranks_has_another_usual_step_time(self) -> None:
        """Half of the ranks take twice as long, which is not slow."""
        run = SimulatedRun()
        run.advance(40)
        assert run.state.ranks.usual_seconds() == 0.5
        run.record(run.monitor.resize_requested(run.now, 2))
        run.step_seconds = 1.0
        run.assert_recovers("resize")
        run.set_straggler(1)
        assert run.advance(60) == []
        assert run.state.ranks.usual_seconds() == 1.0

    def test_a_rank_whose_agent_is_silent_is_not_judged(self, run: SimulatedRun) -> None:
        """Nobody passes on its heartbeats: its agent or node is the question."""
        run.agents["n1"].silent = True
        fault = run.advance_to_fault(6.1)
        assert fault["kind"] == "agent"


class TestAgent:
    def test_an_agent_that_restarted_lost_its_ranks(self, run: SimulatedRun) -> None:
        run.agents["n0"].end_rank(0, 7)  # it misses the ranks that ended with the agent
        run.agents["n1"].restart()
        before = run.state.order.master
        facts = {"why": "agent restarted; its ranks ended with it", "step": run.rank(0).step}
        run.advance_to_fault(1.5, kind="agent", rank=None, node="n1", **facts)
        run.assert_recovers()
        assert run.state.order.master != before, "a port serves one attempt"

    def test_a_new_process_that_claims_the_attempt_has_restarted(self, run: SimulatedRun) -> None:
        agent = run.agents["n1"]
        agent.pid += 100
        agent.report_health()
        run.advance_to_fault(1.5, kind="agent", node="n1")

    def test_a_silent_agent(self, run: SimulatedRun) -> None:
        run.agents["n1"].silent = True
        fault = run.advance_to_fault(6.1, kind="agent", node="n1", rank=None)
        assert 5.0 <= fault["silent_seconds"] <= 5.2
        assert fault["why"].startswith("no report for 5.")
        assert run.advance(5) == []
        run.agents["n1"].restart()
        run.assert_recovers()

    def test_a_lost_packet_is_not_a_fault(self, run: SimulatedRun) -> None:
        run.agents["n1"].silent = True
        run.advance(3.8)
        run.agents["n1"].silent = False
        assert run.advance(20) == []

    def test_a_silent_agent_is_believed_sooner_when_ranks_miss_its_own(
        self, run: SimulatedRun
    ) -> None:
        run.agents["n1"].silent = True
        run.agents["n0"].end_rank(0, 7)
        fault = run.advance_to_fault(3.8, kind="agent", node="n1")
        assert 2.5 <= fault["silent_seconds"] <= 2.8, "1.5 s, and a report later"

    def test_an_agent_without_ranks_may_be_silent(self) -> None:
        run = started_run()
        run.record(run.monitor.resize_requested(run.now, 1))
        run.assert_recovers("resize")
        assert run.agents["n1"].ranks == {}
        run.agents["n1"].silent = True
        run.stuck = False
        run._train = lambda: _train_without(run, "n1")  # type: ignore[method-assign]
        assert run.advance(20) == []


def _train_without(run: SimulatedRun, node: str) -> None:
    agent = run.agents[node]
    agent.silent = False
    SimulatedRun._train(run)
    agent.silent = True


class TestNodes:
    def test_a_node_that_the_engine_calls_down(self) -> None:
        run = started_run(can_move=True)
        run.agents["n1"].silent = True
        run.advance(1.7)
        assert run.monitor.needs_nodes(run.now)
        run.state.engine.not_ready = {"n1": "down*: not responding", "n7": "drained"}
        run.advance_to_fault(1.5, kind="node", node="n1", why="down*: not responding")
        assert run.rows[-1]["action"] == "resubmit"
        assert run.rows[-1]["avoid"] == ["n1"]

    def test_a_node_that_is_down_is_one_also_where_the_job_cannot_move(self) -> None:
        run = started_run()
        run.agents["n1"].silent = True
        run.state.engine.not_ready = {"n1": "down*"}
        run.advance_to_fault(3, kind="node", node="n1", why="down*")
        assert run.rows[-1]["action"] == "restart"

    def test_of_silent_nodes_those_that_are_down_are_named(self) -> None:
        run = started_run(nodes=8, can_move=True)
        for name in ("n2", "n5"):
            run.agents[name].silent = True
        run.state.engine.not_ready = {"n5": "down*"}
        run.advance_to_fault(3, kind="node", node="n5", why="down*")
        assert run.rows[-1]["avoid"] == ["n5"]

    def test_where_agents_restart_at_once_a_silent_one_is_its_node(self) -> None:
        run = started_run(can_move=True)
        run.agents["n1"].silent = True
        fault = run.advance_to_fault(6.1, kind="node", node="n1")
        assert 5.0 <= fault["silent_seconds"] <= 5.2
        assert (run.rows[-1]["action"], run.rows[-1]["avoid"]) == ("resubmit", ["n1"])

    @pytest.mark.parametrize("can_move", [True, False])
    def test_several_nodes_at_once_are_believed_sooner(self, can_move: bool) -> None:
        run = started_run(nodes=10, can_move=can_move)
        for number in range(4, 7):
            run.agents[f"n{number}"].silent = True
        fault = run.advance_to_fault(3.7, kind="node", node="n4")
        assert 2.5 <= fault["silent_seconds"] <= 3.6
        assert fault["why"].startswith("3 nodes at once: no report for ")
        if can_move:
            assert run.rows[-1]["avoid"] == ["n4", "n5", "n6"]

    def test_two_nodes_at_once_may_be_lost_packets(self) -> None:
        run = started_run(nodes=10, can_move=True)
        for number in (4, 5):
            run.agents[f"n{number}"].silent = True
        assert run.advance(3.9) == []
        fault = run.advance_to_fault(2.2, kind="node")
        assert fault["why"].startswith("2 nodes at once")

    def test_nodes_that_fall_silent_a_moment_later_belong_to_the_same_fault(self) -> None:
        """Agents report in turns, so one that died together with the others may be missed later."""
        run = started_run(nodes=10, can_move=True)
        late = run.agents["n7"]
        late.next_report = run.now + 0.05
        for number in range(4, 7):
            run.agents[f"n{number}"].silent = True
            run.state.agents[f"n{number}"].last_report = run.now - 0.9
        run.advance(0.2)
        late.silent = True
        run.advance_to_fault(3.7, kind="node")
        assert run.rows[-1]["avoid"] == ["n4", "n5", "n6", "n7"]

    def test_agents_that_are_silent_together_again_are_waited_for_again(self) -> None:
        run = started_run(nodes=10, can_move=True)
        names = ("n4", "n5", "n6")
        for _ in range(3):
            run.silence(*names)
            assert run.advance(2.3) == []
            for name in names:
                run.agents[name].silent = False
            assert run.advance(3.0) == []

    @pytest.mark.parametrize("silent", [2, 3, 6])
    def test_when_most_agents_are_silent_the_watchers_own_network_is_suspected(
        self, silent: int
    ) -> None:
        """Half of the agents or more than one of two: the fault waits for 30 s."""
        nodes = {2: 2, 3: 4, 6: 10}[silent]
        run = started_run(nodes=nodes)
        run.silence(*list(run.agents)[:silent])
        assert run.advance(30.0) == [], "it would have been a fault after 5 s"
        fault = run.advance_to_fault(0.2)
        assert 30.0 <= fault["silent_seconds"] <= 30.2
        assert fault["kind"] == ("agent" if silent == 2 else "node")

    def test_half_of_the_agents_are_not_most(self) -> None:
        run = started_run(nodes=10)
        for number in range(5):
            run.agents[f"n{number}"].silent = True
        run.advance_to_fault(3.7, kind="node")

    def test_a_majority_that_is_back_was_not_a_fault(self) -> None:
        run = started_run(nodes=4, can_move=True)
        for agent in run.agents.values():
            agent.silent = True
        run.monitor.engine_answered(run.now, RUNNING)
        assert run.advance(25) == []
        for agent in run.agents.values():
            agent.silent = False
        assert run.advance(20) == []


class TestEngineIsAskedFirst:
    """When all agents are silent, the engine may have taken the job away itself."""

    def silent(self, nodes: int = 1, can_move: bool = True) -> SimulatedRun:
        run = started_run(nodes=nodes, can_move=can_move)
        run.silence(*run.agents)
        return run

    def test_the_only_agent_is_not_missed_before_the_engine_answers(self) -> None:
        run = self.silent()
        assert run.advance(1.5) == []
        assert run.monitor.needs_nodes(run.now) is False
        run.advance(0.1)
        assert run.monitor.needs_nodes(run.now)
        assert run.advance(8.4) == [], "it would have been a fault after 5 s"
        run.record(run.monitor.engine_answered(run.now, RUNNING))
        assert run.rows == []
        run.advance_to_fault(0.1, kind="node", node="n0")
        assert run.rows[-1]["action"] == "resubmit"

    def test_a_requeued_job_is_waited_for(self) -> None:
        run = self.silent()
        assert run.advance(10) == []
        run.record(run.monitor.engine_answered(run.now, JobStatus("waiting", reason="BeginTime")))
        assert [row.get("kind", row.get("action")) for row in run.rows] == ["engine", "wait"]

    def test_it_gets_thirty_seconds_to_answer(self) -> None:
        run = self.silent()
        assert run.advance(29.9) == []
        run.advance_to_fault(0.2, kind="node", node="n0")

    def test_an_answer_from_before_the_silence_does_not_count(self) -> None:
        run = self.silent()
        run.state.engine.answered = run.now
        assert run.advance(29.9) == []

    def test_an_answer_from_just_after_the_last_report_counts(self) -> None:
        run = self.silent()
        run.record(run.monitor.engine_answered(run.now + 0.01, RUNNING))
        fault = run.advance_to_fault(5.1, kind="node")
        assert 5.0 <= fault["silent_seconds"] <= 5.1

    def test_while_one_agent_reports_the_engine_is_not_waited_for(self) -> None:
        run = started_run(nodes=3, can_move=True)
        run.silence("n1")
        fault = run.advance_to_fault(5.1, kind="node", node="n1")
        assert 5.0 <= fault["silent_seconds"] <= 5.1

    def test_the_last_agent_that_reported_counts(self) -> None:
        run = started_run(nodes=2, can_move=True)
        run.silence("n0")
        assert run.advance(2.0) == []
        run.silence("n0", "n1")
        assert run.advance(29.9) == []
        run.advance_to_fault(0.2, kind="node", node="n0")

    def test_an_engine_of_one_machine_is_not_asked(self) -> None:
        run = self.silent(can_move=False)
        assert run.advance(5.0) == []
        assert not run.monitor.needs_nodes(run.now)
        run.advance_to_fault(0.2, kind="agent")

    def test_an_agent_that_leaves_is_asked_about(self) -> None:
        run = started_run(can_move=True)
        run.agents["n0"].leaving = True
        run.agents["n0"].next_report = 0.0
        run.advance(0.2)
        assert run.monitor.needs_nodes(run.now)
