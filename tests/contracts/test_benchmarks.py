"""Every benchmark runs in a short form, so that none of them is broken when its number is needed.

The numbers of a short form mean nothing. What takes more than seconds at its shortest is loaded,
so that a name it imports cannot vanish, and runs where `LONG` says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import TINY, Once

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
LIBRARIES = {"contest", "ggml", "gpt"}  # imported by the others
# Benchmark -> its short form. RUN is a finished tiny run, OUT a new file, TEXTS a small one.
SHORT = {
    "command": "RUN --rounds 1 --out OUT",
    "command_latency": "RUN --sentences 12 --out OUT",
    "eval_suites": "RUN --out OUT --suite",
    "import_time": "--quick --out OUT",
    "interpretation": "RUN --sentences 12 --entities 60 100 --out OUT",
    "memory_copies": "--megabytes 2 --times 1",
    "mla_pays": "--quick --out OUT",
    "plan_search": "--out OUT",
    "quantize": "RUN --seeds 1 --steps 1 --sentences 8 --calibrate 8 --words int4 --trained int4 "
    "--budgets --kinds --out OUT",
    "runner": "RUN/bundle-device --rounds 1",
    "text_data": "TEXTS",
}
# Benchmark -> why its shortest form is not run here.
LONG = {
    "drills": "tests/cli/test_heal.py runs it with -m drill",
    "expert_kernels": "--quick starts ten processes with torch",
    "failure_day": "tests/cluster/test_goodput.py runs it",
    "fit": "it calibrates this machine first",
    "healing": "it trains beside torchrun, with time-outs that are waited for",
    "plan_accuracy": "it needs published runs of several sources; tests/plan/test_fitting.py fits",
    "plan_own_runs": "it calibrates this machine first",
    "pocket": "test_the_pocket_benchmark_makes_a_run",
    "real_text": "it reads every package of this machine",
    "train_step": "--quick starts twelve processes with torch",
    "tune_outside": "it needs a public model",
    "watcher": "it waits for time-outs of a minute",
}
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
MAY_MISS_A_GOAL = {"import_time"}  # its exit code says whether it meets its goal
pytestmark = pytest.mark.slow


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python command as a person does in the root of the repository."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def pocket(once: Once) -> Path:
    """A folder with a tiny run that pocket.py made, and its result."""

    def make(folder: Path) -> None:
        folder.mkdir()
        script = str(BENCHMARKS / "pocket.py")
        words = ("--recipe", str(TINY), "--run", "run", "--out", "pocket.json")
        done = run(script, *words, folder=folder)
        assert done.returncode == 0, done.stderr

    return once("pocket", make)


def test_every_benchmark_is_known() -> None:
    assert sorted({*SHORT} | {*LONG} | LIBRARIES) == NAMES
    assert not {*SHORT} & {*LONG}


@pytest.mark.parametrize("name", LONG)
def test_it_loads(name: str, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import {name}"
    done = run("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_pocket_benchmark_makes_a_run(pocket: Path) -> None:
    result = json.loads((pocket / "pocket.json").read_text())
    assert result["seconds"] > 0
    assert result["peak_bytes"] > 0
    assert "device" in result["scorecard"]["columns"]


@pytest.mark.parametrize("name", SHORT)
def test_its_short_form_runs(name: str, pocket: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(
            json.dumps({"text": f"This is text number {number} about lamps and rooms. " * 3}) + "\n"
            for number in range(200)
        )
    )
    places = {"RUN": str(pocket / "run"), "OUT": str(tmp_path / "out.json"), "TEXTS": str(texts)}
    words = []
    for word in SHORT[name].split():
        first, slash, rest = word.partition("/")
        words.append(places.get(first, first) + slash + rest)
    done = run(str(BENCHMARKS / f"{name}.py"), *words, folder=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or name in MAY_MISS_A_GOAL, done.stderr
    assert done.stdout
    if "OUT" in SHORT[name].split():
        assert json.loads((tmp_path / "out.json").read_text())
