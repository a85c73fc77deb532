"""`tumen score BUNDLE`: the scorecard of a run, or an exam from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    from tumen.eval import Matcher, exam_digest, examine, own, write_card

    device = where / f"bundle-{recipe.serve.device}"
    values = Values.load(device / "values.json")
    cases = list(own(where / "corpus"))
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
        columns["reference"], answers = examine(few, Matcher().answer, values)
        seconds["reference"] = [answer.seconds for answer in answers]
    made_from = [manifest_of(where / f"bundle-{tier}").digest for tier in served_tiers(recipe)]
    made_from.append(manifest_of(where / "corpus").digest)
    return write_card(
        device, columns, seconds, sizes, made_from, recipe.gate, inputs, exam_digest(cases)
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
    from tumen.eval import Answer, Case, examine
    from tumen.serve.runners import load_runner

    with load_runner(bundle, threads=threads, store=store) as runner:

        def ask(case: Case) -> Answer:
            completion = runner.ask(case.sentence)
            try:
                action = parse(completion.text, runner.ontology)
            except InputError:
                action = None
            return Answer(action, completion.seconds.total, completion.confidence)

        return examine(cases, ask, values)


def _of_labels(
    exam: str, folder: Path, cases: Sequence[Any], answers: Sequence[Any]
) -> dict[str, Any]:
    """What an exam of a public data set tells besides."""
    from tumen.eval import refusal_curve, refusals, slurp_f1
    from tumen.serve.runners import read_bundle_info

    if exam == "slurp":
        return {"slu_f1": round(slurp_f1(cases, answers), 4)}
    if exam != "clinc":
        return {}
    here = refusals(cases, answers, read_bundle_info(folder).serve.unsure)
    return {
        "intent": here["in_scope"],
        "oos_recall": here["oos_recall"],
        "curve": refusal_curve(cases, answers),
    }


def summary(exam: str, rows: dict[str, Any], seconds: Sequence[float]) -> dict[str, Any]:
    """The one object every exam prints. `exact` and `intent` of slurp-home are of the requests to a home.

    `intent` of clinc is of what is in scope, refusals counted as wrong, at the bundle's own `serve.unsure`.
    """
    from tumen.eval import percentile

    p50, p95 = (1000 * percentile(seconds, share) for share in (0.5, 0.95))
    main = rows["home"] if exam == "slurp-home" and "home" in rows else rows["all"]
    aside = rows.get("not home", rows["all"]) if exam == "slurp-home" else rows["all"]
    return {
        "exam": exam,
        "n": main["n"],
        "exact": main["exact"],
        "intent": main["intent"],
        "slu_f1": None,
        "oos_recall": None,
        "curve": None,
        "false_acts": aside["false_acts"],
        "invented": rows["all"]["invented"],
        "latency_ms_p50": round(p50, 2),
        "latency_ms_p95": round(p95, 2),
        "by": {name: _told(row) for name, row in rows.items() if name != "all"},
    }


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the mark of every case."""
    return {name: value for name, value in row.items() if name != "marks"}


def _ohf(data: Path, values: Any) -> Any:
    from tumen.eval import ohf

    return ohf(data, values)


def _slurp(data: Path, values: Any) -> Any:
    from tumen.eval import slurp_home
    from tumen.home import Home

    return slurp_home(data, Home.load())


def _labelled(name: str) -> Callable[[Path, Any], Any]:
    def cases(data: Path, values: Any) -> Any:
        from tumen.eval import clinc, slurp, snips

        return {"slurp": slurp, "clinc": clinc, "snips": snips}[name](data)

    return cases


EXAMS: dict[str, Callable[[Path, Any], Any]] = {"ohf": _ohf, "slurp-home": _slurp} | {
    name: _labelled(name) for name in ("slurp", "clinc", "snips")
}
