"""Engines that start nothing: they keep what they are asked and answer what a test lets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tumen.cluster.engines import JobSpec, JobStatus, Node


class PretendEngine:
    """An engine of this machine.

    Args:
        statuses: answers of `status`, one after the other; the last one stays.
        log: answer of `logs`.
        on_submit: what a job does as soon as it is submitted.
    """

    def __init__(
        self,
        statuses: Sequence[JobStatus] = (JobStatus("done", 0),),
        log: str = "",
        on_submit: Callable[[JobSpec], None] = lambda job: None,
    ) -> None:
        self.statuses = list(statuses)
        self.log = log
        self.on_submit = on_submit
        self.submitted: list[JobSpec] = []
        self.cancelled: list[str] = []
        self.asked = 0

    def submit(self, job: JobSpec) -> str:
        self.submitted.append(job)
        self.on_submit(job)
        return str(job.folder)

    def status(self, job_id: str) -> JobStatus:
        self.asked += 1
        if len(self.statuses) > 1:
            return self.statuses.pop(0)
        return self.statuses[0]

    def logs(self, job_id: str) -> str:
        return self.log

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    def nodes(self) -> list[Node]:
        return []

    def render(self, job: JobSpec) -> str:
        return f"{job.name} on {job.nodes}"


class PretendCluster(PretendEngine):
    """An engine of many machines, whose jobs outlive the command that started them."""

    def drain(self, node: str, why: str) -> None: ...


def make_id(folder: Path, number: int) -> None:
    """Write the file in which an engine keeps its own number of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "id").write_text(f"{number}\n")
