"""Mutation testing: does a test fail when the code is wrong?

    python -m tests.mutation                    every file of FILES, then tests/hand_mutants.py
    python -m tests.mutation src/tumen/x/y.py   one file; one that FILES lacks: its room's tests

`./dev mutate` does the same. mutmut changes one operator, constant or call at a time in a copy of
the tree and runs the tests that reach the changed function. A mutant that no test notices
survives. Functions with a decorator are not changed, such as `writing` in core/artifact.py.
The score of each file is kept in benchmarks/results/mutation.json together with its survivors;
tests/docs/mutation.py makes docs/mutation.md from it. `mutmut show NAME` in the printed folder
shows a mutant.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests import hand_mutants

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"

# resolution alone: the words and values of a sentence, not what is done and said then
RESOLUTION = [
    f"tests/assistant/test_{name}.py"
    for name in ("choice", "names", "places", "queries", "resolve", "special_intents", "timers")
]
# file -> folders or files of tests that must notice a change in it, the fastest that reach it
FILES = {
    "src/tumen/core/artifact.py": ["tests/core/test_artifact.py"],
    "src/tumen/plan/search.py": ["tests/plan/test_search.py", "tests/plan/test_legality.py"],
    "src/tumen/plan/space.py": ["tests/plan/test_search.py", "tests/plan/test_legality.py"],
    "src/tumen/assistant/resolution/find.py": RESOLUTION,
    "src/tumen/assistant/resolution/groups.py": RESOLUTION,
    "src/tumen/assistant/resolution/resolve.py": RESOLUTION,
    "src/tumen/cluster/watcher/monitor/detect.py": ["tests/cluster/monitor"],
    "src/tumen/cluster/watcher/monitor/decide.py": ["tests/cluster/monitor"],
}
# mutmut runs pytest several times in one process, which hypothesis takes for a fault of the test
PROFILE = """
from hypothesis import HealthCheck
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")
"""
SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = [{file}]
pytest_add_cli_args_test_selection = {tests}
also_copy = ["recipes"]
track_dependencies = false
use_git_change_detection = false
"""


def mutated(file: str, tests: list[str]) -> dict[str, Any]:
    """Run mutmut on one file; returns counts, score and survivors.

    Raises:
        SystemExit: mutmut ended without a result, such as when a test fails on the unchanged code.
    """
    before = _children_seconds()
    folder = hand_mutants.copy_tree()
    with open(folder / "pyproject.toml", "a") as out:
        out.write(SETTINGS.format(file=json.dumps(file), tests=json.dumps(tests)))
    with open(folder / "tests" / "conftest.py", "a") as out:
        out.write(PROFILE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1"]
    print(f"{file}: mutmut works in {folder}", flush=True)
    log = folder / "log"
    with open(log, "w") as out:
        subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=out, check=False)
    states = _states(folder / "mutants" / f"{file}.meta")
    if not states:
        print(log.read_text()[-2000:], file=sys.stderr)
        raise SystemExit(f"{file}: mutmut gave no result; see {log}")
    counts = Counter(states.values())
    seen = counts["killed"] + counts["timeout"]
    return {
        "mutants": len(states),
        "killed": seen,
        "score": round(seen / len(states), 4),
        "survived": sorted(name for name, state in states.items() if state == "survived"),
        "tests": tests,
        "cpu_seconds": round(_children_seconds() - before),
    }


def _children_seconds() -> float:
    """Return the CPU seconds of all processes that were started and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _states(path: Path) -> dict[str, str]:
    """Mutant -> killed, survived or timeout, from the exit codes that mutmut keeps for a file."""
    if not path.exists():
        return {}
    codes = json.loads(path.read_text())["exit_code_by_key"]
    return {name: _state(code) for name, code in codes.items()}


def _state(code: int | None) -> str:
    if code in (0, 33, None):  # 33: no test reaches it
        return "survived"
    if code in (36, 24, -24, 152, 255):
        return "timeout"
    return "killed"


def main() -> int:
    """Mutate the files named, or all of FILES and what is dropped by hand; keep the scores."""
    given = sys.argv[1:]
    for name in given:
        if not (ROOT / name).is_file():
            raise SystemExit(f"{name}: no such file; name a file below src/tumen")
    files = {name: FILES.get(name) or [tests_of(name)] for name in given or FILES}
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"files": {}}
    for file, tests in files.items():
        row = mutated(file, tests)
        row |= {"date": str(date.today()), "command": f"./dev mutate {file}"}
        print(
            f"{file}: {row['killed']} of {row['mutants']} mutants killed, {row['score']:.1%}",
            flush=True,
        )
        known["files"][file] = row
        known["machine"] = {"python": platform.python_version(), "mutmut": version("mutmut")}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    return 0 if given else hand_mutants.main()


def tests_of(file: str) -> str:
    """Return the folder of tests that mirrors a file's room."""
    return f"tests/{Path(file).relative_to('src/tumen').parts[0]}"


if __name__ == "__main__":
    raise SystemExit(main())
