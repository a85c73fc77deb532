"""Evaluate bundles: the scorecard of a run, and suites from public data sets for `tumen eval`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tumen.assistant import Reader, known_names
from tumen.assistant.reading import ground
from tumen.assistant.values import Values
from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import InputError
from tumen.eval import (
    Compared,
    EvalCase,
    Prediction,
    evaluate,
    read_scorecard,
    rows_of,
    scorecard_facts,
    suite_digest,
    write_scorecard,
)
from tumen.eval.columns import MatcherColumn, TemplatesFirstColumn
from tumen.eval.states import BOTH, MATCHER, MODEL, understanding_of
from tumen.eval.suites import OWN, DialogueSuite, Suite, held_out_cases, suite_of, summarize
from tumen.language import HOME, parse
from tumen.pipeline.preparation import CORPUS
from tumen.pipeline.stage import Stage, Work
from tumen.recipe import Gate
from tumen.release.signing import TrustStore
from tumen.serve import Router
from tumen.serve.runners import DeviceRunner, KnownName, load_runner, read_bundle_info

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

        both = TemplatesFirstColumn()
        for column, name in self.bundles:
            bundle = work.run / name
            model = ask_bundle(bundle, cases, self.threads, "own")
            rows = rows_of(cases, model.bare, values, model.home_known)
            add(column, rows, model.bare)
            if bundle == device:
                pairs = zip(cases, model.home_known, strict=True)
                answers = [both.answer(case, answer) for case, answer in pairs]
                add("both", rows_of(cases, answers, values), answers)
            sizes[column] = manifest_of(bundle, "bundle").payload_bytes
            work.events.emit("eval", column=column, exact=rows["all"]["exact"], n=len(cases))
        asked = list(self._home_cases(cases))
        if asked:
            add("reference", *evaluate(asked, MatcherColumn().answer, values))
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

    def _home_cases(self, cases: Sequence[EvalCase]) -> Iterator[EvalCase]:
        """Yield the cases for a home; the matcher knows no others."""
        for case in cases:
            if case.gold and case.gold.intent in HOME.intents and case.gold.lang in self.languages:
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
    model = ask_bundle(bundle, cases, threads, store)
    return rows_of(cases, model.bare, values, model.home_known), model.bare


@dataclass(frozen=True)
class ModelAnswers:
    """What a bundle's model answers to each case.

    Attributes:
        bare: to the sentence alone.
        home_known: where it knows the names of the home, which also decide the cut of names.
    """

    bare: list[Prediction]
    home_known: list[Prediction]


def ask_bundle(
    bundle: Path, cases: Sequence[EvalCase], threads: int = 1, store: TrustStore = None
) -> ModelAnswers:
    """Put every case to a bundle's model, with and without the names of its home."""
    with load_runner(bundle, threads=threads, store=store) as runner:
        bare = [_ask(runner, case.sentence) for case in cases]
        pairs = zip(cases, bare, strict=True)
        return ModelAnswers(bare, [_ask_at_home(runner, case, answer) for case, answer in pairs])


def _ask(runner: DeviceRunner, sentence: str, names: Sequence[KnownName] = ()) -> Prediction:
    """Return the model's answer; one sentence that is too long is wrong and ends nothing."""
    try:
        completion = runner.ask(sentence, names=names) if names else runner.ask(sentence)
    except InputError:
        return Prediction(None)
    try:
        action = parse(completion.text, runner.ontology)
    except InputError:
        action = None
    return Prediction(action, completion.seconds.total, completion.confidence)


def _ask_at_home(runner: DeviceRunner, case: EvalCase, bare: Prediction) -> Prediction:
    """Return the answer of a model that knows the names of the case's home.

    Args:
        runner: of the model.
        case: one without a home is answered as before.
        bare: the answer without the names.
    """
    if case.home is None or bare.action is None:
        return bare
    names = known_names(case.home, case.sentence)
    answer = _ask(runner, case.sentence, names) if names else bare
    if answer.action is None or answer.action.intent not in HOME.intents:
        return answer
    grounded = ground(case.sentence, answer.action, case.home)
    # words that name something of the home and have no place in the action stop it
    return replace(answer, action=None if grounded.unaccounted else grounded.action)


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
        understanding: who reads the sentences of a suite of a home: `both` (default), `model` or
            `matcher`; of a suite of dialogues see `tumen.eval.states.understanding_of`.

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
    if understanding is not None and not suite.of_home:
        raise InputError(f"--understanding is of suites of a home; {name} asks the model")
    broken: list[str] = []
    cases = list(suite.cases(data, values, broken))
    if not cases:
        raise InputError(f"{data}: holds no sentence of the suite {name}" + _first_of(broken))
    model = ask_bundle(bundle, cases, threads, store)
    columns = {MODEL: model.bare}
    if suite.of_home:
        columns |= _template_columns(cases, model)
    chosen = understanding or (BOTH if suite.of_home else MODEL)
    if chosen not in columns:
        raise InputError(f"--understanding {chosen}: {name} has {', '.join(columns)}")
    answers = columns[chosen]
    rows = rows_of(cases, answers, values, model.home_known)
    result = summarize(name, rows, [answer.seconds for answer in answers], suite)
    unsure = read_bundle_info(bundle).serve.unsure
    for group, metrics in suite.group_metrics(cases, answers, unsure).items():
        result["by"][group] |= metrics
    if suite.of_home:
        result["understanding"] = chosen
        result["columns"] = {
            column: _column(name, suite, cases, given, values) for column, given in columns.items()
        }
    faults = {"broken": len(broken), "faults": broken}
    return result | suite.metrics(cases, answers, unsure) | faults


def _template_columns(
    cases: Sequence[EvalCase], model: ModelAnswers
) -> dict[str, list[Prediction]]:
    """Return what templates answer, alone and before the model."""
    matcher = MatcherColumn()
    both = TemplatesFirstColumn()
    pairs = zip(cases, model.home_known, strict=True)
    return {
        MATCHER: [matcher.answer(case) for case in cases],
        BOTH: [both.answer(case, answer) for case, answer in pairs],
    }


def _column(
    name: str, suite: Suite, cases: Sequence[EvalCase], given: Sequence[Prediction], values: Values
) -> dict[str, Any]:
    """Return the figures of one of several that read the same sentences."""
    rows = rows_of(cases, given, values)
    figures = summarize(name, rows, [answer.seconds for answer in given], suite)
    kept = ("n", "exact", "intent", "false_acts", "latency_ms_p50", "latency_ms_p95")
    by = {group: row["exact"] for group, row in figures["by"].items() if row["n"]}
    return {**{key: figures[key] for key in kept}, "by": by}


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
