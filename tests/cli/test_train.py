"""`tumen train` as an agent starts it: standing by, saying why it failed, over another number of ranks."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tumen.core.errors import DiskError, InputError, LossError, PeerError, PlanError, TrainError
from tumen.heartbeat import sender
from tumen.pipeline.rank import RankEvents, faults_written, stand_by
from tumen.pipeline.training.learn import resized
from tumen.recipe import Mesh, Recipe, Train


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The job's folder of rank 3 at its second start."""
    for name, value in {
        "TUMEN_JOB": str(tmp_path),
        "RANK": "3",
        "TUMEN_ATTEMPT": "1",
        "TUMEN_AGENT": "",
    }.items():
        monkeypatch.setenv(name, value)
    sender.current.cache_clear()
    sender.current().finish_step(41, 2.0)
    yield tmp_path
    sender.current.cache_clear()


def faults(job: Path) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in job.glob("faults/*")}


@pytest.mark.parametrize(
    ("error", "kind", "step"),
    [
        (LossError("nan", 40, "step 40: loss nan"), "nan", 40),
        (LossError("spike", 40, "step 40: loss 9 leaps"), "spike", 40),
        (DiskError("/x: the disk is full"), "disk", 41),
        (TrainError("no ranks"), "other", 41),
        (ValueError("out of\ncheese"), "other", 41),
    ],
)
def test_a_rank_leaves_the_reason(error: Exception, kind: str, step: int, job: Path) -> None:
    with pytest.raises(type(error)), faults_written():
        raise error
    why = str(error).splitlines()[0]
    assert faults(job) == {"3-1.json": {"kind": kind, "why": why, "step": step, "rank": 3}}


def test_that_another_rank_is_gone_is_no_reason(job: Path) -> None:
    with pytest.raises(PeerError), faults_written():
        raise PeerError("rank 1: another rank exited or hung")
    assert faults(job) == {}


def test_a_damaged_checkpoint_is_told_and_training_goes_on(job: Path) -> None:
    RankEvents(job / "events.jsonl").emit(
        "checkpoint_damaged", path="step-000040", error="cut short", action="the one before is used"
    )
    assert faults(job)["3-1.json"]["kind"] == "checkpoint"
    assert "cut short" in (job / "events.jsonl").read_text()


def test_nobody_is_told_without_an_agent(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUMEN_JOB")
    with pytest.raises(TrainError), faults_written():
        raise TrainError("no")
    assert faults(job) == {}


class TestStandby:
    def test_takes_one_line_as_its_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TUMEN_TOLD", "before")
        monkeypatch.setattr(
            sys, "stdin", io.StringIO('{"TUMEN_TOLD": "now"}\n{"TUMEN_TOLD": "later"}\n')
        )
        stand_by()
        assert os.environ["TUMEN_TOLD"] == "now"

    def test_ends_when_its_agent_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        with pytest.raises(SystemExit) as ended:
            stand_by()
        assert ended.value.code == 0

    @pytest.mark.parametrize("line", ["RANK=0", "[1]", '{"RANK": 0}', '{"RANK": '])
    def test_refuses_what_is_none(self, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(line))
        with pytest.raises(InputError, match="is not a JSON object of strings"):
            stand_by()

    def test_then_trains_and_says_why_it_failed(
        self, recipe: Recipe, corpus: Path, tokenizer: Path, dataset: Path, tmp_path: Path
    ) -> None:
        for made in (corpus, tokenizer, dataset):
            shutil.copytree(made, tmp_path / made.name)
        tier = recipe.family["cloud"]
        family = recipe.family | {
            "cloud": tier.model_copy(
                update={"train": tier.train.model_copy(update={"learning_rate": 1e30})}
            )
        }
        (tmp_path / "recipe.json").write_text(
            recipe.model_copy(update={"family": family}).model_dump_json()
        )
        line = json.dumps(
            {
                "RANK": "0",
                "WORLD_SIZE": "1",
                "TUMEN_JOB": str(tmp_path / "job"),
                "TUMEN_ATTEMPT": "2",
            }
        )
        command = [sys.executable, "-m", "tumen", "train", str(tmp_path), "cloud", "--standby"]
        done = subprocess.run(
            command, input=line + "\n", capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == TrainError.exit_code, done.stderr
        said = faults(tmp_path / "job")["0-2.json"]
        assert (said["kind"], said["rank"]) == ("nan", 0)
        assert done.stderr.strip() == f"tumen: {said['why']}"


class TestResized:
    SECTION = Train(steps=1, batch_size=8, mesh=Mesh(dp=2, ep=2, tp=2, micro_batch_size=2))

    @pytest.mark.parametrize(("world", "dp"), [("", 2), ("4", 2), ("8", 4)])
    def test_more_or_fewer_ranks_see_different_rows(self, world: str, dp: int) -> None:
        mesh = resized(self.SECTION, world).mesh
        assert mesh == self.SECTION.mesh.model_copy(update={"dp": dp})

    @pytest.mark.parametrize("world", ["0", "1", "2", "3", "6", "16"])
    def test_what_does_not_divide_is_one_line(self, world: str) -> None:
        with pytest.raises(
            PlanError,
            match=f"^{world} ranks do not share 8 rows a step on this mesh; it can have 4, 8$",
        ):
            resized(self.SECTION, world)

    def test_no_number(self) -> None:
        with pytest.raises(PlanError, match="TUMEN_WORLD"):
            resized(self.SECTION, "four")
