"""`tumen recipe show | check | schema`, and faults as people see them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import TINY, Tumen

from tumen import __version__


def test_show_has_every_default(tumen: Tumen) -> None:
    shown = json.loads(tumen("recipe", "show", TINY, "--set", "seed=9").stdout)
    assert shown["seed"] == 9
    assert shown["data"]["held_out_templates"] == 0.1
    assert shown["family"]["device"]["distil"]["temperature"] == 1.0


def test_check_says_how_large_tiers_are(tumen: Tumen) -> None:
    said = tumen("recipe", "check", TINY).stdout
    assert "a good recipe, tiny" in said
    assert "cloud: 164k parameters, 140k active, 192 bytes of cache a token" in said
    assert "device: 107k parameters, 107k active, 256 bytes of cache a token" in said


def test_schema_is_json(tumen: Tumen) -> None:
    assert json.loads(tumen("recipe", "schema").stdout)["title"] == "Recipe"


def test_all_faults_at_once_and_an_exit_code(tumen: Tumen, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        TINY.read_text().replace("steps = 8", "stpes = 8").replace("seed = 7", "sed = 7")
    )
    done = tumen("run", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "sed: unknown field; did you mean 'seed'?" in done.stderr
    for tier in ("cloud", "device"):
        assert f"family.{tier}.train.stpes: unknown field; did you mean 'steps'?" in done.stderr
        assert f"family.{tier}.train.steps: missing" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_missing_recipe(tumen: Tumen, tmp_path: Path) -> None:
    done = tumen("recipe", "check", tmp_path / "none.toml")
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_version(tumen: Tumen) -> None:
    assert tumen("--version").stdout == f"tumen {__version__}\n"
