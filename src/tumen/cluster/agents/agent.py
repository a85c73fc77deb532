"""The agent of one node: starts its ranks, reports how they are, and follows the watcher's orders.

Without a watcher (no file `watcher` in the job's folder) it does what torchrun does without
restarts: the first rank that fails ends all, with its exit code. With one, it reports a rank that
ended and waits for an order. `python -m tumen.cluster.agents.agent ... -- COMMAND` runs one agent;
engines start `python -m tumen.cluster.agents`, which restarts it (__main__.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tumen.cluster.agents.agent_options import AgentOptions, parse_options
from tumen.cluster.agents.agent_report import heartbeats_of, identity_of, note_of
from tumen.cluster.agents.health import Checkup, examine
from tumen.cluster.agents.rank_environment import rank_environment
from tumen.cluster.agents.rank_group import RankGroup
from tumen.cluster.agents.rank_process import RankProcess
from tumen.cluster.agents.replica_store import ReplicaStore, replica_folder
from tumen.cluster.agents.watcher_link import HeartbeatInbox, WatcherLink, free_port
from tumen.cluster.engines.local import die_with_parent
from tumen.cluster.job_files import AGENT_FILE, RANKS_FOLDER, SECRET_FILE
from tumen.cluster.order import Verb
from tumen.core import fencing
from tumen.core.artifact import write_text
from tumen.core.errors import EngineError, TumenError
from tumen.heartbeat import messages

REPORT_SECONDS = 1.0
CHECK_SECONDS = 1.0
TICK_SECONDS = 0.1
ORDER_SECONDS = 20.0  # an agent waits so long for its first order, then starts by itself
GIVE_UP_SECONDS = 600.0  # for an order after a rank failed; a killed watcher is back long before
DONE_SECONDS = 15.0  # for the order to end after all ranks ended well
STANDBY_SECONDS = 5.0  # of training before new standbys start: the start of the ranks comes first


class Agent:
    """One agent at work. All but the checkup and the replica store happens in one thread.

    Raises:
        EngineError: the run has no secret.
    """

    def __init__(self, options: AgentOptions) -> None:
        self.options = options
        self.secret = messages.read_secret(options.folder / SECRET_FILE)
        self.selector = selectors.DefaultSelector()
        self.inbox = HeartbeatInbox(self.secret, self.selector)
        self.watcher = WatcherLink(options.folder, self.secret, options.node, self.selector)
        self.group = RankGroup(options.command, options.standby, self.selector)
        self.checkup: Checkup | None = None
        self.store: ReplicaStore | None = None
        self.order: Mapping[str, Any] = {}
        self.verb: Verb = "stop"
        self.world = 0  # ranks of the present attempt, on all nodes
        self.exit_code: int | None = None  # of the first rank that failed
        self.leaving = False  # after SIGTERM
        self.must_identify = True
        # The watcher learns in the first report who this is.
        self.has_news = True  # the next report is sent at once
        now = time.monotonic()
        self.began = now
        self.failed = now  # when the first rank failed
        self.next_check = now
        self.next_report = now + REPORT_SECONDS * random.random()  # agents take turns

    @property
    def attempt(self) -> int:
        """The present attempt, 0 before the first."""
        return self.group.attempt

    # -- the loop

    def run(self) -> int:
        """Run until the ranks are done, one failed for good, or the watcher orders the end.

        Returns:
            The exit code.
        """
        signal.signal(signal.SIGTERM, self._leave)
        self._begin()
        done = False
        try:
            while (code := self._final_code()) is None:
                self._wait()
                self._reap()
                self._check()
            done = self.verb == "end" or (code == 0 and not self.leaving)
            return code
        finally:
            self.group.close()
            if self.store:
                self.store.close(remove=done)  # else a later start may restore from it

    def _begin(self) -> None:
        """Start what the agent runs beside its loop: checkup, store, standbys or ranks."""
        health = examine(self.options.folder)
        self.checkup = Checkup(self.options.folder, health)
        self.checkup.start()
        if self.options.standby:  # only such a command makes replicas
            self.store = self._open_store()
        self._find_watcher()
        # Several nodes without a master cannot meet without the watcher's order.
        needs_order = self.options.nodes > 1 and not self.options.master
        if self.watcher.is_present or needs_order:
            self.group.ensure_standbys(self.options.ranks_per_node)
        else:
            self._start_without_order()

    def _open_store(self) -> ReplicaStore | None:
        """Return a store of checkpoint replicas; without one there are checkpoints on disk."""
        folder = replica_folder(self.options.folder, self.options.node)
        try:
            return ReplicaStore(folder, self.secret, self.options.address)
        except EngineError as error:
            sys.stderr.write(f"tumen: no checkpoint replicas in memory: {error}\n")
            return None

    def _final_code(self) -> int | None:
        """Return the exit code when there is nothing more to do, else None."""
        if self.verb == "end":
            return int(self.order.get("code", 0))
        if self.leaving and not self.group.is_busy:
            return self.exit_code or 0
        has_ended = bool(self.group.ranks) and not self.group.is_busy
        if not self.exit_code and not has_ended:
            return None
        if self._awaits_order(time.monotonic()):
            return None
        return self.exit_code or 0

    def _awaits_order(self, now: float) -> bool:
        """Whether the watcher may still order something after a rank failed or all ended well."""
        if not self.watcher.is_present:
            return False
        silent = self.watcher.silent_seconds(now)
        if self.exit_code:
            return min(silent, now - self.failed) <= GIVE_UP_SECONDS
        return silent <= DONE_SECONDS

    def _leave(self, *_: object) -> None:
        """On SIGTERM: the ranks take a checkpoint and end, and so does this agent."""
        self.leaving = True
        self.has_news = True
        self.group.terminate()

    def _wait(self) -> None:
        """Sleep until something arrives, and take it."""
        for key, _ in self.selector.select(TICK_SECONDS):
            if isinstance(key.data, RankProcess):
                if not key.data.drain_output():
                    self.selector.unregister(key.fileobj)
            elif key.fileobj is self.inbox.socket:
                for message in self.inbox.receive():
                    if self.group.receive_heartbeats(message):
                        self.has_news = True
            else:
                for note in self.watcher.receive():
                    self._receive_note(note)

    def _receive_note(self, note: Mapping[str, Any]) -> None:
        """Take a message of the watcher: an order, a question, or only a sign of life."""
        self.must_identify = bool(note.get("identify", False))
        if self.must_identify:
            self.has_news = True
        if "verb" in note:
            self._obey(note)

    def _check(self) -> None:
        """Do what is due: checks of ranks and watcher, a report."""
        now = time.monotonic()
        if now >= self.next_check:
            self.next_check = now + CHECK_SECONDS
            self._check_processes(now)
        if self.checkup and self.checkup.news:
            self.checkup.news = False
            self.must_identify = True  # the identity has the node's health
            self.has_news = True
        if self.has_news or now >= self.next_report:
            self.has_news = False
            # News are sent in between and do not move the turn: an order reaches all agents at
            # the same moment, and from then on all would report at once.
            while self.next_report <= now:
                self.next_report += REPORT_SECONDS
            self._report(now)

    def _check_processes(self, now: float) -> None:
        """Look at files and processes, which say nothing by themselves.

        Raises:
            TumenError: a newer start of the job owns the run.
        """
        fencing.reject_stale(self.options.folder, self.options.epoch)
        self._find_watcher()
        ranks = self.group.ranks
        for rank in ranks:
            rank.check_stopped()
        if self.group.is_training and now - ranks[0].started > STANDBY_SECONDS:
            self.group.ensure_standbys(len(ranks))
        # A watcher that never answers must not keep the job from starting.
        if self.watcher.is_present and not self.attempt:
            silent = min(now - self.began, self.watcher.silent_seconds(now))
            if silent > ORDER_SECONDS:
                self._start_without_order()

    def _find_watcher(self) -> None:
        """Read where the watcher is; a new one does not know this agent yet."""
        if self.watcher.find():
            self.must_identify = True

    # -- orders

    def _obey(self, order: Mapping[str, Any]) -> None:
        """Carry out an order once; one of an earlier attempt is ignored.

        Args:
            order: the part of this node (`Order.part`).
        """
        if self.leaving or order == self.order:
            return
        if order["attempt"] < self.attempt:
            return
        # The same attempt may get another verb, such as stop.
        is_newer = order["attempt"] > self.attempt
        self.order = order
        self.verb = order["verb"]
        if self.verb == "save-and-stop":
            self.group.terminate()
        elif self.verb == "stop":
            self.group.kill()
            self._examine_node()
        elif self.verb == "run" and is_newer:
            self.group.kill()
            self.exit_code = None
            self.world = order["world"]
            self._start_ranks(order)
        self.has_news = True

    def _start_without_order(self) -> None:
        """Begin the first attempt without a watcher."""
        each = self.options.ranks_per_node
        first = self.options.node_rank * each
        master = self.options.master or f"127.0.0.1:{free_port()}"
        self._obey(
            {
                "verb": "run",
                "attempt": self.options.attempt,
                "world": self.options.nodes * each,
                "master": master,
                "ranks": [first, each],
            }
        )

    def _start_ranks(self, order: Mapping[str, Any]) -> None:
        """Start the ranks that an order gives this node, and write down their process ids."""
        first, count = order["ranks"]
        attempt = order["attempt"]
        logs = self.options.folder / RANKS_FOLDER / self.options.node / str(attempt)

        def environment(local: int) -> dict[str, str]:
            return rank_environment(self.options, order, local, self.inbox.address, self.store)

        self.group.start(attempt, first, count, environment, logs)
        self._write_process_ids(attempt)

    def _write_process_ids(self, attempt: int) -> None:
        """Write down which processes run here. Only people and drills read it."""
        pids = {rank.number: rank.process.pid for rank in self.group.ranks}
        facts = {"pid": os.getpid(), "attempt": attempt, "ranks": pids}
        file = self.options.folder / RANKS_FOLDER / self.options.node / AGENT_FILE
        with contextlib.suppress(TumenError):
            write_text(file, json.dumps(facts))

    # -- reports

    def _reap(self) -> None:
        """Note the ranks that ended."""
        for rank in self.group.reap(self.options.folder):
            self.has_news = True
            _, code, _ = self.group.exits[rank.number]
            is_first_failure = code != 0 and self.exit_code is None
            if is_first_failure:
                self.exit_code = code
                self.failed = time.monotonic()
                self._examine_node()
                self._print_signal(rank)

    def _print_signal(self, rank: RankProcess) -> None:
        """Say which signal ended a rank; where a watcher is present, its log says so."""
        number = -rank.process.returncode
        if number > 0 and not self.watcher.is_present:
            name = signal.Signals(number).name
            sys.stderr.write(f"tumen: rank {rank.number} was ended by {name}\n")

    def _examine_node(self) -> None:
        """Check this node at once, as ranks ended.

        All nodes do so: what all of them complain about is not the fault of one.
        """
        if self.checkup:
            self.checkup.hurry.set()

    def _report(self, now: float) -> None:
        """Send the watcher a report."""
        if not self.watcher.is_connected:
            return
        note = note_of(self.group, self.verb, self.leaving, now)
        if self.must_identify:
            health = self.checkup.health if self.checkup else None
            note["identity"] = identity_of(self.options, self.group, self.world, health)
        self.watcher.send(self.attempt, heartbeats_of(self.group, now), note)


def run_agent(options: AgentOptions) -> int:
    """Run an agent to its end and return its exit code; an error becomes one line on stderr."""
    # As torchrun does: the ranks share the cores of the machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        return Agent(options).run()
    except TumenError as error:
        sys.stderr.write(f"tumen: {error}\n")
        return error.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent of one node; returns 0 or the exit code of the first rank that failed."""
    die_with_parent()
    if arguments is None:
        arguments = sys.argv[1:]
    return run_agent(parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())
