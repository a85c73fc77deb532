"""The heart of a rank: a thread that tells the rank's agent, about once a second and at every change of phase, how it is.

It also looks, five times a second, at what the main thread is doing: found inside a collective, it waits for other ranks. So the
loop itself does nothing but note a step. Without TUMEN_AGENT it beats for nobody and there is no thread.
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

BEAT_SECONDS, LOOK_SECONDS = 1.0, 0.2
ENOUGH = 10  # looks until a share is told
MEETING = (
    "distributed_c10d.py",
    "_functional_collectives.py",
)  # torch's files in which a thread waits for others


class HeartbeatSender:
    """What a rank says of itself. The loop calls `phase` and `tick`; `step` and `attempt` may be read.

    Args:
        rank, attempt: this process's.
        agent: host and port that beats go to; None: nobody.
        secret: of the run.
    """

    def __init__(
        self,
        rank: int = 0,
        attempt: int = 0,
        agent: tuple[str, int] | None = None,
        secret: bytes = b"",
    ) -> None:
        self.rank, self.attempt, self.step = rank, attempt, 0
        self._said = Heartbeat(rank, attempt, os.getpid())
        self._last = time.monotonic()
        self._since = (
            0,
            0.0,
        )  # steps since the last beat, and their seconds; both threads set it whole, so a race costs one reset
        self._waiting = WaitingShare()
        self._news, self._over = threading.Event(), False
        self._main = threading.main_thread().ident or 0
        if agent:
            self._agent, self._sender = agent, MessageSender(secret, f"rank-{rank}")
            self._socket = socket.socket(
                socket.AF_INET6 if ":" in agent[0] else socket.AF_INET, socket.SOCK_DGRAM
            )
            self._socket.setblocking(False)
            threading.Thread(target=self._beat, name="heart", daemon=True).start()

    def begin_phase(self, name: str) -> None:
        """A phase of `core.pulse.PHASES` begins; told at once. What was no step does not count into the next one's time."""
        self._said = self._said._replace(phase=name)
        self._last = time.monotonic()
        self._news.set()

    def finish_step(self, step: int, loss: float) -> None:
        """`step` steps are done. A beat tells the mean of its steps: one that stumbles now and then is slow, too."""
        now = time.monotonic()
        self.step = step
        steps, seconds = self._since
        self._since = steps, seconds = steps + 1, seconds + now - self._last
        self._said = self._said._replace(step=step, loss=loss, step_seconds=seconds / steps)
        self._waiting.step()
        self._last = now

    def stop(self) -> None:
        """Beat no more."""
        self._over = True
        self._news.set()

    def _beat(self) -> None:
        due = 0.0
        while not self._over:
            if self._news.is_set() or time.monotonic() >= due:
                self._news.clear()
                due = time.monotonic() + BEAT_SECONDS
                self._send()
            self._news.wait(LOOK_SECONDS)
            self._waiting.look(self._main)

    def _send(self) -> None:
        beat, self._since = self._said._replace(waiting=self._waiting.share), (0, 0.0)
        with contextlib.suppress(
            OSError
        ):  # the agent is gone, and whoever started both notices; or the network: the next will do
            self._socket.sendto(self._sender.message(self.attempt, [beat]), self._agent)


class WaitingShare:
    """The share of the looks at which the main thread was in a collective: over whole steps, `ENOUGH` looks or more.

    A step that lasts twice as long as that is told while it lasts: in a hang it says who waits, and who is waited for.
    """

    def __init__(self) -> None:
        self.share = math.nan
        self._looks = self._waited = 0
        self._usual = ENOUGH

    def look(self, thread: int) -> None:
        """Look at a thread once."""
        frame = sys._current_frames().get(thread)
        self._looks += 1
        self._waited += frame is not None and frame.f_code.co_filename.endswith(MEETING)
        if self._looks >= 2 * self._usual:
            self.share = self._waited / self._looks

    def step(self) -> None:
        """A step ends."""
        if self._looks >= ENOUGH:
            self.share, self._usual = self._waited / self._looks, self._looks
            self._looks = self._waited = 0


@functools.cache
def current() -> HeartbeatSender:
    """This process's heart, as its environment says; made when it is first asked for.

    Raises:
        EngineError: TUMEN_AGENT is no address, or the secret is missing.
    """
    rank, attempt = int(os.environ.get("RANK", "0")), int(os.environ.get(ATTEMPT, "0"))
    if not os.environ.get(AGENT):
        return HeartbeatSender(rank, attempt)
    return HeartbeatSender(
        rank,
        attempt,
        address_of(os.environ[AGENT]),
        read_secret(Path(os.environ.get(SECRET, "secret"))),
    )
