"""`tumen score BUNDLE`: the scorecard of a run, or an exam from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import DiskError, InputError
from tumen.core.events import Events
from tumen.language import HOME, parse
from tumen.recipe import Recipe
from tumen.release import signing, slot

TRUST = typer.Option(
    None,
    "--trust",
    envvar="TUMEN_TRUST",
    help="A .pub file or a folder of them: whose bundles are let in.",
)
REFERENCE_CASES = 60  # a language: the template matcher takes some 10 ms a sentence


def score_run(recipe: Recipe, where: Path, inputs: str, events: Events) -> Manifest:
    """Examine the bundles of a run and write the scorecard into the device bundle."""
    from tumen.assistant.values import Values
    from tumen.cli.chain import served_tiers
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
    bundle: Path, cases: Sequence[Any], values: Any, threads: int = 1, store: signing.Store = None
) -> tuple[dict[str, Any], list[Any]]:
    """Rows by group and every answer of one bundle."""
    from tumen.eval import Answer, Case, examine
    from tumen.serve.runners import load

    with load(bundle, threads=threads, store=store) as runner:

        def ask(case: Case) -> Answer:
            completion = runner.ask(case.sentence)
            try:
                action = parse(completion.text, runner.ontology)
            except InputError:
                action = None
            return Answer(action, completion.seconds.total, completion.confidence)

        return examine(cases, ask, values)


def score_(
    bundle: Path = typer.Argument(
        ..., help="A bundle, or the folder of a run (its device bundle)."
    ),
    exam: str = typer.Option("own", help="own, ohf, slurp-home, slurp, clinc or snips."),
    data: Path = typer.Option(
        None,
        help="File or folder of the exam: a checkout of OHF-Voice/intents, a SLURP jsonl, CLINC150's JSON, a folder of SNIPS.",
    ),
    threads: int = typer.Option(1, help="Threads of the runner."),
    store: Path = TRUST,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Examine a bundle. Without --exam: show the scorecard it carries."""
    from tumen.assistant.values import Values

    folder = admitted(bundle, store)
    if exam == "own" and data is None:
        _show_own(folder, as_json)
        return
    if exam not in EXAMS:
        raise InputError(f"--exam {exam!r} is unknown; known: own, {', '.join(EXAMS)}")
    if data is None:
        raise InputError(f"--exam {exam} reads files that you have: name them with --data")
    values = Values.load(folder / "values.json")
    cases = list(EXAMS[exam](data, values))
    if not cases:
        raise InputError(f"{data}: no sentences of this exam in it")
    rows, answers = examine_bundle(folder, cases, values, threads, store)
    result = summary(exam, rows, [answer.seconds for answer in answers]) | _of_labels(
        exam, folder, cases, answers
    )
    print(json.dumps(result, ensure_ascii=False) if as_json else _table(result))


def _of_labels(
    exam: str, folder: Path, cases: Sequence[Any], answers: Sequence[Any]
) -> dict[str, Any]:
    """What an exam of a public data set tells besides."""
    from tumen.eval import refusal_curve, refusals, slurp_f1
    from tumen.serve.runners import bundle_of

    if exam == "slurp":
        return {"slu_f1": round(slurp_f1(cases, answers), 4)}
    if exam != "clinc":
        return {}
    here = refusals(cases, answers, bundle_of(folder).serve.unsure)
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


def _show_own(folder: Path, as_json: bool) -> None:
    from tumen.eval import facts_of, read_card, show

    card = folder / "scorecard"
    if not as_json:
        print(show(card))
        return
    rows = read_card(folder)["columns"]["device"]
    facts = facts_of(folder)
    print(
        json.dumps(
            summary("own", rows, [])
            | {
                f"latency_ms_{p}": round(1000 * facts[f"seconds_{p}"].get("device", 0.0), 2)
                for p in ("p50", "p95")
            },
            ensure_ascii=False,
        )
    )


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"exam {result['exam']}: n {result['n']}, "
        f"right intent {100 * result['intent']:.1f} %, exact {100 * result['exact']:.1f} %, "
        + "".join(
            f"{title} {100 * result[name]:.2f} %, "
            for name, title in (
                ("slu_f1", "SLU-F1"),
                ("oos_recall", "out of scope refused"),
                ("false_acts", "false acts"),
            )
            if result[name] is not None
        )
        + f"invented {result['invented']}, {result['latency_ms_p50']:.1f} ms median, {result['latency_ms_p95']:.1f} ms 95%"
    ]
    for name, row in sorted(result["by"].items()):
        false = (
            f"  false acts {100 * row['false_acts']:.2f} %" if row["false_acts"] is not None else ""
        )
        lines.append(
            f"  {name:<32}{row['n']:>6}  intent {100 * row['intent']:5.1f}  exact {100 * row['exact']:5.1f}{false}"
        )
    return "\n".join(lines)


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


def device_bundle(path: Path) -> Path:
    """A bundle folder as it is, the device bundle of a run folder, or what is live in a place.

    Raises:
        InputError: neither.
    """
    if (path / "bundle.json").exists():
        return path
    if (path / "recipe.json").exists():
        from tumen.cli.train import read_run_recipe

        return path / f"bundle-{read_run_recipe(path).serve.device}"
    if slot.is_place(path):
        return slot.live_bundle(path)
    raise InputError(
        f"{path}: neither a bundle nor the folder of a run; `tumen run RECIPE` makes both"
    )


def admitted(path: Path, store: Path | None) -> Path:
    """The bundle that a path means, let in by the trust store; the run or place that it stands in hears if nobody signed it.

    Raises:
        InputError, ArtifactError: see `device_bundle` and `signing.admit`.
    """
    folder = device_bundle(path)
    above = folder.parents[1] if folder.parent.name == slot.BUNDLES else folder.parent
    kept = above / slot.EVENTS
    try:
        events = Events(kept if kept.exists() and os.access(kept, os.W_OK) else None)
    except DiskError:
        events = Events(None)
    signing.admit(folder, store, events)
    return folder
