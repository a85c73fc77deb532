"""Evaluate bundles: the scorecard of a run, and suites from public data sets for `tumen eval`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.assistant import Reader
from tumen.assistant.values import Values
from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import InputError
from tumen.eval import (
    Compared,
    EvalCase,
    MatcherColumn,
    Prediction,
    evaluate,
    read_scorecard,
    scorecard_facts,
    suite_digest,
    write_scorecard,
)
from tumen.eval.states import BOTH, understanding_of
from tumen.eval.suites import OWN, DialogueSuite, held_out_cases, suite_of, summarize
from tumen.language import HOME, parse
from tumen.pipeline.preparation import CORPUS
from tumen.pipeline.stage import Stage, Work
from tumen.recipe import Gate
from tumen.release.signing import TrustStore
from tumen.serve import Router
from tumen.serve.runners import load_runner, read_bundle_info

REFERENCE_CASES = 60  # of a language: the template matcher takes some 10 ms a sentence
Rows = dict[str, dict[str, Any]]  # one row of shares for each group of cases, "all" included


@dataclass(frozen=True)
class ScorecardStage(Stage):
    """The scorecard of a run, inside the device bundle.

    It compares device, cloud and a reference on the same cases.

    Attributes:
        bundles: (column, stage of the bundle), the device's first; see `stages.evaluated_tiers`.
        teacher: column of the tier that the device's learns from, "" without one.
        gate: thresholds of the recipe.
        threads: of a runner.
        languages: of the corpus; the reference answers the first cases of each.
    """

    kind = "scorecard"
    maker = 1
    bundles: tuple[tuple[str, str], ...]
    teacher: str
    gate: Gate
    threads: int
    languages: tuple[str, ...]

    def settings(self) -> Any:
        """Return the thresholds and what is compared; all else is in the parents."""
        return {"gate": self.gate, "bundles": self.bundles, "teacher": self.teacher}

    def make(self, work: Work) -> Manifest:
        """Evaluate the bundles and write the scorecard."""
        device = work.run / self.bundles[0][1]
        values = Values.load(device / "values.json")
        cases = list(held_out_cases(work.run / CORPUS))
        columns: dict[str, Rows] = {}
        seconds: dict[str, list[float]] = {}
        sizes: dict[str, int] = {}

        def add(column: str, rows: Rows, answers: Sequence[Prediction]) -> None:
            columns[column] = rows
            seconds[column] = [answer.seconds for answer in answers]

        for column, name in self.bundles:
            bundle = work.run / name
            rows, answers = evaluate_bundle(bundle, cases, values, self.threads, "own")
            add(column, rows, answers)
            sizes[column] = manifest_of(bundle, "bundle").payload_bytes
            work.events.emit("eval", column=column, exact=rows["all"]["exact"], n=len(cases))
        few = list(self._reference_cases(cases))
        if few:
            add("reference", *evaluate(few, MatcherColumn().answer, values))
        return write_scorecard(
            device,
            columns,
            seconds,
            sizes,
            made_from=[manifest_of(work.run / name).digest for name in self.parents],
            gate=self.gate,
            inputs=work.inputs,
            compared=Compared(suite_digest(cases), self.teacher, self._agreements(work)),
        )

    def _agreements(self, work: Work) -> dict[str, Any]:
        """Return each column's agreement with torch, from the check of its export."""
        found = {}
        for column, name in self.bundles:
            found[column] = manifest_of(work.run / name).facts.get("agreement")
        return found

    def _reference_cases(self, cases: Sequence[EvalCase]) -> Iterator[EvalCase]:
        """Yield each language's first cases for a home; the matcher knows no others."""
        for language in self.languages:
            spoken = [case for case in cases if case.gold and case.gold.lang == language]
            for case in spoken[:REFERENCE_CASES]:
                if case.gold and case.gold.intent in HOME.intents:
                    yield case


def evaluate_bundle(
    bundle: Path,
    cases: Sequence[EvalCase],
    values: Values,
    threads: int = 1,
    store: TrustStore = None,
) -> tuple[Rows, list[Prediction]]:
    """Put every case to a bundle's model.

    Args:
        bundle: folder.
        cases: of one suite.
        values: the lexicon that resolves copied words.
        threads: of the runner.
        store: keys that the bundle's signature is checked with; "own": made on this machine.

    Returns:
        Rows by group, and every answer in the order of the cases.
    """
    with load_runner(bundle, threads=threads, store=store) as runner:

        def ask(case: EvalCase) -> Prediction:
            # one sentence that is too long for the model is wrong and ends nothing
            try:
                completion = runner.ask(case.sentence)
            except InputError:
                return Prediction(None)
            try:
                action = parse(completion.text, runner.ontology)
            except InputError:
                action = None
            return Prediction(action, completion.seconds.total, completion.confidence)

        return evaluate(cases, ask, values)


def evaluate_suite(
    bundle: Path,
    name: str,
    data: Path,
    threads: int,
    store: TrustStore,
    understanding: str | None = None,
) -> dict[str, Any]:
    """Evaluate a bundle on a suite from a user's files; return the object that `tumen eval` prints.

    Args:
        bundle: folder.
        name: of the suite, see `tumen.eval.suites.suite_of`.
        data: file or folder of the suite.
        threads: of the runner.
        store: keys that the bundle's signature is checked with.
        understanding: who reads the sentences of a suite of dialogues, see
            `tumen.eval.states.understanding_of`; default: `both`.

    Raises:
        InputError: the suite is unknown, or the files hold no case of it.
    """
    suite = suite_of(name)
    values = Values.load(bundle / "values.json")
    if isinstance(suite, DialogueSuite):
        info = read_bundle_info(bundle)
        runner = load_runner(bundle, threads=threads, store=store)
        with Reader(Router(runner, None, info.serve)) as reader:
            return suite.play(data, understanding_of(understanding or BOTH, reader), values)
    if understanding is not None:
        raise InputError(f"--understanding is of suites of dialogues; {name} asks the model")
    broken: list[str] = []
    cases = list(suite.cases(data, values, broken))
    if not cases:
        raise InputError(f"{data}: holds no sentence of the suite {name}" + _first_of(broken))
    rows, answers = evaluate_bundle(bundle, cases, values, threads, store)
    result = summarize(name, rows, [answer.seconds for answer in answers], suite)
    unsure = read_bundle_info(bundle).serve.unsure
    for group, metrics in suite.group_metrics(cases, answers, unsure).items():
        result["by"][group] |= metrics
    faults = {"broken": len(broken), "faults": broken}
    return result | suite.metrics(cases, answers, unsure) | faults


def _first_of(broken: Sequence[str]) -> str:
    """Return the first fault of a file, for the error of a file without a case."""
    return f"; {broken[0]}" if broken else ""


def scorecard_summary(bundle: Path) -> dict[str, Any]:
    """Return the scorecard that a bundle carries as the object that `tumen eval` prints."""
    rows = read_scorecard(bundle)["columns"]["device"]
    facts = scorecard_facts(bundle)
    result = summarize(OWN, rows, [])
    for rank in ("p50", "p95"):
        seconds = facts[f"seconds_{rank}"].get("device", 0.0)
        result[f"latency_ms_{rank}"] = round(1000 * seconds, 2)
    return result
