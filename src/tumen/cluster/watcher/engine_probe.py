"""Questions to the engine in a thread of its own.

An answer may take a minute, and the watcher must not wait for it.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor

from tumen.cluster.engines.engine import ClusterEngine, Engine, JobStatus, Node
from tumen.core.errors import EngineError

CLUSTER_ASK_SECONDS = 5.0  # between two questions to an engine of many machines
LOCAL_ASK_SECONDS = 0.5
URGENT_ASK_SECONDS = 1.0  # while an agent is silent

Answer = tuple[JobStatus, list[Node] | None]  # nodes: None where they were not asked for


class EngineProbe:
    """Asks an engine about one job, one question at a time.

    Args:
        engine: is asked.
        job_id: of the job.
        executor: runs the questions.
    """

    def __init__(self, engine: Engine, job_id: str, executor: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._job_id = job_id
        self._executor = executor
        self._interval = LOCAL_ASK_SECONDS
        if isinstance(engine, ClusterEngine):
            self._interval = CLUSTER_ASK_SECONDS
        self._asked = -math.inf
        self._pending: Future[Answer] | None = None
        self.status = JobStatus("running")  # the last answer

    def answer(self) -> Answer | None:
        """Return the engine's answer once, None where there is no new one."""
        if self._pending is None or not self._pending.done():
            return None
        status, nodes = self._pending.result()
        self._pending = None
        self.status = status
        return status, nodes

    def ask_if_due(self, now: float, needs_nodes: bool) -> None:
        """Ask again when it is time, which is sooner where the nodes are needed.

        Args:
            now: time of the watcher's clock in seconds.
            needs_nodes: whether to ask for the cluster's nodes too.
        """
        passed = now - self._asked
        is_urgent = needs_nodes and passed > URGENT_ASK_SECONDS
        is_due = is_urgent or passed >= self._interval
        if is_due and self._pending is None:
            self._asked = now
            self._pending = self._executor.submit(self._ask, needs_nodes)

    def forget(self) -> None:
        """Ignore the answer to a question that is about an earlier submission."""
        self._pending = None

    def _ask(self, needs_nodes: bool) -> Answer:
        """Ask the engine; runs in the executor's thread."""
        nodes = None
        try:
            status = self._engine.status(self._job_id)
            if needs_nodes:
                nodes = self._engine.nodes()
        except EngineError as error:
            status = JobStatus("silent", reason=str(error))
        return status, nodes
