"""A drill waits for the watcher, and no longer than the training lives."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tumen.cluster import WATCH_FILE
from tumen.core.events import Events
from tumen.pipeline.jobs import drilling
from tumen.pipeline.training.tier_job import job_folder


def test_a_training_that_ends_ends_the_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone = []
    job = job_folder(tmp_path, "device")
    job.mkdir(parents=True)

    def inject(*rest: object) -> tuple[str, object]:
        assert isinstance(rest[-1], random.Random)
        time.sleep(0.01)  # events have times in milliseconds
        Events(job / WATCH_FILE).emit("watch", state="ended", attempt=1)
        return "rank 0", lambda: undone.append(True)

    monkeypatch.setattr(drilling, "inject_fault", inject)
    start = time.monotonic()
    report = drilling.drill_tier(tmp_path, "device", "rank", seed=1, patience=60)
    assert time.monotonic() - start < 30
    assert report.resumed_seconds is None
    assert undone
