"""The command line as people start it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Once

Tumen = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = Path(__file__).parents[1] / "tiny.toml"


@pytest.fixture(scope="session")
def tumen() -> Tumen:
    """`tumen <arguments>` in a process of its own, at most three minutes."""

    def run(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tumen", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=600,
            check=False,
        )

    return run


WITHOUT_EXTRAS = """
import sys
from tumen.core.extras import EXTRAS
for name in EXTRAS:
    sys.modules[name] = None
from tumen.cli import main
main()
"""


@pytest.fixture(scope="session")
def light() -> Tumen:
    """`tumen <arguments>` as a light install runs it: no package of any extra can be imported."""

    def run(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_EXTRAS, *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def whole(tumen: Tumen, once: Once) -> Path:
    """The tiny recipe taken to its end by `tumen run`. Nobody changes it: copies are broken."""

    def make(run: Path) -> None:
        done = tumen("run", TINY, "--run", run)
        assert done.returncode == 0, done.stderr

    return once("tiny", make)


@pytest.fixture(scope="session")
def two(tumen: Tumen, once: Once) -> Path:
    """A run whose cloud tier two ranks have trained, long enough for somebody to disturb others like it. Nobody disturbed this one."""
    changes = ("mesh.dp=2", "steps=480", "checkpoint_every=10")
    asked = [word for change in changes for word in ("--set", f"family.cloud.train.{change}")]

    def make(run: Path) -> None:
        for words in (("run", TINY, "--run", run, "--until", "dataset", *asked), ("launch", run)):
            done = tumen(*words)
            assert done.returncode == 0, done.stderr

    return once("two", make)


@pytest.fixture
def untrained(two: Path) -> Callable[[Path], Path]:
    """Makes a copy of it that is still to be trained."""
    return lambda folder: Path(
        shutil.copytree(
            two, folder, ignore=shutil.ignore_patterns("cloud", "jobs", "events.jsonl", ".*")
        )
    )


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))
