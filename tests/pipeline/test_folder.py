"""What a path on the command line names: a run, its recipe, its engine, a bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import TINY

from tumen.cluster.engines.local import LocalEngine
from tumen.core.artifact import manifest_of
from tumen.core.errors import ArtifactError, EngineError, InputError, RecipeError
from tumen.core.events import read
from tumen.pipeline.folder import (
    cloud_bundle,
    device_bundle,
    engine_of,
    newest_run,
    read_run_recipe,
    recipe_and_run,
    run_folder,
    trusted_bundle,
)
from tumen.pipeline.run import Run
from tumen.recipe import load_recipe
from tumen.release import slot

MakeBundle = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was started and has made nothing yet."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    Run(load_recipe(TINY), folder).write_recipe()
    return folder


class TestRunAndRecipe:
    def test_a_recipe_file_names_a_folder_below_runs(self) -> None:
        recipe, folder = recipe_and_run(TINY)
        assert (recipe.name, folder) == ("tiny", Path("runs/tiny"))
        assert run_folder(recipe, Path("elsewhere")) == Path("elsewhere")

    def test_a_folder_names_the_recipe_that_it_was_started_with(self, run: Path) -> None:
        assert recipe_and_run(run) == (load_recipe(TINY), run)

    @pytest.mark.parametrize("of_folder", [True, False])
    def test_changes_and_the_engine_reach_the_recipe(self, run: Path, of_folder: bool) -> None:
        recipe, _ = recipe_and_run(run if of_folder else TINY, "slurm", ["seed=9"])
        assert (recipe.fleet.engine, recipe.seed) == ("slurm", 9)

    @pytest.mark.parametrize("name", ["7", "true", "['slurm']"])
    def test_an_engine_is_a_name_and_not_toml(self, run: Path, name: str) -> None:
        recipe, _ = recipe_and_run(run, name)
        assert recipe.fleet.engine == name

    def test_a_folder_without_a_recipe_says_how_to_start_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="no such file; `tumen run RECIPE` starts a run"):
            recipe_and_run(tmp_path)

    def test_a_damaged_recipe_says_how_to_write_it_again(self, run: Path) -> None:
        (run / "recipe.json").write_text('{"name": ')
        with pytest.raises(RecipeError, match="not JSON; `tumen run RECIPE` writes it again"):
            read_run_recipe(run)

    def test_the_newest_run_is_the_one_that_was_started_last(self, tmp_path: Path) -> None:
        for seconds, name in ((300, "b"), (900, "a"), (600, "c")):
            path = tmp_path / name / "recipe.json"
            path.parent.mkdir()
            path.touch()
            os.utime(path, (seconds, seconds))
        (tmp_path / "not-a-run").mkdir()
        assert newest_run(tmp_path) == tmp_path / "a"

    def test_without_a_run_the_command_to_start_one_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"no run in {tmp_path}: start one with `tumen run"):
            newest_run(tmp_path)


class TestEngine:
    def test_a_run_names_its_engine(self, run: Path) -> None:
        assert isinstance(engine_of(run, None), LocalEngine)

    def test_the_option_comes_before_the_recipe(self, run: Path) -> None:
        with pytest.raises(EngineError, match="'abacus' is unknown; known: local, slurm"):
            engine_of(run, "abacus")

    def test_without_a_run_the_option_is_enough(self) -> None:
        assert isinstance(engine_of(None, "local"), LocalEngine)

    def test_without_either_the_option_is_asked_for(self) -> None:
        with pytest.raises(InputError, match="no engine: give --on slurm"):
            engine_of(None, None)


class TestBundle:
    def test_a_bundle_is_itself(self, tmp_path: Path, make_bundle: MakeBundle) -> None:
        bundle = make_bundle(tmp_path / "any-name")
        assert device_bundle(bundle) == bundle

    def test_a_run_means_the_bundle_of_its_device_tier(self, run: Path) -> None:
        assert device_bundle(run) == run / "bundle-device"
        Run(load_recipe(TINY, ["serve.device='cloud'"]), run).write_recipe()
        assert device_bundle(run) == run / "bundle-cloud"

    def test_a_slot_means_its_live_bundle(self, tmp_path: Path, make_bundle: MakeBundle) -> None:
        live = slot.activate(tmp_path / "slot", make_bundle(tmp_path / "made"), keep=1)
        assert device_bundle(tmp_path / "slot") == live

    def test_another_path_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a bundle, nor the folder of a run"):
            device_bundle(tmp_path)


class TestTrust:
    """Where no trust store is given, the run or slot records that the signature was not checked."""

    @pytest.fixture(autouse=True)
    def without_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TUMEN_TRUST", raising=False)

    def test_a_run_records_it(self, run: Path, make_bundle: MakeBundle) -> None:
        bundle = make_bundle(run / "bundle-device")
        (run / "events.jsonl").touch()
        assert trusted_bundle(run, None) == bundle
        (row,) = read(run / "events.jsonl")
        assert manifest_of(bundle).digest in json.dumps(row)

    def test_a_slot_records_it_and_not_its_folder_of_bundles(
        self, tmp_path: Path, make_bundle: MakeBundle
    ) -> None:
        place = tmp_path / "slot"
        live = slot.activate(place, make_bundle(tmp_path / "made"), keep=1)
        (place / "events.jsonl").touch()
        assert trusted_bundle(place, None) == live
        assert len(list(read(place / "events.jsonl"))) == 1
        assert [path.name for path in (place / "bundles").iterdir()] == [live.name]

    def test_beside_a_bundle_alone_nothing_is_written(
        self, tmp_path: Path, make_bundle: MakeBundle
    ) -> None:
        make_bundle(tmp_path / "downloads" / "bundle")
        trusted_bundle(tmp_path / "downloads" / "bundle", None)
        assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["bundle"]

    def test_with_a_store_an_unsigned_bundle_is_refused(
        self, run: Path, tmp_path: Path, make_bundle: MakeBundle
    ) -> None:
        make_bundle(run / "bundle-device")
        (tmp_path / "store").mkdir()
        with pytest.raises((ArtifactError, InputError)):
            trusted_bundle(run, tmp_path / "store")


class TestCloud:
    def bundles(self, folder: Path, make_bundle: MakeBundle, **serve: object) -> Path:
        """A device bundle that names a cloud tier, with that tier's bundle beside it."""
        names = {"unsure": 0.5, "device": "device", "cloud": "cloud"}
        make_bundle(folder / "bundle-cloud", tier="cloud")
        return make_bundle(folder / "bundle-device", serve={**names, **serve})

    def test_it_lies_beside_the_device_bundle(
        self, tmp_path: Path, make_bundle: MakeBundle
    ) -> None:
        bundle = self.bundles(tmp_path, make_bundle)
        assert cloud_bundle(bundle) == tmp_path / "bundle-cloud"

    @pytest.mark.parametrize(
        "serve", [{"cloud": None}, {"cloud": "device"}, {"cloud_url": "http://10.0.0.1/v1"}]
    )
    def test_without_a_tier_that_runs_here_there_is_none(
        self, tmp_path: Path, make_bundle: MakeBundle, serve: dict[str, object]
    ) -> None:
        assert cloud_bundle(self.bundles(tmp_path, make_bundle, **serve)) is None

    @pytest.mark.parametrize("name", ["other", "cloud/../../secret", "*"])
    def test_a_name_from_a_bundle_is_never_made_into_a_path(
        self, tmp_path: Path, make_bundle: MakeBundle, name: str
    ) -> None:
        (tmp_path / "secret").mkdir()
        bundle = self.bundles(tmp_path / "run", make_bundle, cloud=name)
        assert cloud_bundle(bundle) is None

    def test_a_file_of_that_name_is_not_a_bundle(
        self, tmp_path: Path, make_bundle: MakeBundle
    ) -> None:
        bundle = self.bundles(tmp_path, make_bundle, cloud="file")
        (tmp_path / "bundle-file").touch()
        assert cloud_bundle(bundle) is None
