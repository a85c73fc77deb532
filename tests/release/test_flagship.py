"""The flagship: it belongs to its scorecard, is small, and speaks the source's ontology."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests import ship
from tests.cli.conftest import Tumen, run, tumen, whole

from tumen.core.artifact import manifest_of
from tumen.core.errors import ArtifactError
from tumen.pipeline import default_bundle
from tumen.pipeline.folder import store_of, trusted_bundle
from tumen.release import flagship

__all__ = ["run", "tumen", "whole"]
COMMIT = "0" * 40


@pytest.fixture
def shipped(whole: Path, tmp_path: Path) -> Path:
    """A flagship folder made of the tiny run."""
    folder = tmp_path / "shipped"
    ship.shipped_from(whole, folder, "tumen run tests/tiny.toml", COMMIT)
    return folder


def test_what_ships_is_whole_and_passes_its_gate() -> None:
    assert ship.faults() == []


def test_a_run_ships_with_its_lineage(shipped: Path, whole: Path) -> None:
    lineage = flagship.read_lineage(shipped)
    assert lineage.digest == manifest_of(whole / "bundle-device").digest
    assert lineage.stages["corpus"] == manifest_of(whole / "corpus").digest
    assert (lineage.recipe, lineage.commit) == ("tiny", COMMIT)
    assert list(flagship.flagship_faults(shipped)) == []


def test_a_scorecard_of_another_bundle(shipped: Path) -> None:
    path = shipped / "bundle" / "scorecard" / "manifest.json"
    tree = json.loads(path.read_text())
    tree["made_from"] = ["0" * 16]
    path.write_text(json.dumps(tree))
    (fault,) = flagship.flagship_faults(shipped)
    assert "its scorecard belongs to another bundle" in fault


def test_a_lineage_of_another_bundle(shipped: Path) -> None:
    path = shipped / flagship.LINEAGE
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"digest": "0" * 16}))
    (fault,) = flagship.flagship_faults(shipped)
    assert "its lineage.json is of another bundle" in fault
    path.write_text(json.dumps({"digest": "x"}))
    with pytest.raises(ArtifactError, match="damaged at"):
        flagship.read_lineage(shipped)


def test_one_that_is_too_large(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagship, "MOST_BYTES", 1000)
    (fault,) = flagship.flagship_faults(shipped)
    assert "at most 1 kB may ship" in fault


def test_one_that_speaks_an_older_ontology(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = flagship.HOME.without([next(iter(flagship.HOME.intents))])
    monkeypatch.setattr(flagship, "HOME", older)
    (fault,) = flagship.flagship_faults(shipped)
    assert fault == "its ontology is not the source's: train and ship it anew"


def test_it_is_used_where_no_run_is_finished(tmp_path: Path, whole: Path) -> None:
    assert default_bundle(tmp_path / "runs") == flagship.BUNDLE
    unfinished = tmp_path / "runs" / "new"
    unfinished.mkdir(parents=True)
    (unfinished / "recipe.json").write_text((whole / "recipe.json").read_text())
    assert default_bundle(tmp_path / "runs") == flagship.BUNDLE
    shutil.copytree(whole / "bundle-device", unfinished / "bundle-device")
    assert default_bundle(tmp_path / "runs") == unfinished / "bundle-device"


def test_no_trust_store_is_asked_about_it(tmp_path: Path) -> None:
    assert trusted_bundle(flagship.BUNDLE, tmp_path / "no store") == flagship.BUNDLE
    assert store_of(flagship.BUNDLE, tmp_path) == "own"
    assert store_of(tmp_path, tmp_path) == tmp_path


def test_talk_says_which_bundle_answers(tumen: Tumen, tmp_path: Path) -> None:
    done = tumen("talk", "turn on the kitchen light", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("bundle: the flagship that ships with tumen (")
    assert "Kitchen" in done.stdout


def test_a_run_is_compared_with_what_ships(whole: Path) -> None:
    said = ship.comparison(whole)
    assert "bundle-device is worse than the bundle that ships: " in said
    same = ship.comparison(whole, shipped=whole / "bundle-device")
    assert "bundle-device equals the bundle that ships" in same
