"""The heartbeat of a rank: a thread that sends its state to the agent.

It sends once a second, and at once when the phase changes. The same thread looks five times a
second at what the main thread is doing: inside a collective it waits for other ranks. So the
training loop only reports phases and steps. Without TUMEN_AGENT nothing is sent and there is no
thread.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import socket
import sys
import threading
import time
from pathlib import Path

from tumen.heartbeat.messages import (
    AGENT,
    ATTEMPT,
    SECRET,
    Heartbeat,
    MessageSender,
    address_of,
    read_secret,
)

HEARTBEAT_SECONDS = 1.0
LOOK_SECONDS = 0.2
LEAST_LOOKS = 10  # before a share of waiting is reported
# The files of torch in which a thread waits for other ranks.
COLLECTIVE_FILES = ("distributed_c10d.py", "_functional_collectives.py")


class HeartbeatSender:
    """Sends the state of a rank.

    The training loop calls `begin_phase` and `finish_step`.

    Args:
        rank: of this process.
        attempt: that it belongs to.
        agent: host and port that heartbeats are sent to; None: nothing is sent.
        secret: of the run.

    Attributes:
        step: number of finished steps.
    """

    def __init__(
        self,
        rank: int = 0,
        attempt: int = 0,
        agent: tuple[str, int] | None = None,
        secret: bytes = b"",
    ) -> None:
        self.rank = rank
        self.attempt = attempt
        self.step = 0
        self._heartbeat = Heartbeat(rank, attempt, os.getpid())
        self._last_step = time.monotonic()
        # Steps since the last heartbeat, and their seconds. Both threads replace the pair as a
        # whole, so a race loses one reset at most.
        self._since_sent = (0, 0.0)
        self._waiting = WaitingShare()
        self._news = threading.Event()
        self._stopped = False
        self._main_thread = threading.main_thread().ident or 0
        if agent:
            self._start(agent, secret)

    def _start(self, agent: tuple[str, int], secret: bytes) -> None:
        """Start the thread that sends."""
        self._agent = agent
        self._messages = MessageSender(secret, f"rank-{self.rank}")
        family = socket.AF_INET6 if ":" in agent[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        # A full buffer must not delay the rank: the next heartbeat says the same.
        self._socket.setblocking(False)
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def begin_phase(self, name: str) -> None:
        """Begin a phase of `messages.PHASES`, which is sent at once.

        The time until now does not count into the next step.
        """
        self._heartbeat = self._heartbeat._replace(phase=name)
        self._last_step = time.monotonic()
        self._news.set()

    def finish_step(self, step: int, loss: float) -> None:
        """Note that `step` steps are finished.

        A heartbeat has the mean time of the steps since the last one, so that a rank which is slow
        now and then is seen, too.
        """
        now = time.monotonic()
        self.step = step
        steps, seconds = self._since_sent
        steps += 1
        seconds += now - self._last_step
        self._since_sent = (steps, seconds)
        mean = seconds / steps
        self._heartbeat = self._heartbeat._replace(step=step, loss=loss, step_seconds=mean)
        self._waiting.end_step()
        self._last_step = now

    def stop(self) -> None:
        """Send no more heartbeats."""
        self._stopped = True
        self._news.set()

    def _run(self) -> None:
        due = 0.0
        while not self._stopped:
            if self._news.is_set() or time.monotonic() >= due:
                self._news.clear()
                due = time.monotonic() + HEARTBEAT_SECONDS
                self._send()
            self._news.wait(LOOK_SECONDS)
            self._waiting.look(self._main_thread)

    def _send(self) -> None:
        heartbeat = self._heartbeat._replace(waiting=self._waiting.share)
        self._since_sent = (0, 0.0)
        # Where the agent is gone, whoever started both notices; after a network error the next
        # heartbeat arrives.
        with contextlib.suppress(OSError):
            self._socket.sendto(self._messages.message(self.attempt, [heartbeat]), self._agent)


class WaitingShare:
    """The share of looks at which the main thread was in a collective, over whole steps.

    A share needs LEAST_LOOKS looks. It is also updated during a step that lasts twice as long as
    that: in a hang it tells who waits, and for whom.

    Attributes:
        share: from 0 to 1; NaN before it is known.
    """

    def __init__(self) -> None:
        self.share = math.nan
        self._looks = 0
        self._waited = 0
        self._usual_looks = LEAST_LOOKS

    def look(self, thread: int) -> None:
        """Look at a thread once."""
        # The frame that the thread runs; torch's collectives block in their Python file.
        frame = sys._current_frames().get(thread)
        self._looks += 1
        if frame is not None and frame.f_code.co_filename.endswith(COLLECTIVE_FILES):
            self._waited += 1
        if self._looks >= 2 * self._usual_looks:
            self.share = self._waited / self._looks

    def end_step(self) -> None:
        """Note that a step ended."""
        if self._looks >= LEAST_LOOKS:
            self.share = self._waited / self._looks
            # A step that lasts twice as long as this one is a hang, or close to it.
            self._usual_looks = self._looks
            self._looks = 0
            self._waited = 0


@functools.cache
def current() -> HeartbeatSender:
    """Return the sender of this process, as its environment says; it is made at the first call.

    Raises:
        EngineError: TUMEN_AGENT is not host:port, or the secret is missing.
    """
    rank = int(os.environ.get("RANK", "0"))
    attempt = int(os.environ.get(ATTEMPT, "0"))
    agent = os.environ.get(AGENT)
    if not agent:
        return HeartbeatSender(rank, attempt)
    secret = read_secret(Path(os.environ.get(SECRET, "secret")))
    return HeartbeatSender(rank, attempt, address_of(agent), secret)
