"""The processes of one node: the ranks of the present attempt, and standbys for the next one."""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tumen.cluster.agents.rank_process import RankProcess
from tumen.cluster.job_files import FAULTS_FOLDER
from tumen.heartbeat import AuthenticatedMessage, Heartbeat

MOST_REASON_CHARACTERS = 300


class RankGroup:
    """Starts, observes and ends the ranks of a node.

    Args:
        command: of a rank.
        standby: whether the command takes --standby.
        selector: the output of each process is registered with it, with the process as data.
    """

    def __init__(
        self, command: Sequence[str], standby: bool, selector: selectors.BaseSelector
    ) -> None:
        self.command = tuple(command)
        self.standby = standby
        self.selector = selector
        self.ranks: list[RankProcess] = []
        self.standbys: list[RankProcess] = []
        self.attempt = 0
        self.first = 0  # rank of the first process
        self.exits: dict[int, list[Any]] = {}  # rank -> [rank, exit code, reason] of this attempt

    @property
    def is_busy(self) -> bool:
        """Whether a rank is still alive."""
        return any(rank.number not in self.exits for rank in self.ranks)

    @property
    def is_training(self) -> bool:
        """Whether there are ranks and all of them train."""
        if not self.ranks:
            return False
        return all(rank.heartbeat and rank.heartbeat.phase == "train" for rank in self.ranks)

    def start(
        self,
        attempt: int,
        first: int,
        count: int,
        environment: Callable[[int], Mapping[str, str]],
        logs: Path,
    ) -> None:
        """Start the ranks of a new attempt, from standbys where the command allows it.

        Args:
            attempt: its number.
            first: rank of the first process.
            count: number of ranks of this node.
            environment: returns the variables of a local rank.
            logs: folder for the logs of this attempt.
        """
        self.attempt = attempt
        self.first = first
        self.exits = {}
        if self.standby:
            self.ensure_standbys(count)
        for local in range(count):
            variables = environment(local)
            number = first + local
            log = logs / f"{number}.log"
            if self.standby:
                # It has imported everything, so that it trains some seconds sooner.
                rank = self.standbys.pop(0)
                rank.become(number, log, variables)
            else:
                rank = self._start_process(self.command, variables)
                rank.become(number, log)
            self.ranks.append(rank)

    def ensure_standbys(self, count: int) -> None:
        """Replace dead standbys, so that `count` wait for their environment."""
        for one in list(self.standbys):
            if one.exit_code() is not None:
                self.standbys.remove(one)
                self._close(one)
        command = (*self.command, "--standby")
        while self.standby and len(self.standbys) < count:
            started = self._start_process(command)
            self.standbys.append(started)

    def _start_process(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> RankProcess:
        """Start a process, and listen to its output.

        Args:
            command: of a rank or a standby.
            environment: variables beside those of this process.
        """
        started = RankProcess(command, environment)
        self.selector.register(started.output, selectors.EVENT_READ, started)
        return started

    def receive_heartbeats(self, message: AuthenticatedMessage) -> bool:
        """Take heartbeats of a rank; returns whether the watcher should know at once.

        A heartbeat of another attempt, or in the name of another rank, is ignored.
        """
        news = False
        for heartbeat in message.heartbeats:
            place = heartbeat.rank - self.first
            is_here = 0 <= place < len(self.ranks)
            if not is_here or heartbeat.attempt != self.attempt:
                continue
            if message.sender != f"rank-{heartbeat.rank}":
                continue
            rank = self.ranks[place]
            before = rank.heartbeat
            if before is None or _is_news(before, heartbeat):
                news = True
            rank.receive(heartbeat)
        return news

    def reap(self, job: Path) -> list[RankProcess]:
        """Note the ranks that ended, with the reason that they left in the job's folder.

        Args:
            job: folder of the job.

        Returns:
            Those that ended since the last call.
        """
        ended = []
        for rank in self.ranks:
            if rank.number in self.exits:
                continue
            code = rank.exit_code()
            if code is None:  # it is alive
                continue
            self._close(rank)
            reason = read_exit_reason(job, rank.number, self.attempt)
            self.exits[rank.number] = [rank.number, code, reason]
            ended.append(rank)
        return ended

    def terminate(self) -> None:
        """Ask the ranks for a checkpoint and to end (SIGTERM)."""
        for rank in self.ranks:
            rank.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every rank, stopped ones too, and all that they started."""
        self._kill(self.ranks)
        self.ranks = []

    def close(self) -> None:
        """End everything, standbys included."""
        self._kill([*self.ranks, *self.standbys])
        self.ranks = []
        self.standbys = []

    def _kill(self, processes: Sequence[RankProcess]) -> None:
        """Kill processes: first a signal to all, then a wait for each, so that all end at once."""
        for one in processes:
            one.send_signal(signal.SIGKILL)
        for one in processes:
            one.process.wait()
            self._close(one)

    def _close(self, one: RankProcess) -> None:
        """Close a process's pipes; its output is registered no more."""
        # KeyError, ValueError: its output ended before, and was unregistered then.
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(one.output)
        one.close()


def _is_news(before: Heartbeat, now: Heartbeat) -> bool:
    """Whether a rank changed its phase, or did its first step.

    Args:
        before: the last heartbeat of a rank.
        now: the next one.
    """
    first_step = (before.step == 0) != (now.step == 0)
    return before.phase != now.phase or first_step


def read_exit_reason(job: Path, rank: int, attempt: int) -> dict[str, Any] | None:
    """Return why a rank ended itself {kind, why, step}, None where it left no valid reason.

    Args:
        job: folder of the job.
        rank: that ended.
        attempt: that it belonged to.
    """
    path = job / FAULTS_FOLDER / f"{rank}-{attempt}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        return {
            "kind": str(found["kind"])[:MOST_REASON_CHARACTERS],
            "why": str(found["why"])[:MOST_REASON_CHARACTERS],
            "step": int(found["step"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
