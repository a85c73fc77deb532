"""A rank's heart: beats at once when a phase changes, says who waits, and is silent where nobody listens."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tumen.heartbeat.messages import Heartbeat, MessageReceiver
from tumen.heartbeat.sender import COLLECTIVE_FILES, LEAST_LOOKS, HeartbeatSender, WaitingShare

SECRET = bytes(range(32))


@pytest.fixture
def agent() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(30)
        yield bound


def heard(agent: socket.socket, receiver: MessageReceiver, phase: str) -> Heartbeat:
    """The next beat of a phase."""
    while True:
        message = receiver.open(agent.recv(65536))
        assert message is not None, receiver.dropped
        assert message.sender == "rank-3"
        if message.heartbeats[0].phase == phase:
            return message.heartbeats[0]


def test_a_phase_is_told_at_once_and_a_step_with_the_next_beat(agent: socket.socket) -> None:
    heart, receiver = HeartbeatSender(3, 2, agent.getsockname(), SECRET), MessageReceiver(SECRET)
    try:
        assert heard(agent, receiver, "start").step == 0
        heart.begin_phase("train")
        heart.finish_step(7, 2.5)
        while (beat := heard(agent, receiver, "train")).step == 0:
            pass
        assert (beat.rank, beat.attempt, beat.step, beat.loss) == (3, 2, 7, 2.5)
        assert 0 <= beat.step_seconds < 30
    finally:
        heart.stop()


def test_a_beat_tells_the_mean_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rank that stumbles at every fourth step, the last step alone would say that all is well."""
    now = [0.0]
    monkeypatch.setattr("tumen.heartbeat.sender.time", SimpleNamespace(monotonic=lambda: now[0]))
    heart = HeartbeatSender()
    for step, seconds in enumerate((1.3, 0.1, 0.1, 0.1), 1):
        now[0] += seconds
        heart.finish_step(step, 2.5)
    assert heart._heartbeat.step_seconds == pytest.approx(0.4)


def test_nobody_is_told_where_nobody_listens() -> None:
    before = threading.active_count()
    heart = HeartbeatSender()
    heart.begin_phase("train")
    heart.finish_step(1, 3.0)
    assert heart.step == 1
    assert threading.active_count() == before


def test_an_agent_that_is_gone_does_not_matter(agent: socket.socket) -> None:
    address = agent.getsockname()
    agent.close()
    heart = HeartbeatSender(0, 0, address, SECRET)
    heart.begin_phase("train")
    heart.stop()


class TestWaiting:
    @pytest.fixture
    def meeting(self) -> Iterator[int]:
        """A thread that is in a collective."""
        space: dict[str, Any] = {}
        code = "def wait(over, reached):\n    reached.set()\n    while not over: pass"
        exec(compile(code, f"/torch/{COLLECTIVE_FILES[0]}", "exec"), space)
        over, reached = list[int](), threading.Event()
        thread = threading.Thread(target=space["wait"], args=(over, reached))
        thread.start()
        reached.wait()
        time.sleep(0.1)
        yield thread.ident or 0
        over.append(1)
        thread.join()

    def test_is_the_share_of_looks_over_whole_steps(self, meeting: int) -> None:
        waiting = WaitingShare()
        assert math.isnan(waiting.share)
        for thread in (threading.get_ident(), meeting):
            for _ in range(LEAST_LOOKS // 2):
                waiting.look(thread)
            waiting.end_step()
        assert waiting.share == 0.5

    def test_a_step_that_hangs_is_told_while_it_lasts(self, meeting: int) -> None:
        waiting = WaitingShare()
        for _ in range(LEAST_LOOKS):
            waiting.look(threading.get_ident())
        waiting.end_step()
        assert waiting.share == 0
        for _ in range(20 * LEAST_LOOKS):
            waiting.look(meeting)
        assert waiting.share > 0.9
