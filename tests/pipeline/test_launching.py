"""Launching a tier, and finding the jobs of a run again, without an engine that starts anything."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TINY
from tests.pipeline.engines import PretendCluster, PretendEngine, make_id

from tumen.cluster.engines import JobStatus
from tumen.core.artifact import writing
from tumen.core.errors import DiskError, EngineError, InputError, PlanError
from tumen.core.events import Events, read
from tumen.pipeline.jobs import launching
from tumen.pipeline.jobs.launching import (
    LaunchedJob,
    engine_name,
    find_job,
    launched_jobs,
    must_launch,
    prepare_launch,
    tier_progress,
)
from tumen.pipeline.lineage import links
from tumen.pipeline.run import Run
from tumen.recipe import load_recipe

Connect = Callable[[PretendEngine], PretendEngine]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was started and has made nothing yet."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    return Run(load_recipe(TINY), folder)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Puts an engine in the place of the recipe's."""

    def use(engine: PretendEngine) -> PretendEngine:
        monkeypatch.setattr(launching, "connect", lambda name, fleet: engine)
        return engine

    return use


def make(run: Run, *names: str) -> None:
    """Make stages of a run as the recipe asks for them, with nothing in them."""
    for name in names:
        digests = {link.stage.name: link.manifest.digest for link in links(run.recipe, run.folder) if link.manifest}  # fmt: skip
        stage = next(link.stage for link in links(run.recipe, run.folder) if link.stage.name == name)  # fmt: skip
        with writing(run.folder / name, stage.kind, stage.inputs(digests), []) as out:
            (out / "content").write_text(name)


DATA = ("corpus", "tokenizer", "dataset")


class TestWhichTier:
    def test_the_first_that_is_not_trained(self, run: Run, connect: Connect) -> None:
        engine = connect(PretendEngine())
        make(run, *DATA)
        launch = prepare_launch(run, None)
        assert (launch.stage.name, launch.engine) == ("cloud", engine)
        assert launch.job.folder == (run.folder / "jobs" / "cloud").resolve()
        make(run, "cloud")
        assert prepare_launch(run, None).stage.name == "device"

    def test_when_all_are_trained_there_is_none(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine())
        make(run, *DATA, "cloud", "device")
        with pytest.raises(InputError, match=f"{run.folder}: every tier is trained already"):
            prepare_launch(run, None)
        with pytest.raises(InputError, match="device is trained already"):
            prepare_launch(run, "device")

    def test_a_trained_tier_can_still_be_printed(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine())
        make(run, *DATA, "cloud", "device")
        launch = prepare_launch(run, "device", must_be_ready=False)
        assert launch.text() == "tiny-device on 1"

    def test_a_tier_that_is_not_there(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine())
        with pytest.raises(
            InputError, match="--tier 'x' is not a tier of tiny; it has cloud, device"
        ):
            prepare_launch(run, "x")

    def test_missing_data_are_made_by_the_recipe(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine())
        make(run, "corpus", "tokenizer")
        with pytest.raises(InputError) as caught:
            prepare_launch(run, None)
        assert str(caught.value) == (
            "cloud is trained from dataset, which is missing; "
            f"`tumen run RECIPE --run {run.folder} --until dataset` makes it"
        )

    def test_a_missing_teacher_is_launched(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine())
        make(run, *DATA)
        with pytest.raises(InputError) as caught:
            prepare_launch(run, "device")
        assert str(caught.value) == (
            "device is trained from cloud, which is missing; "
            f"`tumen launch {run.folder} --tier cloud` makes it"
        )

    def test_data_of_an_older_recipe_are_not_used(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine())
        make(run, *DATA)
        changed = Run(load_recipe(TINY, ["seed=8"]), run.folder)
        with pytest.raises(InputError, match="trained from dataset, which is stale"):
            prepare_launch(changed, None)


class TestSubmit:
    def test_the_run_records_what_was_launched(self, run: Run, connect: Connect) -> None:
        engine = connect(PretendCluster())
        make(run, *DATA)
        launch = prepare_launch(run, None)
        assert launch.on_cluster
        launch.submit()
        assert engine.submitted == [launch.job]
        (row,) = read(run.folder / "events.jsonl")
        facts = {name: row[name] for name in ("event", "tier", "nodes", "processes")}
        assert facts == {"event": "launched", "tier": "cloud", "nodes": 1, "processes": 1}

    def test_a_job_that_could_write_nothing_is_cancelled(
        self, run: Run, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = connect(PretendCluster())
        make(run, *DATA)
        launch = prepare_launch(run, None)

        def full(*_: object, **__: object) -> None:
            raise DiskError(os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Events, "emit", full)
        with pytest.raises(DiskError):
            launch.submit()
        assert engine.cancelled == [str(launch.job.folder)]

    def test_a_second_job_of_a_tier_is_refused(self, run: Run, connect: Connect) -> None:
        engine = connect(PretendCluster([JobStatus("running")]))
        make(run, *DATA)
        launch = prepare_launch(run, None)
        launch.reject_second_job()
        assert engine.asked == 0, "without a folder there is no job to ask about"
        make_id(launch.job.folder, 41)
        with pytest.raises(EngineError) as caught:
            launch.reject_second_job()
        assert str(caught.value) == (
            f"cloud is running already as job 41; `tumen cancel {run.folder}` stops it"
        )
        engine.statuses = [JobStatus("failed", 1)]
        launch.reject_second_job()


class TestJobs:
    @pytest.fixture
    def launched(self, run: Run) -> Run:
        """Both tiers have a job, the device's is older."""
        for name, seconds in (("cloud", 900), ("device", 300)):
            folder = run.folder / "jobs" / name
            folder.mkdir(parents=True)
            os.utime(folder, (seconds, seconds))
        return run

    def test_they_are_listed_oldest_first(self, launched: Run, connect: Connect) -> None:
        connect(PretendEngine())
        assert [job.tier for job in launched_jobs(launched)] == ["device", "cloud"]
        assert find_job(launched, None).tier == "cloud"
        assert find_job(launched, "device").tier == "device"

    def test_a_tier_that_was_not_launched(self, launched: Run, connect: Connect) -> None:
        connect(PretendEngine())
        (launched.folder / "jobs" / "device").rmdir()
        with pytest.raises(InputError, match="device was never launched; launched so far: cloud"):
            find_job(launched, "device")
        (launched.folder / "jobs" / "cloud").rmdir()
        with pytest.raises(InputError, match="a tier was never launched; launched so far: none"):
            find_job(launched, None)

    def test_cancelling_tells_how_the_job_was_before(self, launched: Run, connect: Connect) -> None:
        engine = connect(PretendEngine([JobStatus("running"), JobStatus("cancelled")], log="text"))
        job = find_job(launched, "device")
        assert job.logs() == "text"
        assert job.cancel() == JobStatus("running")
        assert engine.cancelled == [str(launched.folder / "jobs" / "device")]

    @pytest.mark.parametrize(
        ("engine", "expected"),
        [
            (PretendEngine([JobStatus("running")]), False),
            (PretendEngine([JobStatus("done", 0)]), True),
            (PretendCluster([JobStatus("done", 0)]), False),
        ],
    )
    def test_a_training_is_started_here_unless_it_runs_or_belongs_to_a_cluster(
        self, launched: Run, connect: Connect, engine: PretendEngine, expected: bool
    ) -> None:
        connect(engine)
        assert must_launch(launched, None) == expected

    def test_what_was_never_launched_is_started_here(self, run: Run, connect: Connect) -> None:
        connect(PretendEngine([JobStatus("running")]))
        assert must_launch(run, None)


class TestResize:
    def job(self, run: Run, engine: PretendEngine) -> LaunchedJob:
        (run.folder / "jobs" / "cloud").mkdir(parents=True, exist_ok=True)
        return LaunchedJob(run, "cloud", engine)

    def watch(self, job: LaunchedJob, *states: str) -> None:
        rows = [json.dumps({"event": "watch", "state": state}) for state in states]
        (job.folder / "watch.jsonl").write_text("".join(f"{row}\n" for row in rows))

    def requested(self, job: LaunchedJob) -> Any:
        path = job.folder / "resize.json"
        return json.loads(path.read_text())["ranks"] if path.exists() else None

    def test_the_watcher_is_asked(self, run: Run) -> None:
        job = self.job(run, PretendEngine([JobStatus("running")]))
        self.watch(job, "started")
        job.resize(4)
        assert self.requested(job) == 4

    def test_ranks_that_do_not_share_the_batch_are_refused(self, run: Run) -> None:
        job = self.job(run, PretendEngine([JobStatus("running")]))
        self.watch(job, "started")
        with pytest.raises(PlanError, match="3 ranks do not share 8 rows"):
            job.resize(3)
        assert self.requested(job) is None

    def test_a_training_that_is_over_is_not_resized(self, run: Run) -> None:
        job = self.job(run, PretendEngine([JobStatus("done", 0)]))
        self.watch(job, "started")
        with pytest.raises(EngineError, match="cloud is done; only a running training is resized"):
            job.resize(4)
        assert self.requested(job) is None

    @pytest.mark.parametrize("states", [(), ("started", "ended")])
    def test_without_a_watcher_its_command_is_named(self, run: Run, states: tuple[str]) -> None:
        job = self.job(run, PretendEngine([JobStatus("running")]))
        self.watch(job, *states)
        with pytest.raises(EngineError, match=f"start `tumen watch {run.folder}`"):
            job.resize(4)
        assert self.requested(job) is None

    def test_a_watcher_that_started_again_is_there(self, run: Run) -> None:
        job = self.job(run, PretendEngine([JobStatus("running")]))
        self.watch(job, "started", "ended", "started")
        job.resize(2)
        assert self.requested(job) == 2


class TestLines:
    def test_a_job_without_a_number_has_no_name(self, tmp_path: Path) -> None:
        assert engine_name(tmp_path) == ""
        make_id(tmp_path, 7)
        assert engine_name(tmp_path) == "job 7"

    def test_the_newest_step_of_a_tier(self, tmp_path: Path) -> None:
        events = Events(tmp_path / "events.jsonl")
        assert tier_progress(tmp_path, "cloud") == ""
        for tier, step in (("cloud", 5), ("cloud", 10), ("device", 3)):
            events.emit("step", tier=tier, step=step, steps=20, loss=2.0, seconds_left=90.0)
        assert tier_progress(tmp_path, "cloud").startswith("step 10 of 20, loss 2.000, ")
        assert tier_progress(tmp_path, "device").startswith("step 3 of 20")
        assert tier_progress(tmp_path, "other") == ""
