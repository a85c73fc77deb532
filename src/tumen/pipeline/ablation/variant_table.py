"""The table of an ablation: losses with error bars, cost, speed, and the machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core.artifact import Manifest, manifest_of, verify, writing
from tumen.eval.statistics import mean_over_seeds, paired_seed_difference
from tumen.eval.suites import held_out_cases
from tumen.pipeline.evaluate import evaluate_bundle
from tumen.pipeline.preparation import CORPUS
from tumen.pipeline.stage import Stage, Work
from tumen.recipe import Ablation

FOLDER = "ablation"
TABLE = f"{FOLDER}/table"
FILE = "table.json"
PACKAGES = ("tumen", "torch", "numpy")  # whose versions are kept with a measurement


def variant_checkpoint(variant: str, seed: int) -> str:
    """Return the name of the stage that trains a variant with a seed."""
    return f"{FOLDER}/{variant}/seed-{seed}"


def variant_bundle(variant: str, seed: int) -> str:
    """Return the name of the stage that packs a variant trained with a seed."""
    return f"{FOLDER}/{variant}/bundle-{seed}"


def variant_pace(variant: str) -> str:
    """Return the name of the stage that measures a variant's step."""
    return f"{FOLDER}/{variant}/pace"


@dataclass(frozen=True)
class TableStage(Stage):
    """The table of all variants.

    Attributes:
        section: of the recipe.
        heading: the budget and the seeds, for the table.
        spendings: what a seed of each variant spends, by name.
        threads: of a runner, where bundles are evaluated.
    """

    kind = "ablation"
    maker = 2
    section: Ablation
    heading: Mapping[str, Any]
    spendings: Mapping[str, dict[str, Any]]
    threads: int

    def settings(self) -> Any:
        """Return the section and what the variants spend."""
        return {"ablation": self.section, "spent": list(self.spendings.values())}

    def make(self, work: Work) -> Manifest:
        """Compare the checkpoints: losses into the payload, speeds and machine into the facts."""
        rows = []
        speeds = {}
        digests = []
        first: list[float] | None = None  # losses of the first variant
        for name in self.spendings:
            made = self._checkpoints(work.run, name)
            row = self._row(work.run, name, made, first)
            rows.append(row)
            first = first or row["losses"]
            speed = sum(one.facts["tokens_per_second"] for one in made) / len(made)
            speeds[name] = round(speed)
            digests += [one.digest for one in made]
        table = json.dumps({**self.heading, "variants": rows}, indent=1)
        facts = {"tokens_per_second": speeds, **measured_here()}
        with writing(work.run / self.name, self.kind, work.inputs, digests, facts) as out:
            (out / FILE).write_text(table, "utf-8")
        return verify(work.run / self.name, self.kind)

    def _row(
        self, run: Path, name: str, made: list[Manifest], first: list[float] | None
    ) -> dict[str, Any]:
        """Return a variant's row.

        Args:
            run: folder of the run.
            name: of the variant.
            made: its checkpoints, by seed.
            first: losses of the first variant; None for itself.
        """
        losses = [float(one.facts["validation_loss"]) for one in made]
        row = {
            "name": name,
            **self.spendings[name],
            "epochs": made[0].facts["epochs"],
            "losses": losses,
            **compared(losses, first),
        }
        if self.section.eval:
            row["exact"] = self._evaluation(run, name)
        return row

    def _checkpoints(self, run: Path, variant: str) -> list[Manifest]:
        """Return the manifests of a variant's checkpoints, seed by seed."""
        return [
            manifest_of(run / variant_checkpoint(variant, seed), "checkpoint")
            for seed in self.section.seeds
        ]

    def _evaluation(self, run: Path, variant: str) -> dict[str, Any]:
        """Return the exact actions of a variant's bundles, by seed and as {mean, low, high}."""
        cases = list(held_out_cases(run / CORPUS))
        shares = []
        for seed in self.section.seeds:
            bundle = run / variant_bundle(variant, seed)
            values = Values.load(bundle / "values.json")
            rows, _ = evaluate_bundle(bundle, cases, values, self.threads, "own")
            shares.append(rows["all"]["exact"])
        return {"n": len(cases), "shares": shares, **mean_over_seeds(shares)._asdict()}


def compared(losses: Sequence[float], first: Sequence[float] | None) -> dict[str, Any]:
    """Return the mean over seeds, and the difference to the first variant, seed by seed.

    Args:
        losses: by seed.
        first: losses of the first variant; None for itself.

    Returns:
        `loss` and `against_first`, each as {mean, low, high}; `against_first` is None for the first
        variant.
    """
    against = paired_seed_difference(losses, first)._asdict() if first else None
    return {"loss": mean_over_seeds(losses)._asdict(), "against_first": against}


def measured_here() -> dict[str, Any]:
    """Return the machine, its load, the versions and the command of a measurement."""
    cores = len(os.sched_getaffinity(0))
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = version(package)
    return {
        "machine": f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "versions": versions,
        "command": " ".join(["tumen", *sys.argv[1:]]),
    }


def _processor() -> str:
    """Return the processor's name, or its architecture where Linux does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.machine()


def read_table(run: Path) -> dict[str, Any]:
    """Return the table of a run with the facts of its measurement."""
    facts = manifest_of(run / TABLE, "ablation").facts
    table: dict[str, Any] = json.loads((run / TABLE / FILE).read_text("utf-8"))
    return {**table, **facts}
