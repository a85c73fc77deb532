"""Training a tier: the job is submitted or followed, its steps and faults are shown, its end is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TINY
from tests.pipeline.engines import PretendCluster, PretendEngine

from tumen.cluster.engines import JobSpec, JobStatus
from tumen.core.artifact import writing
from tumen.core.errors import PlanError, TrainError
from tumen.core.events import Events
from tumen.pipeline.stage import Work
from tumen.pipeline.stages import find_training, stages
from tumen.pipeline.training import tier as tier_module
from tumen.pipeline.training.learn import resized, with_plan_mesh
from tumen.pipeline.training.tier import TrainingStage, decisive
from tumen.recipe import load_recipe

RUNNING = JobStatus("running")
DONE = JobStatus("done", 0)
Use = Callable[[PretendEngine], PretendEngine]


class Progress:
    """Progress that keeps the lines it is shown."""

    live = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def stage() -> TrainingStage:
    return find_training(stages(load_recipe(TINY)), "cloud")


@pytest.fixture
def shown() -> list[tuple[int, int, str]]:
    """What the display of the stage is told."""
    return []


@pytest.fixture
def work(tmp_path: Path, shown: list[tuple[int, int, str]]) -> Work:
    def update(step: int, steps: int, text: str) -> None:
        shown.append((step, steps, text))

    events = Events(tmp_path / "events.jsonl")
    return Work(tmp_path, "asked", events, Progress(), update)  # type: ignore[arg-type]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Puts an engine in the place of the recipe's; nothing waits between two looks."""
    monkeypatch.setattr(tier_module, "LOCAL_POLL_SECONDS", 0.0)
    monkeypatch.setattr(tier_module, "CLUSTER_POLL_SECONDS", 0.0)

    def connect(engine: PretendEngine) -> PretendEngine:
        monkeypatch.setattr(tier_module, "connect", lambda name, fleet: engine)
        return engine

    return connect


def trains(work: Work) -> Callable[[JobSpec], None]:
    """What a job does that makes the checkpoint of its tier."""

    def train(job: JobSpec) -> None:
        with writing(work.run / "cloud", "checkpoint", work.inputs, []) as out:
            (out / "weights").write_text("w")

    return train


class TestJob:
    def test_it_is_submitted_followed_and_cleared_away(
        self, stage: TrainingStage, work: Work, use: Use
    ) -> None:
        engine = use(PretendEngine([RUNNING, RUNNING, DONE], on_submit=trains(work)))
        manifest = stage.make(work)
        assert (manifest.kind, manifest.inputs) == ("checkpoint", "asked")
        assert [job.name for job in engine.submitted] == ["tiny-cloud"]
        assert engine.cancelled == [str(work.run / "jobs" / "cloud")]

    def test_what_an_earlier_job_left_is_removed_first(
        self, stage: TrainingStage, work: Work, use: Use
    ) -> None:
        old = work.run / "jobs" / "cloud" / "log"
        old.parent.mkdir(parents=True)
        old.write_text("of an earlier job")
        use(PretendEngine([DONE], on_submit=trains(work)))
        stage.make(work)
        assert not old.exists()

    def test_a_job_that_is_alive_on_a_cluster_is_followed(
        self, stage: TrainingStage, work: Work, use: Use
    ) -> None:
        trains(work)(stage.job(work.run))
        engine = use(PretendCluster([RUNNING, RUNNING, DONE]))
        stage.make(work)
        assert engine.submitted == []

    def test_one_that_ended_on_a_cluster_is_submitted_again(
        self, stage: TrainingStage, work: Work, use: Use
    ) -> None:
        engine = use(PretendCluster([JobStatus("failed", 1), DONE], on_submit=trains(work)))
        stage.make(work)
        assert len(engine.submitted) == 1

    def test_an_interrupt_takes_the_job_with_it(
        self, stage: TrainingStage, work: Work, use: Use, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = use(PretendEngine([RUNNING]))

        def interrupt(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stage.make(work)
        assert engine.cancelled == [str(work.run / "jobs" / "cloud")]

    @pytest.mark.parametrize(
        ("status", "log", "why"),
        [
            (JobStatus("failed", 3), "tumen: the loss is NaN\nbye", "the loss is NaN"),
            (JobStatus("failed", 3, "out of memory"), "no error of ours", "out of memory"),
            (JobStatus("cancelled"), "last line", "last line"),
            (JobStatus("lost", None, "node is gone"), "", "node is gone"),
        ],
    )
    def test_a_failure_says_why_and_where_its_log_is(
        self, stage: TrainingStage, work: Work, use: Use, status: JobStatus, log: str, why: str
    ) -> None:
        use(PretendEngine([status], log=log))
        with pytest.raises(TrainError) as caught:
            stage.make(work)
        folder = work.run / "jobs" / "cloud"
        assert str(caught.value) == f"cloud: {why} (log: {folder / 'log'})"

    def test_the_watchers_reason_comes_before_the_log(
        self, stage: TrainingStage, work: Work, use: Use
    ) -> None:
        def give_up(job: JobSpec) -> None:
            job.folder.mkdir(parents=True)
            rows = [
                {"event": "decided", "action": "restart", "why": "crash"},
                {"event": "decided", "action": "give_up", "why": "crash 3 times at step 5"},
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (job.folder / "watch.jsonl").write_text(text)

        use(PretendEngine([JobStatus("failed", 1)], log="tumen: other", on_submit=give_up))
        with pytest.raises(TrainError, match="cloud: crash 3 times at step 5"):
            stage.make(work)


class TestDisplay:
    def step(self, work: Work, tier: str = "cloud", **facts: Any) -> None:
        row = {"step": 5, "steps": 8, "loss": 2.5, "seconds_left": 90.0, "tokens_per_second": 12345}
        work.events.emit("step", tier=tier, **{**row, **facts})

    def follow(self, stage: TrainingStage, work: Work, use: Use, job: Callable[[], None]) -> None:
        def train(spec: JobSpec) -> None:
            trains(work)(spec)
            job()

        use(PretendEngine([RUNNING, DONE], on_submit=train))
        stage.make(work)

    def test_the_newest_step_is_shown(
        self, stage: TrainingStage, work: Work, use: Use, shown: list[tuple[int, int, str]]
    ) -> None:
        def job() -> None:
            self.step(work, step=4)
            self.step(work, step=5)

        self.follow(stage, work, use, job)
        ((step, steps, text),) = shown
        assert (step, steps) == (5, 8)
        assert text.startswith("loss 2.500, 12,345 tokens/s, ")
        assert text.endswith(" left")

    def test_steps_of_an_earlier_job_are_not(
        self,
        stage: TrainingStage,
        work: Work,
        use: Use,
        shown: list[tuple[int, int, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: 1000.0)
            self.step(work)
        self.follow(stage, work, use, lambda: None)
        assert shown == []

    def test_steps_of_another_tier_are_not(
        self, stage: TrainingStage, work: Work, use: Use, shown: list[tuple[int, int, str]]
    ) -> None:
        self.follow(stage, work, use, lambda: self.step(work, tier="device"))
        assert shown == []

    def test_asking_the_teacher_is_shown(
        self, stage: TrainingStage, work: Work, use: Use, shown: list[tuple[int, int, str]]
    ) -> None:
        emit = work.events.emit
        self.follow(stage, work, use, lambda: emit("logits", tier="teacher", step=2, steps=9))
        assert shown == [(2, 9, "logits of teacher")]


class TestWatcher:
    """Several ranks on this machine are watched; one rank, or a cluster's, is not."""

    @pytest.fixture
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
        """Whether a watcher was asked for; its rows are two of a fault and one about itself."""
        asked: list[bool] = []

        class Watcher:
            def new_rows(self) -> list[dict[str, Any]]:
                fault = {"kind": "crash", "rank": 1, "node": "n0", "step": 5, "why": "killed"}
                return [
                    {"event": "watch", "state": "started", "attempt": 1},
                    {"event": "fault", **fault},
                ]

        @contextmanager
        def watch(run: Path, tier: str, job: JobSpec, needed: bool) -> Iterator[Watcher | None]:
            asked.append(needed)
            yield Watcher() if needed else None

        monkeypatch.setattr(tier_module, "watched", watch)
        monkeypatch.setattr(tier_module, "announce_watcher", lambda folder: None)
        return asked

    @pytest.mark.parametrize(
        ("engine", "ranks", "needed"),
        [(PretendEngine, 1, False), (PretendEngine, 2, True), (PretendCluster, 2, False)],
    )
    def test_who_is_watched(
        self,
        work: Work,
        use: Use,
        watched: list[bool],
        engine: type[PretendEngine],
        ranks: int,
        needed: bool,
    ) -> None:
        changes = [f"family.cloud.train.mesh.dp={ranks}", "fleet.accelerators='cpu:2'"]
        stage = find_training(stages(load_recipe(TINY, changes)), "cloud")
        # a cluster is first asked whether a job is alive
        answers = (
            [JobStatus("lost"), RUNNING, DONE] if engine is PretendCluster else [RUNNING, DONE]
        )
        use(engine(answers, on_submit=trains(work)))
        stage.make(work)
        assert watched == [needed]
        lines = work.progress.lines  # type: ignore[attr-defined]
        assert lines == (["cloud: fault: crash, rank 1, node n0, step 5: killed"] if needed else [])


class TestSettings:
    @pytest.mark.parametrize("field", ["checkpoint_every", "keep", "async_checkpoint", "mesh"])
    def test_what_leaves_the_weights_as_they_are_decides_nothing(
        self, stage: TrainingStage, field: str
    ) -> None:
        assert field in stage.tier.train.model_dump()
        assert field not in decisive(stage.tier.train)

    def test_all_else_decides(self, stage: TrainingStage) -> None:
        found = decisive(stage.tier.train)
        assert {"steps", "batch_size", "seq_len", "learning_rate"} <= set(found)


class TestRanksNow:
    """A watcher may start more or fewer ranks than the recipe asks for."""

    def test_data_parallel_ranks_follow(self, stage: TrainingStage) -> None:
        section = stage.tier.train
        assert resized(section, "4").mesh.dp == 4
        assert resized(section, "") is section
        assert resized(section, "1") is section

    @pytest.mark.parametrize(("world", "why"), [("3", "3 ranks do not share"), ("x", "'x'"), ("-2", "'-2'")])  # fmt: skip
    def test_another_number_is_refused(self, stage: TrainingStage, world: str, why: str) -> None:
        with pytest.raises(PlanError, match=why):
            resized(stage.tier.train, world)

    def test_without_a_plan_the_mesh_is_the_recipes(self, stage: TrainingStage) -> None:
        assert with_plan_mesh(stage.tier.train, None) is stage.tier.train
