"""The pace of a variant: seconds of a training step on this machine, for budgets in seconds."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.cluster.engines import JobSpec, connect
from tumen.core.artifact import Manifest, verify, writing
from tumen.core.errors import TrainError
from tumen.core.shape import Shape
from tumen.pipeline.stage import Stage, Work
from tumen.pipeline.training.tier_job import job_folder
from tumen.recipe import Fleet, Train

STEPS = 8  # that are measured
POLL_SECONDS = 0.1
FILE = "pace.json"


@dataclass(frozen=True)
class PaceStage(Stage):
    """A short training on random tokens, started as the real one will be.

    It is kept, so that a resumed run asks for the same steps.
    """

    kind = "calibration"
    maker = 1
    shape: Shape
    train: Train
    fleet: Fleet
    recipe_name: str

    def settings(self) -> Any:
        """Return the shape, and the train section with the steps that are measured."""
        return {"shape": self.shape, "train": self.train.model_copy(update={"steps": STEPS})}

    def make(self, work: Work) -> Manifest:
        """Measure the seconds of a step.

        Raises:
            TrainError: the measurement failed; says why.
        """
        measured = self._measure(job_folder(work.run, self.name))
        folder = work.run / self.name
        facts = {"step_seconds": measured["step_seconds"]}
        with writing(folder, self.kind, work.inputs, [], facts) as out:
            (out / FILE).write_text(json.dumps(measured, indent=1), "utf-8")
        return verify(folder, self.kind)

    def _measure(self, folder: Path) -> dict[str, Any]:
        """Run `tumen.train.calibrate` as a job; return what it printed."""
        question: dict[str, Any] = {
            name: part.model_dump() for name, part in self.settings().items()
        }
        question["steps"] = STEPS
        command = (sys.executable, "-m", "tumen.train.calibrate", json.dumps(question))
        shutil.rmtree(folder, ignore_errors=True)
        engine = connect(self.fleet.engine, self.fleet)
        name = f"{self.recipe_name}-{self.name.replace('/', '-')}"
        job = engine.submit(JobSpec(name, command, folder))
        try:
            while not (status := engine.status(job)).ended:
                time.sleep(POLL_SECONDS)
        finally:
            engine.cancel(job)
        lines = engine.logs(job).strip().splitlines() or [status.reason]
        if status.state != "done":
            raise TrainError(f"{self.name}: {lines[-1]} (log: {folder / 'log'})")
        measured: dict[str, Any] = json.loads(lines[-1])
        return measured


def read_pace(stage_folder: Path) -> float:
    """Return the measured seconds of a step."""
    seconds: float = json.loads((stage_folder / FILE).read_text("utf-8"))["step_seconds"]
    return seconds
