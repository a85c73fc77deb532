"""The flagship, the bundle inside the package: ship the one of a finished run, compare, check.

    python -m tests.ship RUN [--commit C] ./dev ship: put the device bundle of a run into the package
    python -m tests.ship --compare [RUN]  say whether a run equals or beats what ships; default: the newest
    python -m tests.ship --check          fail when what ships is damaged, too large or out of date

A bundle ships only if it passes its gate, and from a commit without changes. Two bundles are compared
in pairs on the eval rows of the run; the flagship answers them anew if its scorecard is of others.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from datetime import date
from pathlib import Path

from tumen.assistant.values import Values
from tumen.core.artifact import hash_of, manifest_of, verify
from tumen.core.errors import TumenError
from tumen.eval import gate_fault, read_scorecard
from tumen.eval.statistics import paired_difference
from tumen.eval.suites import held_out_cases
from tumen.pipeline import device_bundle, links, newest_run, read_run_recipe
from tumen.pipeline.evaluate import evaluate_bundle
from tumen.pipeline.stages import stages
from tumen.release import flagship

ROOT = Path(__file__).parents[1]
PAYLOAD = ("bundle.json", "manifest.json", "model.gguf", "ontology.json", "values.json")


def shipped_from(run: Path, folder: Path, command: str, commit: str) -> flagship.Lineage:
    """Write a flagship folder from a finished run.

    Raises:
        SystemExit: the bundle misses its gate, or may not ship.
    """
    bundle = device_bundle(run)
    if fault := gate_fault(bundle):
        raise SystemExit(f"{bundle} does not pass its gate: {fault}")
    recipe = read_run_recipe(run)
    lineage = flagship.Lineage(
        digest=manifest_of(bundle).digest,
        scorecard=verify(bundle / "scorecard", "scorecard").digest,
        recipe=recipe.name,
        recipe_hash=hash_of(recipe.model_dump(mode="json", exclude_unset=True)),
        commit=commit,
        command=command,
        date=date.today().isoformat(),
        stages={stage.name: manifest_of(run / stage.name).digest for stage in stages(recipe)},
    )
    target = folder / "bundle"
    target.mkdir(parents=True)
    for name in PAYLOAD:
        shutil.copy2(bundle / name, target / name)
    shutil.copytree(bundle / "scorecard", target / "scorecard")
    (folder / flagship.LINEAGE).write_text(lineage.model_dump_json(indent=1) + "\n", "utf-8")
    if faults := list(flagship.flagship_faults(folder)):
        raise SystemExit(f"{bundle} does not ship: {'; '.join(faults)}")
    return lineage


def ship(run: Path, made_at: str) -> None:
    """Put the device bundle of a run into the package.

    Args:
        run: folder of a finished run.
        made_at: commit of the source that made it.
    """
    commit = _git("rev-parse", "--verify", f"{made_at}^{{commit}}")
    if changed := _git("status", "--porcelain", "--untracked-files=no"):
        raise SystemExit(f"commit first, the lineage names a commit; changed:\n{changed}")
    recipe = read_run_recipe(run).name
    unfinished = [link.stage.name for link in links(read_run_recipe(run), run) if link.why]
    if unfinished:
        raise SystemExit(f"{run}: run the recipe again, {', '.join(unfinished)} is not up to date")
    with tempfile.TemporaryDirectory() as work:
        made = Path(work) / "shipped"
        lineage = shipped_from(run, made, f"tumen run recipes/{recipe}.toml", commit)
        shutil.rmtree(flagship.FOLDER, ignore_errors=True)
        shutil.copytree(made, flagship.FOLDER)
    print(f"{flagship.FOLDER}: {lineage.recipe} {lineage.digest}, of {commit[:7]}")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def comparison(run: Path, shipped: Path = flagship.BUNDLE) -> str:
    """Return one line: does the bundle of a run equal or beat the one that ships?"""
    bundle = device_bundle(run)
    card = read_scorecard(bundle)
    new = card["columns"]["device"]["all"]["marks"]
    old = _marks(shipped, run, card["suite"])
    value, low, high = paired_difference(new, old)
    if value is None or low is None or high is None:
        return "the run has no eval rows to compare"
    verdict = "equals"
    if low > 0:
        verdict = "beats"
    elif high < 0:
        verdict = "is worse than"
    shares = [f"{100 * marks.count('1') / len(marks):.1f} %" for marks in (new, old)]
    return (
        f"{bundle} {verdict} the bundle that ships: {shares[0]} of {len(new)} eval rows exact, "
        f"{shares[1]} ships; difference {value:+.1%} [{low:+.1%}, {high:+.1%}] in pairs"
    )


def _marks(shipped: Path, run: Path, suite: str) -> str:
    """Return the marks of what ships on the eval rows of a run."""
    card = read_scorecard(shipped)
    if suite and card["suite"] == suite:
        return str(card["columns"]["device"]["all"]["marks"])
    cases = list(held_out_cases(run / "corpus"))
    values = Values.load(shipped / "values.json")
    rows, _ = evaluate_bundle(shipped, cases, values, store="own")
    return str(rows["all"]["marks"])


def faults() -> list[str]:
    """Return what is wrong with what ships, one line each."""
    try:
        found = list(flagship.flagship_faults())
        if fault := gate_fault(flagship.BUNDLE):
            found.append(f"it does not pass its gate: {fault}")
    except TumenError as error:
        return [str(error)]
    return found


def main() -> int:
    """Ship, compare or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--commit", default="HEAD", help="of the source that made the run")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--check", action="store_true")
    wanted = parser.parse_args()
    if wanted.check:
        found = faults()
        print("\n".join(found) or f"flagship: {flagship.describe(flagship.BUNDLE)}")
        return 1 if found else 0
    if wanted.compare:
        run = wanted.run or newest_run()
        if not (device_bundle(run) / "scorecard").exists():
            print(f"{run}: has no scorecard yet, so nothing is compared with the bundle that ships")
            return 0
        print(comparison(run))
        return 0
    if wanted.run is None:
        parser.error("name the folder of a finished run")
    ship(wanted.run, wanted.commit)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
