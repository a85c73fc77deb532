"""`tumen score BUNDLE`: the scorecard of a run, or an exam from outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import InputError
from tumen.core.events import Events
from tumen.language import HOME, parse
from tumen.pipeline.stages import served_tiers
from tumen.recipe import Recipe
from tumen.release import signing

REFERENCE_CASES = 60  # a language: the template matcher takes some 10 ms a sentence


def score_run(recipe: Recipe, where: Path, inputs: str, events: Events) -> Manifest:
    """Examine the bundles of a run and write the scorecard into the device bundle."""
    from tumen.assistant.values import Values
    from tumen.eval import TemplateMatcher, evaluate, suite_digest, write_scorecard
    from tumen.eval.suites import held_out_cases

    device = where / f"bundle-{recipe.serve.device}"
    values = Values.load(device / "values.json")
    cases = list(held_out_cases(where / "corpus"))
    columns: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for column, tier in zip(("device", "cloud"), served_tiers(recipe), strict=False):
        bundle = where / f"bundle-{tier}"
        sizes[column] = sum(file.bytes for file in manifest_of(bundle, "bundle").files.values())
        columns[column], answers = examine_bundle(
            bundle, cases, values, recipe.serve.threads, "own"
        )
        seconds[column] = [answer.seconds for answer in answers]
        events.emit("exam", column=column, exact=columns[column]["all"]["exact"], n=len(cases))
    few = [
        case
        for lang in recipe.data.languages
        for case in _first(cases, lang, REFERENCE_CASES)
        if case.gold.intent in HOME.intents
    ]
    if few:  # the template matcher knows no other intents
        columns["reference"], answers = evaluate(few, TemplateMatcher().answer, values)
        seconds["reference"] = [answer.seconds for answer in answers]
    made_from = [manifest_of(where / f"bundle-{tier}").digest for tier in served_tiers(recipe)]
    made_from.append(manifest_of(where / "corpus").digest)
    return write_scorecard(
        device, columns, seconds, sizes, made_from, recipe.gate, inputs, suite_digest(cases)
    )


def _first(cases: Sequence[Any], lang: str, count: int) -> list[Any]:
    return [case for case in cases if case.gold and case.gold.lang == lang][:count]


def examine_bundle(
    bundle: Path,
    cases: Sequence[Any],
    values: Any,
    threads: int = 1,
    store: signing.TrustStore = None,
) -> tuple[dict[str, Any], list[Any]]:
    """Rows by group and every answer of one bundle."""
    from tumen.eval import EvalCase, Prediction, evaluate
    from tumen.serve.runners import load_runner

    with load_runner(bundle, threads=threads, store=store) as runner:

        def ask(case: EvalCase) -> Prediction:
            completion = runner.ask(case.sentence)
            try:
                action = parse(completion.text, runner.ontology)
            except InputError:
                action = None
            return Prediction(action, completion.seconds.total, completion.confidence)

        return evaluate(cases, ask, values)
