"""`python -m tumen.cluster.agents ... -- COMMAND`: start agents, restart those that are killed.

Engines run it: for the node that --node names, or for all nodes on one machine. An agent that is
killed is restarted while a watcher is expected; the first that fails ends all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from tumen.cluster.agents.agent import run_agent
from tumen.cluster.agents.agent_options import AgentOptions, parse_options
from tumen.cluster.engines.local import die_with_parent
from tumen.cluster.job_files import WATCHER_FILE
from tumen.core import lifetime


class AgentStarter:
    """Starts agents as processes of their own, and restarts those that are killed.

    Args:
        options: of one agent; with the default node name, of as many agents as there are nodes.
    """

    def __init__(self, options: AgentOptions) -> None:
        self.watcher_file = options.folder / WATCHER_FILE
        self.stopping = False
        self.exit_code = 0
        self.agents: dict[int, AgentOptions] = {}  # by process id
        signal.signal(signal.SIGTERM, self._stop)
        for one in _options_of_all(options):
            self._start(one)

    def run(self) -> int:
        """Run until all have ended; returns the exit code of the first that failed, or 0."""
        while self.agents:
            pid, status = os.wait()
            options = self.agents.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            was_killed = code < 0  # by the signal -code
            # Without a watcher nobody would tell a new agent what to do.
            if was_killed and not self.stopping and self.watcher_file.exists():
                self._start(options)
            elif code and not self.exit_code:
                self.exit_code = 128 - code if was_killed else code
                self._stop()
        return self.exit_code

    def _start(self, options: AgentOptions) -> None:
        """Start one agent as a process of its own."""
        parent = os.getpid()
        pid = os.fork()  # nothing is imported again; this process has one thread
        if pid:
            self.agents[pid] = options
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        lifetime.die_with_parent(parent)
        os._exit(run_agent(options))

    def _stop(self, *_: object) -> None:
        """Pass on SIGTERM."""
        self.stopping = True
        for pid in self.agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _options_of_all(options: AgentOptions) -> list[AgentOptions]:
    """Return the options of each agent to start."""
    if options.node != AgentOptions.node:
        return [options]
    # Without a name of its own this machine plays all nodes of the job.
    numbers = range(options.nodes)
    return [replace(options, node=f"n{number}", node_rank=number) for number in numbers]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agents; returns the exit code."""
    die_with_parent()
    if arguments is None:
        arguments = sys.argv[1:]
    options = parse_options(arguments)
    return AgentStarter(options).run()


if __name__ == "__main__":
    sys.exit(main())
