"""`python -m tumen.cluster.agents ... -- COMMAND`: the agent of the node that --node names, or of all nodes, here on one machine.

One that is killed comes back while somebody watches the job; the first that fails ends all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from tumen.cluster.agents.agent import AgentOptions, manned, parse_options
from tumen.cluster.engines.local import die_with_parent
from tumen.cluster.order import WATCHER_FILE
from tumen.core import lifetime


class Agents:
    """Processes, an agent each."""

    def __init__(self, post: AgentOptions) -> None:
        self.watcher = post.folder / WATCHER_FILE
        self.told = False
        self.code = 0
        self.posts: dict[int, AgentOptions] = {}  # by pid
        signal.signal(signal.SIGTERM, self._tell)
        all_here = [
            replace(post, node=f"n{number}", node_rank=number) for number in range(post.nodes)
        ]
        for one in all_here if post.node == AgentOptions.node else [post]:
            self._start(one)

    def run(self) -> int:
        """Until all have ended; returns the exit code of the first that failed, or 0."""
        while self.posts:
            pid, status = os.wait()
            post = self.posts.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code < 0 and not self.told and self.watcher.exists():
                self._start(post)
            elif code and not self.code:
                self.code = code if code > 0 else 128 - code
                self._tell()
        return self.code

    def _start(self, post: AgentOptions) -> None:
        parent = os.getpid()
        pid = os.fork()  # nothing is imported twice; this process has one thread
        if pid:
            self.posts[pid] = post
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        lifetime.die_with_parent(parent)
        os._exit(manned(post))

    def _tell(self, *_: object) -> None:
        """SIGTERM is passed on."""
        self.told = True
        for pid in self.posts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agents of all nodes; returns the exit code."""
    die_with_parent()
    return Agents(parse_options(sys.argv[1:] if arguments is None else arguments)).run()


if __name__ == "__main__":
    sys.exit(main())
