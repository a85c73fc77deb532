"""Ten changes that would do harm and that once went unnoticed; a test fails for each of them.

    python -m tests.hand_mutants    apply each to a copy of the tree, run its test there

mutmut (tests/mutation.py) changes one operator, constant or call at a time. These drop a whole
rule. tests/contracts/test_mutation.py checks that each still names a line and a test that exist.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "recipes", "pyproject.toml")  # what the tests need
SEARCH = "src/tumen/plan/search.py"
SPACE = "src/tumen/plan/space.py"
GROUPS = "src/tumen/assistant/resolution/groups.py"
DETECT = "src/tumen/cluster/watcher/monitor/detect.py"
ARTIFACT = "src/tumen/core/artifact.py"


@dataclass(frozen=True)
class HandMutant:
    """A rule that is dropped.

    Args:
        dropped: the rule, in words.
        file: where it stands.
        before: the text of the rule, which occurs once in the file.
        after: the text that drops it.
        test: the test that fails then.
    """

    dropped: str
    file: str
    before: str
    after: str
    test: str


HAND_MUTANTS = (
    HandMutant(
        "a layout leaves head-room in the memory of an accelerator",
        SEARCH,
        "HEADROOM = 0.08",
        "HEADROOM = 0.0",
        "tests/plan/test_legality.py::test_eight_percent_of_memory_stay_free",
    ),
    HandMutant(
        "DualPipe has an even number of stages",
        SPACE,
        "even = pp % 2 == 0 and micro_batches % 2 == 0",
        "even = micro_batches % 2 == 0",
        "tests/plan/test_legality.py::test_everything_proposed_is_legal",
    ),
    HandMutant(
        "at most a quarter of the accelerators are idle",
        SPACE,
        "if dp == 0 or used < (1 - MOST_IDLE) * fleet_size:",
        "if dp == 0:",
        "tests/plan/test_legality.py::test_everything_proposed_is_legal",
    ),
    HandMutant(
        "ZeRO-3 does not work with a pipeline",
        SPACE,
        "return pp == 1 and workload.shape.experts is None",
        "return workload.shape.experts is None",
        "tests/plan/test_legality.py::test_everything_proposed_is_legal",
    ),
    HandMutant(
        "resuming or pausing in a room with two players means one of them",
        GROUPS,
        "if by_name or lookup.intent in ONE_MEANT or _opens_the_house(lookup, ids):",
        "if by_name or _opens_the_house(lookup, ids):",
        "tests/assistant/test_choice.py::test_the_state_says_which_player_is_meant",
    ),
    HandMutant(
        "brighter, darker and colours mean the lights that are on",
        GROUPS,
        "lights = lit or lights",
        "pass",
        "tests/assistant/test_choice.py::test_the_lit_lights_of_one_room_are_the_ones_to_set",
    ),
    HandMutant(
        "when most agents are silent, the watcher suspects its own network",
        DETECT,
        "if len(quiet) > max(1, len(used) / 2):",
        "if False:",
        "tests/cluster/monitor/test_detect.py::TestNodes",
    ),
    HandMutant(
        "a rank that was killed is named before one that ended itself",
        DETECT,
        "cause = min(causes, key=lambda found: not found.was_killed)",
        "cause = causes[0]",
        "tests/cluster/monitor/test_detect.py::TestRankThatEnds"
        "::test_a_killed_rank_is_named_before_one_that_ended_itself",
    ),
    HandMutant(
        "when all agents are silent, the engine is asked first",
        DETECT,
        "if not silent or _must_ask_engine(state, now, used):",
        "if not silent:",
        "tests/cluster/monitor/test_detect.py::TestEngineIsAskedFirst",
    ),
    HandMutant(
        "a text is on the disk before it takes the place of the old one",
        ARTIFACT,
        "                os.fsync(handle.fileno())\n",
        "",
        "tests/core/test_artifact.py::TestOrderOnDisk",
    ),
)


def copy_tree() -> Path:
    """Return a temporary folder with what the tests need."""
    folder = Path(tempfile.mkdtemp(prefix="mutate-"))
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def fails(folder: Path, *tests: str) -> bool:
    """Return whether a test fails in a copy of the tree.

    Raises:
        SystemExit: pytest did not run the tests, such as when one is not there.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(tests)}: pytest ended with {done.returncode}: {done.stdout}")
    return done.returncode == 1


def main() -> int:
    """Apply each change on its own and say whether its test fails."""
    folder = copy_tree()
    if fails(folder, *sorted({mutant.test for mutant in HAND_MUTANTS})):
        raise SystemExit(f"{folder}: a test fails on the unchanged code; run `./dev test`")
    survived = 0
    for mutant in HAND_MUTANTS:
        path = folder / mutant.file
        text = path.read_text("utf-8")
        path.write_text(text.replace(mutant.before, mutant.after), "utf-8")
        killed = fails(folder, mutant.test)
        path.write_text(text, "utf-8")
        survived += not killed
        print(f"{'killed  ' if killed else 'SURVIVED'}  {mutant.dropped}", flush=True)
    shutil.rmtree(folder)
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
