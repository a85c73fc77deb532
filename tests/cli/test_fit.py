"""`tumen fit` from outside: recipes, bundles and runs; JSON; refusals of one line; no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests import recipes
from typer.testing import CliRunner

from tumen.cli.device_fit import fit
from tumen.core.errors import TumenError
from tumen.serve import write_synthetic_gguf
from tumen.serve.measure import shape_of

RECIPES = Path(__file__).parents[2] / "recipes"
APP = typer.Typer()
APP.command()(fit)


def said(*words: str) -> str:
    found = CliRunner().invoke(APP, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("recipe", recipes.shipped(), ids=lambda path: path.stem)
def test_every_recipe_is_told_or_refused(recipe: Path) -> None:
    found = CliRunner().invoke(APP, [str(recipe), "--device", "laptop", "--json"])
    if isinstance(found.exception, TumenError):
        assert any(word in str(found.exception) for word in ("GGUF", "encoder"))
    else:
        assert json.loads(found.output)["fits"]


def test_words_say_what_fits_and_what_to_cut() -> None:
    assert "best that fits: cloud" in said(str(RECIPES / "family.toml"), "--device", "speaker")
    text = said(str(RECIPES / "milm-1.3b.toml"), "--device", "phone-4gb", "--context", "4096")
    assert "DOES NOT FIT" in text
    assert "layers 24 -> " in text
    assert "none of them fits" in text


def test_limits_threads_and_context_count() -> None:
    def told(*words: str) -> dict[str, float]:
        return dict(
            json.loads(
                said(str(RECIPES / "milm-1.3b.toml"), "--device", "phone-16gb", "--json", *words)
            )["fits"][0]
        )

    assert told()["fits"]
    assert not told("--memory", "1GB")["fits"]
    assert told("--threads", "4")["tokens_per_second"] > told()["tokens_per_second"]
    assert told("--context", "4096")["peak_bytes"] > told()["peak_bytes"]


def test_files_bundles_and_runs(tmp_path: Path) -> None:
    run, shape = tmp_path / "run", shape_of(128, 2, 256)
    for tier in ("device", "cloud"):
        (run / f"bundle-{tier}").mkdir(parents=True)
        write_synthetic_gguf(run / f"bundle-{tier}" / "model.gguf", shape, "int4")
    assert [one["model"] for one in json.loads(said(str(run), "--json"))["fits"]] == [
        "bundle-cloud",
        "bundle-device",
    ]
    told = json.loads(said(str(run / "bundle-device"), "--json"))["fits"][0]
    assert told["file_bytes"] == (run / "bundle-device" / "model.gguf").stat().st_size
    assert (
        json.loads(said(str(run / "bundle-device" / "model.gguf"), "--json"))["fits"][0]["quantize"]
        == "int4"
    )


def test_devices_are_listed() -> None:
    assert "source: " in said("--devices")
    assert "phone-8gb" in json.loads(said("--devices", "--json"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name a bundle"),
        (("none",), "not a bundle, run, GGUF file or recipe"),
        (("none.toml",), "no such file"),
        (("none.gguf",), "missing"),
        ((str(RECIPES / "pocket.toml"), "--device", "fone"), "did you mean phone"),
        (
            (str(RECIPES / "pocket.toml"), "--device", "here", "--profile", "none.json"),
            "not measured yet",
        ),
        ((str(RECIPES / "pocket.toml"), "--threads", "64"), "is known with"),
        ((str(RECIPES / "pocket.toml"), "--memory", "much"), "not a size"),
        ((str(RECIPES / "pocket.toml"), "--context", "0"), "--context 0"),
    ],
)
def test_nonsense_gets_one_line(words: tuple[str, ...], says: str) -> None:
    found = CliRunner().invoke(APP, list(words))
    assert isinstance(found.exception, TumenError)
    assert says in str(found.exception)


def test_never_imports_torch() -> None:
    words = ["tumen", "fit", str(RECIPES / "pocket.toml")]
    code = f"import sys; sys.argv = {words!r}\nfrom tumen.cli import main\ntry: main()\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )
