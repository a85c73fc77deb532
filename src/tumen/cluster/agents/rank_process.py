"""One process of a node: a rank at work, or a standby that has imported everything and waits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tumen.core import lifetime
from tumen.heartbeat import messages

CHUNK_BYTES = 65536
EARLY_BYTES = 65536  # of a standby's output that are kept until it becomes a rank
REPORTED_AGE_SECONDS = 1.0  # of a rank that is alive but gets too little CPU time
RAN_SECONDS = 2.5  # a rank that used the CPU so recently is alive
STARVED_SECONDS = 30.0  # and may send no heartbeat for so long


class RankProcess:
    """A started process. Times are of time.monotonic().

    Args:
        command: to run.
        environment: variables beside those of this process; a standby gets its own later.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.number = -1  # its rank; -1 while it is a standby
        self.log = Path(os.devnull)
        self.heartbeat: messages.Heartbeat | None = None
        self.started = time.monotonic()
        self.last_heartbeat = self.started
        self.stopped_since = 0.0  # 0 while it is not stopped
        self._cpu_ticks = 0
        self._last_ran = 0.0
        self._early_output = b""
        self._partial_line = b""
        self.process = _start(command, {**os.environ, **(environment or {})})
        # Both are pipes, see `_start`.
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input = self.process.stdin
        self.output = self.process.stdout
        os.set_blocking(self.output.fileno(), False)

    def become(self, number: int, log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Become a rank.

        Args:
            number: the rank.
            log: file for all that it prints.
            environment: is sent to a standby; None for a process that has it already.
        """
        self.number = number
        self.log = log
        self.started = time.monotonic()
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        self._print(self._early_output)
        # A standby may be dead by now, which its exit code will show.
        with contextlib.suppress(OSError):
            if environment:
                self.input.write(json.dumps(environment).encode() + b"\n")
            self.input.close()

    def receive(self, heartbeat: messages.Heartbeat) -> None:
        """Take a heartbeat."""
        self.heartbeat = heartbeat
        self.last_heartbeat = time.monotonic()

    def exit_code(self) -> int | None:
        """Return its exit code, 128 + signal where it was killed, None while it is alive."""
        code = self.process.poll()
        if code is None or code >= 0:
            return code
        return 128 - code  # subprocess has -signal, a shell 128 + signal

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGKILL also to all that it started, any other to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self.process.pid, number)
            elif self.process.poll() is None:
                self.process.send_signal(number)

    def check_stopped(self) -> None:
        """Note whether it is stopped (SIGSTOP).

        It is where it is in state T and had no CPU time since the last check.
        """
        now = time.monotonic()
        fields = lifetime.stat_fields(self.process.pid)
        ticks = 0
        if fields:
            ticks = int(fields[11]) + int(fields[12])  # utime and stime, see proc(5)
        if ticks != self._cpu_ticks:
            self._cpu_ticks = ticks
            self._last_ran = now
            self.stopped_since = 0.0
        elif not fields or fields[0] != "T":
            self.stopped_since = 0.0
        elif not self.stopped_since:
            self.stopped_since = now

    def heartbeat_age(self, now: float) -> float:
        """Return the seconds since its last heartbeat.

        A rank that runs without sending gets too little CPU time, which is not silence yet.
        """
        age = now - self.last_heartbeat
        runs = now - self._last_ran < RAN_SECONDS
        if runs and age < STARVED_SECONDS:
            return min(age, REPORTED_AGE_SECONDS)
        return age

    def drain_output(self) -> bool:
        """Pass on what it printed; returns whether more may follow."""
        try:
            while chunk := self.output.read(CHUNK_BYTES):
                if self.number < 0:
                    self._early_output = (self._early_output + chunk)[-EARLY_BYTES:]
                else:
                    self._print(chunk)
        except (OSError, ValueError):
            return False
        return chunk is None  # b"" is the end of the pipe

    def close(self) -> None:
        """Pass on the rest of its output after its end, and close its pipes."""
        self.drain_output()
        if self._partial_line:
            self._print(b"\n")
        for pipe in (self.input, self.output):
            with contextlib.suppress(OSError):
                pipe.close()

    def _print(self, chunk: bytes) -> None:
        """Write output: raw into its own log, by lines with its rank into the job's."""
        # A full disk must not stop the training.
        with contextlib.suppress(OSError), open(self.log, "ab") as log:
            log.write(chunk)
        *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
        with contextlib.suppress(OSError):
            for line in lines:
                os.write(1, b"[rank %d] %s\n" % (self.number, line))


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process whose input and output are pipes. It ends with this one.

    Args:
        command: of a rank or a standby.
        environment: all variables of the process.
    """
    parent = os.getpid()
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # so that a kill reaches what it started
        preexec_fn=lambda: lifetime.die_with_parent(parent),
    )
