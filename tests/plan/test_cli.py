"""`tumen plan` from outside: one command line, JSON, one-line refusals, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tumen.cli.planning import app
from tumen.core.errors import TumenError
from tumen.plan import Plan

RECIPES = Path(__file__).parents[2] / "recipes"
V2 = str(RECIPES / "v2.toml")


def said(*words: str) -> str:
    """Output of a command that succeeds."""
    found = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_a_recipe_is_a_command(tmp_path: Path) -> None:
    out, html = tmp_path / "plan.json", tmp_path / "sub" / "plan.html"
    text = said(V2, "--fleet", "h800:2048", "--out", str(out), "--html", str(html))
    assert "goodput" in text
    assert Plan.model_validate_json(out.read_text()).fleet_cards == 2048
    assert html.read_text().startswith("<!doctype html>")


def test_options_may_come_first() -> None:
    assert said("--fleet", "h800:2048", V2) == said("recipe", V2, "--fleet", "h800:2048")


def test_json_is_one_object() -> None:
    assert json.loads(said(V2, "--json"))["card"] == "h800"
    assert json.loads(said(V2, "--compare", "h800:1024,h800:2048", "--json"))["sides"]
    assert json.loads(
        said("fleet", "--devices", "120M", "--recipe", str(RECIPES / "milm-6b.toml"), "--json")
    )["cards"]
    assert "h800" in json.loads(said("cards", "--json"))


def test_anchor_growth_and_rent() -> None:
    assert "factor" in said(V2, "--anchor", f"{RECIPES / 'v1-67b.toml'}=300.6k")
    assert "instead of" in said(V2, "--grow", "3=h800:4096")
    assert "each day saved" in said(V2, "--rent", "h800:2048@2.5")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((V2, "--fleet", "h800:0"), "smallest fleet"),
        ((V2, "--fleet", "h900:8"), "did you mean"),
        ((V2, "--fleet", "h800:8"), "the least is 16"),
        ((V2, "--tier", "phone"), "it has cloud"),
        ((V2, "--set", "plan.pin={tp=3}"), "nearest that does is"),
        ((V2, "--set", "plan.framework='abacus'", "--fleet", "h800:2048"), "did you mean"),
        ((V2, "--set", "plan.tokens=0"), "the least is 37748736"),
        ((V2, "--set", "plan.batch_tokens=0"), "the least is 4096"),
        ((V2, "--set", "plan.pin={zero=5}"), "nearest legal value is 3"),
        ((V2, "--set", "plan.pin={micro_batch=100000}"), "the most is 9216"),
        ((V2, "--grow", "soon"), "DAY=card:count"),
        ((V2, "--rent", "h800:8"), "@price"),
        ((V2, "--anchor", "x"), "RECIPE=card-hours"),
        (("check", "none.csv"), "file not found"),
        (("fleet", "--devices", "120M", "--recipe", "none.toml"), "--recipe"),
    ],
)
def test_nonsense_gets_one_line(words: tuple[str, ...], says: str) -> None:
    found = CliRunner().invoke(app, list(words))
    assert isinstance(found.exception, TumenError)
    assert says in str(found.exception)
    assert "\n" not in str(found.exception)


def test_never_imports_torch() -> None:
    code = "import sys, tumen.plan, tumen.cli.planning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
