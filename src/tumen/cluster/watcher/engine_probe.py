"""Questions to the engine in a thread of its own: an answer may take a minute, and the watcher must not wait."""

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
        many = isinstance(engine, ClusterEngine)
        self._interval = CLUSTER_ASK_SECONDS if many else LOCAL_ASK_SECONDS
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
        """Ask again when it is time, which is sooner where the nodes are needed."""
        passed = now - self._asked
        due = passed >= self._interval or (needs_nodes and passed > URGENT_ASK_SECONDS)
        if due and self._pending is None:
            self._asked = now
            self._pending = self._executor.submit(self._ask, needs_nodes)

    def forget(self) -> None:
        """Ignore the answer to a question that is about an earlier submission."""
        self._pending = None

    def _ask(self, needs_nodes: bool) -> Answer:
        try:
            status = self._engine.status(self._job_id)
            return status, self._engine.nodes() if needs_nodes else None
        except EngineError as error:
            return JobStatus("silent", reason=str(error)), None
