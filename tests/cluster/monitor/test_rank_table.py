"""Heartbeats of many ranks: who is silent, stuck or slow, to the second."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tumen.cluster.watcher.monitor.rank_table import (
    FIRST_STEP_SECONDS,
    HEARTBEATS,
    SILENT_SECONDS,
    STUCK_SECONDS,
    RankTable,
)
from tumen.heartbeat import HEARTBEAT_STRUCT, PHASES, Heartbeat, messages

SECRET = bytes(32)


def packed(*heartbeats: Heartbeat) -> bytes:
    datagram = messages.MessageSender(SECRET, "n0").message(1, heartbeats)
    message = messages.MessageReceiver(SECRET).open(datagram)
    assert message
    return message.body


def update(table: RankTable, now: float, **facts: Any) -> None:
    """Let all ranks send the same heartbeat; a list has a value for each."""
    heartbeats = []
    for rank in range(table.world):
        own = {name: one[rank] if isinstance(one, list) else one for name, one in facts.items()}
        heartbeats.append(Heartbeat(rank, 1, 1, **own))
    table.update(now, packed(*heartbeats))


def trained(
    world: int = 3, step_seconds: float = 1.0, steps: int = 20
) -> tuple[RankTable, float, int]:
    """A table whose ranks have trained; also the time and step of the last heartbeat."""
    table = RankTable(0.0, world)
    update(table, 0.0, phase="load")
    for step in range(steps + 1):
        update(table, float(step), phase="train", step=step, step_seconds=step_seconds)
    return table, float(steps), steps


def test_it_has_the_fields_of_a_heartbeat() -> None:
    assert HEARTBEATS.itemsize == HEARTBEAT_STRUCT.size
    assert tuple(HEARTBEATS.names or ()) == Heartbeat._fields


class TestUpdate:
    def test_a_heartbeat_counts_from_when_its_agent_received_it(self) -> None:
        table = RankTable(0.0, 2)
        update(table, 10.0, age_ms=[0, 2500])
        assert table.last_heartbeat.tolist() == [10.0, 7.5]

    def test_an_older_heartbeat_does_not_set_the_clock_back(self) -> None:
        table = RankTable(0.0, 1)
        update(table, 10.0)
        update(table, 10.5, age_ms=9000)
        assert table.last_heartbeat.tolist() == [10.0]

    def test_ranks_beyond_the_attempt_are_ignored(self) -> None:
        table = RankTable(0.0, 2)
        table.update(5.0, packed(Heartbeat(2, 1, 1, step=9), Heartbeat(1, 1, 1, step=4)))
        assert table.step.tolist() == [0, 4]

    def test_a_step_or_a_phase_is_progress(self) -> None:
        table = RankTable(0.0, 2)
        update(table, 1.0)
        assert table.last_progress == 0.0
        update(table, 2.0, phase=["start", "load"])
        assert table.last_progress == 2.0
        update(table, 3.0, phase=["start", "load"])
        assert table.last_progress == 2.0
        update(table, 4.0, phase=["start", "load"], step=[0, 1])
        assert table.last_progress == 4.0

    def test_a_rank_that_ended_owes_no_heartbeat(self) -> None:
        table, now, step = trained(world=2)
        table.mark_ended(1)
        update(table, now + 1, phase="train", step=step, step_seconds=1.0)
        assert table.silent_rank(now + 5.5) is None
        assert table.silent_rank(now + 7) == 0

    def test_the_furthest_step_counts(self) -> None:
        table = RankTable(0.0, 2)
        assert table.furthest_step == 0
        update(table, 1.0, step=[3, 2])
        assert table.furthest_step == 3


class TestStepTime:
    def test_the_first_step_that_is_seen_was_not_done_here(self) -> None:
        """An attempt begins at the step of its checkpoint."""
        table = RankTable(0.0, 1)
        update(table, 1.0, phase="train", step=20, step_seconds=1.0)
        assert not table.has_stepped
        update(table, 2.0, phase="train", step=21, step_seconds=1.0)
        assert table.has_stepped

    def test_before_training_no_step_counts(self) -> None:
        table = RankTable(0.0, 1)
        for step in range(3):
            update(table, float(step), phase="load", step=step, step_seconds=1.0)
        assert not table.has_stepped

    def test_the_first_two_steps_warm_up(self) -> None:
        table = RankTable(0.0, 1)
        for step, seconds in enumerate((9.0, 9.0, 8.0, 1.0, 2.0)):
            update(table, float(step), phase="train", step=step, step_seconds=seconds)
        assert list(table.recent) == [1.0, 2.0]

    def test_while_only_warm_up_steps_are_known_they_count(self) -> None:
        table = RankTable(0.0, 1)
        for step, seconds in enumerate((9.0, 7.0)):
            update(table, float(step), phase="train", step=step, step_seconds=seconds)
        assert table.step_seconds() == 7.0

    def test_it_is_the_median_of_ranks_that_know_it(self) -> None:
        table = RankTable(0.0, 4)
        for step in range(4):
            seconds = [1.0, 5.0, 2.0, math.nan]
            update(table, float(step), phase="train", step=step, step_seconds=seconds)
        assert list(table.recent) == [2.0]
        update(table, 9.0, phase="train", step=9, step_seconds=math.nan)
        assert list(table.recent) == [2.0]

    def test_a_heartbeat_without_a_new_step_is_not_a_sample(self) -> None:
        table = RankTable(0.0, 1)
        for number in range(10):
            update(table, float(number), phase="train", step=5, step_seconds=1.0)
        assert list(table.recent) == []

    def test_a_sample_becomes_usual_when_four_newer_ones_are_there(self) -> None:
        table, _, _ = trained(steps=2 + 4)
        assert (len(table.recent), len(table.usual)) == (4, 0)
        table, _, _ = trained(steps=2 + 5)
        assert (len(table.recent), len(table.usual)) == (4, 1)

    def test_the_usual_time_needs_twelve_samples(self) -> None:
        table, _, _ = trained(step_seconds=0.5, steps=2 + 4 + 11)
        assert table.usual_seconds() == 0.0
        table, _, _ = trained(step_seconds=0.5, steps=2 + 4 + 12)
        assert table.usual_seconds() == 0.5
        assert RankTable(0.0, 1, [0.25] * 12).usual_seconds() == 0.25

    def test_usual_and_recent_samples_make_the_step_time(self) -> None:
        table = RankTable(0.0, 1, [1.0])
        table.recent.extend([3.0, 5.0])
        assert table.step_seconds() == 3.0


class TestSilence:
    @pytest.mark.parametrize("phase", PHASES)
    def test_each_phase_has_its_limit(self, phase: str) -> None:
        limit = {"start": 600.0, "load": 60.0, "train": 5.0, "save": 5.0, "end": 5.0}[phase]
        assert SILENT_SECONDS[phase] == limit
        table = RankTable(0.0, 1)
        update(table, 100.0, phase=phase)
        assert table.silent_rank(100.0 + limit) is None
        assert table.silent_rank(100.1 + limit) == 0

    def test_of_several_the_most_overdue_is_named(self) -> None:
        table = RankTable(0.0, 3)
        update(table, 100.0, phase=["load", "train", "train"], age_ms=[9000, 500, 1000])
        assert table.silent_rank(107.0) == 2

    def test_a_limit_is_at_least_three_steps(self) -> None:
        table, now, _ = trained(step_seconds=10.0)
        assert table.silent_rank(now + 30.0) is None
        assert table.silent_rank(now + 30.1) == 0


class TestStuck:
    @pytest.mark.parametrize("phase", ["start", "load", "save", "end"])
    def test_each_phase_has_its_limit(self, phase: str) -> None:
        limit = {"start": 900.0, "load": 1800.0, "save": 900.0, "end": 1800.0}[phase]
        assert STUCK_SECONDS[phase] == limit
        table = RankTable(0.0, 2)
        update(table, 0.0, phase="train")
        update(table, 100.0, phase=phase)
        update(table, 100.0 + limit, phase=phase)
        assert table.stuck_rank(100.0 + limit) is None
        assert table.stuck_rank(100.1 + limit) == -1

    def test_the_most_patient_phase_counts(self) -> None:
        table, now, step = trained()
        phases = ["train", "save", "train"]
        update(table, now + 1, phase=phases, step=step)
        update(table, now + 101, phase=phases, step=step)
        assert table.stuck_rank(now + 101) is None

    def test_the_first_step_may_compile(self) -> None:
        table = RankTable(0.0, 2)
        update(table, 1.0, phase="train")
        assert FIRST_STEP_SECONDS == 1800.0
        update(table, 1801.0, phase="train")
        assert table.stuck_rank(1801.0) is None
        assert table.stuck_rank(1801.1) == -1

    def test_while_one_rank_loads_the_first_step_is_not_waited_for(self) -> None:
        """The patience is that of loading, not of a compilation."""
        table = RankTable(0.0, 2)
        update(table, 1.0, phase=["train", "load"])
        update(table, 1801.5, phase=["train", "load"])
        assert table.stuck_rank(1801.5) == -1

    def test_training_is_stuck_after_five_seconds_or_three_steps(self) -> None:
        table, now, step = trained()
        update(table, now + 5, phase="train", step=step)
        assert table.stuck_rank(now + 5.0) is None
        assert table.stuck_rank(now + 5.1) == -1
        table, now, step = trained(step_seconds=10.0)
        update(table, now + 30, phase="train", step=step)
        assert table.stuck_rank(now + 30.0) is None
        assert table.stuck_rank(now + 30.1) == -1

    def test_a_rank_that_missed_two_heartbeats_is_the_cause(self) -> None:
        table, now, step = trained()
        update(table, now + 5, phase="train", step=step, age_ms=[0, 2000, 2400])
        assert table.stuck_rank(now + 5.1) == -1
        assert table.stuck_rank(now + 5.2) == 2

    def test_a_rank_that_does_not_wait_is_the_cause(self) -> None:
        table, now, step = trained()
        update(table, now + 5, phase="train", step=step, waiting=[0.9, 0.1, 0.9])
        assert table.stuck_rank(now + 5.1) == 1


class TestSlow:
    def slowed(self, factor: float, samples: int = 4, **facts: Any) -> int | None:
        """The slow rank after some samples of steps that take longer."""
        table, now, step = trained()
        facts = {"waiting": [0.5, 0.1, 0.5], **facts}
        for number in range(1, samples + 1):
            here = {"phase": "train", "step": step + number, "step_seconds": factor, **facts}
            update(table, now + number, **here)
        return table.slow_rank()

    def test_steps_are_slow_from_one_and_a_half_times_the_usual(self) -> None:
        assert self.slowed(1.5) is None
        assert self.slowed(1.51) == 1

    def test_four_samples_in_a_row_count(self) -> None:
        assert self.slowed(2.0, samples=3) is None
        assert self.slowed(2.0, samples=4) == 1

    def test_before_the_usual_time_is_known_nothing_is_slow(self) -> None:
        table, _, _ = trained(step_seconds=5.0, steps=10)
        table.waiting[:] = [0.5, 0.1, 0.5]
        assert table.slow_rank() is None
        table = RankTable(0.0, 3, [0.1] * 12)
        table.waiting[:] = [0.5, 0.1, 0.5]
        table.recent.extend([1.0, 1.0, 1.0])
        assert table.slow_rank() is None

    def test_the_others_wait_for_a_quarter_of_the_time(self) -> None:
        assert self.slowed(2.0, waiting=[0.25, 0.1, 0.25]) == 1
        assert self.slowed(2.0, waiting=[0.24, 0.1, 0.25]) is None

    def test_the_slow_rank_waits_at_most_half_as_long(self) -> None:
        assert self.slowed(2.0, waiting=[0.5, 0.25, 0.5]) == 1
        assert self.slowed(2.0, waiting=[0.5, 0.26, 0.5]) is None

    def test_where_two_do_not_wait_none_stands_out(self) -> None:
        assert self.slowed(2.0, waiting=[0.1, 0.1, 0.5]) is None

    def test_while_a_share_is_unknown_none_stands_out(self) -> None:
        assert self.slowed(2.0, waiting=[0.5, 0.1, math.nan]) is None

    def test_a_single_rank_waits_for_nobody(self) -> None:
        table = RankTable(0.0, 1, [0.1] * 12)
        table.waiting[:] = [0.0]
        table.recent.extend([1.0] * 4)
        assert table.slow_rank() is None
