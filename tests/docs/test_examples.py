"""Every example runs as its docstring says, and prints what it promises."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Once

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MOST_LINES = 90
PATIENCE_SECONDS = 300
pytestmark = pytest.mark.slow


def run(script: str, *arguments: object, folder: Path) -> str:
    """Return what an example prints when it is started in a folder."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def made(once: Once) -> Path:
    """The folder in which make_a_bundle.py ran, and what it printed."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "said.txt").write_text(run("make_a_bundle.py", folder=folder))

    return once("example", make)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert f"    python examples/{path.name}" in (ast.get_docstring(ast.parse(text)) or "")


def test_the_table_lists_every_script() -> None:
    listed = re.findall(r"^\| \[([\w.]+)\]", (EXAMPLES / "README.md").read_text("utf-8"), re.M)
    assert sorted(listed) == [path.name for path in SCRIPTS]


def test_a_run_is_planned(tmp_path: Path) -> None:
    head, *rows = run("plan_a_run.py", folder=tmp_path).splitlines()
    assert head == "milm-6b: 6.41B parameters, 1T tokens"
    pattern = r"h\d00:\d+ +[\d.]+ days \([\d.]+ to [\d.]+\), +[\d,]+ accelerator-hours, +[\d,]+ USD"
    assert len(rows) == 3
    assert all(re.match(pattern, row) for row in rows)


def test_a_training_heals(tmp_path: Path) -> None:
    said = run("heal_a_training.py", folder=tmp_path)
    assert re.search(r"^  diagnosed  crash$", said, re.M)
    assert re.search(r"^fault: crash, rank \d", said, re.M)
    assert re.search(r"^resumed: attempt 2, step \d+", said, re.M)
    # on a busy machine a rank may be slow as well
    assert re.search(r"^cloud: 400 steps in .*; faults: 1 crash\b", said, re.M)


def test_a_bundle_is_made(made: Path) -> None:
    said = (made / "said.txt").read_text()
    assert "runs/tiny/bundle-device/model.gguf" in said
    assert re.search(r"^digest \w{16}, made from", said, re.M)
    assert re.search(r"^all +12 ", said, re.M)


def test_a_bundle_is_served(made: Path) -> None:
    said = dict(line.split(": ", 1) for line in run("serve_and_call.py", folder=made).splitlines())
    assert said["models"] == "tiny, device, cloud"
    assert json.loads(said["action"])["lang"] == "en"


def test_a_bundle_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "serve_and_call.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1


def test_own_intents_are_understood_and_done(tmp_path: Path) -> None:
    said = run("own_intents.py", folder=tmp_path).splitlines()
    assert len(said) == 3
    for line, drink in zip(said, ("ristretto", "oolong", "latte"), strict=True):
        sentence, _, rest = line.partition(" -> ")
        assert drink in sentence
        assert "'intent': 'drink_" in rest
    assert "making 1 x" in said[0]
    assert "not making" in said[2]
