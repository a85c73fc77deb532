"""A run makes every stage that is not done, in order, and leaves the others as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from tests.conftest import TINY

from tumen.core.artifact import Manifest, verify, writing
from tumen.core.errors import InputError, PlanError, RunnerBusy, TrainError
from tumen.core.events import read
from tumen.pipeline.run import Run, check_stages, remove_leftovers, with_plan
from tumen.pipeline.stage import Stage, Update, Work
from tumen.recipe import load_recipe


class Shown:
    """Progress that keeps what it is shown."""

    def __init__(self, live: bool = False) -> None:
        self.live = live
        self.lines: list[str] = []
        self.tasks: list[str] = []

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.tasks.append("end")

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def task(self, name: str) -> Iterator[Update]:
        self.tasks.append(name)
        yield lambda step, steps, text: None


@dataclass(frozen=True)
class TextStage(Stage):
    """A stage whose artifact is a text, and which counts how often it is made."""

    kind = "corpus"
    maker = 1
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    fails: bool = False

    def settings(self) -> Any:
        return self.text

    def make(self, work: Work) -> Manifest:
        if self.fails:
            raise TrainError(f"{self.name}: failed")
        self.made.append(work.inputs)
        with writing(work.run / self.name, self.kind, work.inputs, [], dict(self.facts)) as out:
            (out / "text").write_text(self.text)
        return verify(work.run / self.name, self.kind)


def chain(first: str = "a", second: str = "b", **options: Any) -> list[TextStage]:
    """Three stages, each made from the one before."""
    return [
        TextStage("one", (), first, **options),
        TextStage("two", ("one",), second),
        TextStage("three", ("two",), "c"),
    ]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "run"
    folder.mkdir()
    return Run(load_recipe(TINY), folder)


class TestMake:
    def test_what_is_missing_is_made_in_order(self, run: Run) -> None:
        shown = Shown()
        assert run.make_stages(chain(), shown) == ["one", "two", "three"]
        assert shown.tasks == ["one", "two", "three", "end"]
        assert [line.split()[0] for line in shown.lines] == ["one", "two", "three"]

    def test_what_is_done_is_left(self, run: Run) -> None:
        run.make_stages(chain(), Shown())
        again, shown = chain(), Shown()
        assert run.make_stages(again, shown) == []
        assert [stage.made for stage in again] == [[], [], []]
        assert shown.lines == [], "a plain log is not filled with what was done before"

    def test_a_live_display_tells_what_was_done_before(self, run: Run) -> None:
        run.make_stages(chain(), Shown())
        shown = Shown(live=True)
        run.make_stages(chain(), shown)
        assert [line.split()[0] for line in shown.lines] == ["one", "two", "three"]
        assert all(line.endswith("done before") for line in shown.lines)

    def test_a_change_remakes_what_follows_from_it(self, run: Run) -> None:
        run.make_stages(chain(), Shown())
        assert run.make_stages(chain(second="B"), Shown()) == ["two", "three"]

    def test_a_parent_with_the_same_content_changes_nothing(self, run: Run) -> None:
        """A stage is made again only where its parent's digest has changed."""
        run.make_stages(chain(), Shown())
        (run.folder / "one" / "manifest.json").unlink()
        assert run.make_stages(chain(), Shown()) == ["one"]

    def test_a_damaged_artifact_is_made_again(self, run: Run) -> None:
        run.make_stages(chain(), Shown())
        (run.folder / "two" / "text").write_text("x")
        assert run.make_stages(chain(), Shown()) == ["two"]

    def test_it_stops_after_the_last_stage_that_is_asked_for(self, run: Run) -> None:
        assert run.make_stages(chain(), Shown(), until="two") == ["one", "two"]
        assert not (run.folder / "three").exists()
        assert run.make_stages(chain(), Shown(), until="two") == []

    def test_what_a_killed_run_left_is_removed_first(self, run: Run) -> None:
        (run.folder / ".two.host.7.new").mkdir()
        run.make_stages(chain()[:1], Shown())
        assert not (run.folder / ".two.host.7.new").exists()

    def test_later_stages_may_depend_on_what_earlier_ones_made(self, run: Run) -> None:
        def stages() -> Iterator[Stage]:
            yield TextStage("one", (), "a")
            yield TextStage("two", (), (run.folder / "one" / "text").read_text() + "!")

        run.make_stages(stages(), Shown())
        assert (run.folder / "two" / "text").read_text() == "a!"

    def test_a_failure_leaves_what_was_made_before(self, run: Run) -> None:
        stages = [*chain()[:1], TextStage("two", ("one",), "b", fails=True)]
        shown = Shown()
        with pytest.raises(TrainError, match="two: failed"):
            run.make_stages(stages, shown)
        assert shown.tasks[-1] == "end", "the display is closed"
        assert run.make_stages(chain(), Shown()) == ["two", "three"]

    def test_events_tell_begin_and_end_with_the_digest(self, run: Run) -> None:
        run.make_stages(chain()[:1], Shown())
        started, done = read(run.folder / "events.jsonl")
        assert (started["name"], started["state"]) == ("one", "started")
        assert (done["name"], done["state"]) == ("one", "done")
        assert done["digest"] == verify(run.folder / "one").digest
        assert 0 <= done["seconds"] < 60

    def test_a_line_tells_the_facts_that_people_ask_for(self, run: Run) -> None:
        shown = Shown()
        facts = {"vocab": 12345, "validation_loss": 1.5, "secret": 7, "train": "text"}
        run.make_stages(chain("hello", facts=facts)[:1], shown)
        assert shown.lines[0].endswith("vocab 12,345, validation loss 1.5, 5 B")


class TestFolder:
    def test_unfinished_folders_and_files_are_removed_and_nothing_else(
        self, tmp_path: Path
    ) -> None:
        for name in (".one.host.7.new", ".one.7.old", "deep/.two.host.7.new"):
            (tmp_path / name / "inside").mkdir(parents=True)
        for name in (".a.part", "deep/.b.part", ".lock", "c.part", ".hidden"):
            (tmp_path / name).touch()
        (tmp_path / "kept.new").mkdir()
        remove_leftovers(tmp_path)
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
        assert left == [".hidden", ".lock", "c.part", "deep", "kept.new"]

    def test_a_run_is_held_by_one_process(self, run: Run) -> None:
        with run.locked(), pytest.raises(RunnerBusy), run.locked():
            pass
        with run.locked():
            pass

    def test_the_recipe_is_kept_and_the_plan_beside_it(self, run: Run, tmp_path: Path) -> None:
        run.write_recipe()
        assert not (run.folder / "plan.json").exists()
        (tmp_path / "mine.json").write_text('{"name": "x"}')
        run.write_recipe(tmp_path / "mine.json")
        assert (run.folder / "plan.json").read_text() == '{"name": "x"}'
        assert json.loads((run.folder / "recipe.json").read_text())["name"] == "tiny"


class TestBefore:
    def test_a_stage_that_is_not_there_is_refused_with_those_that_are(self) -> None:
        with pytest.raises(InputError, match="--until 'bundle' is not a stage; .* corpus, token"):
            check_stages(load_recipe(TINY), "bundle")
        check_stages(load_recipe(TINY), "dataset")
        check_stages(load_recipe(TINY), None)


class TestPlan:
    def plan(self, folder: Path, **changes: Any) -> Path:
        """A plan.json for the cloud tier with two data parallel ranks."""
        layout = {"tp": 1, "pp": 1, "vpp": 1, "dp": 2, "ep": 1, "cp": 1, "micro_batch": 1}
        layout |= {"zero": 1, "recompute": "none", "schedule": "1f1b", "sequence_parallel": False}
        plan = {
            "name": "tiny/cloud",
            "batch_sequences": 8,
            "sequence_tokens": 192,
            "choices": [{"layout": layout}],
            **changes,
        }
        path = folder / "plan.json"
        path.write_text(json.dumps(plan))
        return path

    def test_its_layout_is_the_mesh_of_its_tier_alone(self, tmp_path: Path) -> None:
        recipe = load_recipe(TINY)
        planned = with_plan(recipe, self.plan(tmp_path))
        assert planned.family["cloud"].train.mesh.ranks == 2
        assert planned.family["device"] == recipe.family["device"]
        assert recipe.family["cloud"].train.mesh.ranks == 1

    def test_a_plan_for_another_tier_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="planned for 'tiny/huge', .* it has cloud, device"):
            with_plan(load_recipe(TINY), self.plan(tmp_path, name="tiny/huge"))

    def test_a_plan_for_another_batch_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="planned for 16 sequences of 192 tokens"):
            with_plan(load_recipe(TINY), self.plan(tmp_path, batch_sequences=16))
