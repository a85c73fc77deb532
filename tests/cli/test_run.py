"""`tumen run` and `tumen lineage` over the tiny recipe."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import TINY, Tumen

from tumen.core import events
from tumen.core.artifact import manifest_of, verify

FAMILY = Path(__file__).parents[2] / "recipes" / "family.toml"
ALL = (
    "corpus",
    "tokenizer",
    "dataset",
    "cloud",
    "device",
    "bundle-device",
    "bundle-cloud",
    "bundle-device/scorecard",
)


def digests(run: Path) -> dict[str, str]:
    return {name: manifest_of(run / name).digest for name in ALL if (run / name).exists()}


def made(run: Path, since: int = 0) -> list[str]:
    rows = list(events.read(run / "events.jsonl", "stage"))
    return [row["name"] for row in rows[since:] if row["state"] == "done"]


def test_makes_every_stage_once_and_whole(whole: Path) -> None:
    assert made(whole) == list(ALL)
    for name in ALL:
        verify(whole / name)
    left = [path.name for path in whole.glob(".*") if path.name != ".lock"]
    assert left == [], "no working folders are left"


def test_again_it_does_nothing_and_says_so(tumen: Tumen, run: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in run.rglob("*")
        if path.is_file() and path.name not in (".lock", "recipe.json")
    }
    done = tumen("run", TINY, "--run", run)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert "gate: " in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_on_types_within_a_budget_and_trained_there(tumen: Tumen, run: Path) -> None:
    """The same tier again, small: chosen, trained on what was chosen, packed to the byte, evaluated, and then done."""
    asked = "family.device.quantize={budget='100 kB', qat=true, steps=30, calibrate=32}"
    done = tumen("run", TINY, "--run", run, "--set", asked)
    assert done.returncode == 0, done.stderr
    made = [line.split()[0] for line in done.stdout.splitlines() if "made in" in line]
    assert made == ["device-quant", "device-qat", "bundle-device", "bundle-device/scorecard"]
    chosen, packed = (
        manifest_of(run / "device-quant").facts,
        manifest_of(run / "bundle-device").facts,
    )
    assert (run / "bundle-device" / "model.gguf").stat().st_size == chosen["bytes"] <= 100_000
    assert packed["quantize"] == "mixed, qat"
    assert packed["agreement_quantized"] >= 0.9
    again = tumen("run", TINY, "--run", run, "--set", asked)
    assert "nothing to do" in again.stdout


def test_a_damaged_part_alone_is_made_again(tumen: Tumen, run: Path) -> None:
    before, since = digests(run), len(list(events.read(run / "events.jsonl", "stage")))
    os.truncate(run / "bundle-cloud" / "model.gguf", 1000)
    os.truncate(run / "dataset" / "train" / "tokens.npy", 500)
    done = tumen("run", TINY, "--run", run)
    assert done.returncode == 0, done.stderr
    assert made(run, since) == ["dataset", "bundle-cloud"]
    assert digests(run) == before


def test_what_a_kill_left_is_swept(tumen: Tumen, run: Path) -> None:
    for name in (".corpus.123.new", ".device.9.old", "bundle-device/.scorecard.5.new"):
        (run / name).mkdir()
        (run / name / "big").touch()
    (run / ".recipe.json.77.part").touch()
    (run / ".cloud.work").mkdir()
    assert tumen("run", TINY, "--run", run).returncode == 0
    left = sorted(str(path.relative_to(run)) for path in run.rglob(".*"))
    assert left == [".cloud.work", ".lock"], "checkpoints to go on from are no rubbish"


def test_two_at_once_are_refused(tumen: Tumen, run: Path) -> None:
    with open(run / ".lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write("4711")
        lock.flush()
        done = tumen("run", TINY, "--run", run)
    assert done.returncode == 10
    assert done.stderr == f"tumen: {run}: process 4711 works on this run; wait for it, or stop it\n"


def test_until_a_stage_that_is_none(tumen: Tumen, tmp_path: Path) -> None:
    done = tumen("run", TINY, "--run", tmp_path / "x", "--until", "datsaet")
    assert done.returncode == 4
    assert "'datsaet' is not a stage; the stages are corpus, tokenizer" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_failed_training_is_one_line_with_its_reason(tumen: Tumen, run: Path) -> None:
    done = tumen(
        "run", TINY, "--run", run, "--set", "family.cloud.train.seq_len=8", "--until", "cloud"
    )
    assert done.returncode == 7
    assert done.stderr.startswith("tumen: cloud: an example has ")
    assert "jobs/cloud/log" in done.stderr
    assert done.stderr.count("\n") == 1
    assert verify(run / "cloud"), "the old one stands"


def test_full_disk_is_one_line_and_nothing_is_lost(
    tumen: Tumen, whole: Path, small_disk: Path
) -> None:
    for name in ("corpus", "tokenizer", "dataset"):
        shutil.copytree(whole / name, small_disk / "run" / name)
    done = tumen("run", TINY, "--run", small_disk / "run", "--until", "cloud")
    assert done.returncode in (5, 7)
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    verify(small_disk / "run" / "corpus")
    verify(small_disk / "run" / "dataset")


def test_read_only_disk(tumen: Tumen, small_disk: Path, make_read_only: Callable[[], None]) -> None:
    make_read_only()
    done = tumen("run", TINY, "--run", small_disk / "run")
    assert done.returncode == 5
    assert "read-only" in done.stderr
    assert done.stderr.count("\n") == 1


class TestLineage:
    def test_prints_the_chain(self, tumen: Tumen, whole: Path) -> None:
        said = tumen("lineage", whole).stdout.splitlines()
        assert len(said) == len(ALL) + 2
        for line, (name, digest) in zip(said[1:-1], digests(whole).items(), strict=True):
            assert digest in line
            assert f" {name} " in line
        assert said[-1] == "nothing is stale"

    def test_names_what_is_stale_after_a_change(self, tumen: Tumen, whole: Path) -> None:
        said = tumen("lineage", whole, "--set", "family.device.train.steps=9").stdout
        assert "stale: device, bundle-device, bundle-device/scorecard; " in said
        same = tumen(
            "lineage", whole, "--recipe", TINY, "--set", "family.device.train.steps=9"
        ).stdout
        assert same.splitlines()[-1] == said.splitlines()[-1]

    def test_json(self, tumen: Tumen, whole: Path) -> None:
        rows = json.loads(tumen("lineage", whole, "--json").stdout)
        by = {row["name"]: row for row in rows}
        assert [row["state"] for row in rows] == ["done"] * len(ALL)
        assert by["bundle-device"]["digest"] in by["bundle-device/scorecard"]["made_from"]
        assert by["corpus"]["digest"] in by["tokenizer"]["made_from"]
        assert by["cloud"]["made_from"] == [by["dataset"]["digest"], by["tokenizer"]["digest"]]

    def test_newest_of_several_runs(self, tumen: Tumen, whole: Path, tmp_path: Path) -> None:
        shutil.copytree(whole, tmp_path / "runs" / "tiny")
        said = tumen("lineage", folder=tmp_path)
        assert said.stdout.startswith("runs/tiny, recipe tiny")

    @pytest.mark.parametrize(("arguments", "code"), [((), 4), (("nowhere",), 2)])
    def test_no_run(
        self, tumen: Tumen, tmp_path: Path, arguments: tuple[str, ...], code: int
    ) -> None:
        done = tumen("lineage", *arguments, folder=tmp_path)
        assert done.returncode == code
        assert "tumen run" in done.stderr
        assert "Traceback" not in done.stderr


class TestTrain:
    def test_profile_leaves_the_run_alone(self, tumen: Tumen, run: Path, tmp_path: Path) -> None:
        text = (run / "recipe.json").read_text().replace('"bf16"', '"fp32"', 1)
        (run / "recipe.json").write_text(text)
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
        done = tumen("train", run, "cloud", "--profile", tmp_path / "profile")
        assert done.returncode == 0, done.stderr
        assert "# Where a step of cloud goes" in done.stdout
        assert done.stdout.startswith((tmp_path / "profile" / "profile.md").read_text())
        assert (tmp_path / "profile" / "trace.json").exists()
        assert {
            path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()
        } == before

    def test_unknown_tier(self, tumen: Tumen, whole: Path) -> None:
        for tier in ("phone", "bundle-device", "corpus"):
            done = tumen("train", whole, tier)
            assert done.returncode == 4
            assert f"there is no tier {tier!r}; the tiers are cloud, device" in done.stderr

    def test_no_run(self, tumen: Tumen, tmp_path: Path) -> None:
        done = tumen("train", tmp_path, "cloud")
        assert done.returncode == 2
        assert "`tumen run RECIPE` starts a run" in done.stderr

    def test_recipe_of_a_run_that_is_cut(self, tumen: Tumen, run: Path) -> None:
        os.truncate(run / "recipe.json", 100)
        done = tumen("train", run, "cloud")
        assert done.returncode == 2
        assert "not JSON" in done.stderr


SHORT = [
    "data.sentences=400",
    "data.validation=40",
    "data.eval_sentences=12",
    "data.languages=['en']",
    "tokenizer.vocab_size=600",
    "gate.agreement=0.5",  # after four steps many tokens are equally likely
    *(
        f"family.{tier}.train.{field}"
        for tier in ("cloud", "device")
        for field in ("steps=4", "batch_size=4", "compile=false", "threads=1")
    ),
]


@pytest.mark.slow
def test_the_family_recipe_refuses_a_teacher_that_is_not_better(
    tumen: Tumen, tmp_path: Path
) -> None:
    """The chain of tiers in a short form: nobody learns in four steps, so the gate says so."""
    changes = [word for change in SHORT for word in ("--set", change)]
    done = tumen("run", FAMILY, "--run", tmp_path / "run", *changes)
    assert made(tmp_path / "run") == list(ALL), done.stderr
    assert "the teacher is not better than the device tier: difference" in done.stdout
    refused = tumen("talk", "--run", tmp_path / "run", "turn on the light")
    assert refused.returncode != 0
    assert "the teacher is not better than the device tier" in refused.stderr
