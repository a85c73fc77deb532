"""`tumen score BUNDLE`: the scorecard of a run, or an exam from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from tumen.assistant.values import Values
from tumen.cli.options import TRUST
from tumen.core.errors import InputError
from tumen.eval import read_scorecard, scorecard_facts, scorecard_text
from tumen.eval.suites import OWN, suite_of, summarize
from tumen.pipeline.evaluate import examine_bundle
from tumen.pipeline.folder import admitted
from tumen.serve.runners import read_bundle_info


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

    folder = admitted(bundle, store)
    if exam == "own" and data is None:
        _show_own(folder, as_json)
        return
    suite = suite_of(exam)
    if data is None:
        raise InputError(f"--exam {exam} reads files that you have: name them with --data")
    values = Values.load(folder / "values.json")
    cases = list(suite.cases(data, values))
    if not cases:
        raise InputError(f"{data}: no sentences of this exam in it")
    rows, answers = examine_bundle(folder, cases, values, threads, store)
    result = summarize(exam, rows, [answer.seconds for answer in answers], suite)
    result |= suite.metrics(cases, answers, read_bundle_info(folder).serve.unsure)
    print(json.dumps(result, ensure_ascii=False) if as_json else _table(result))


def _show_own(folder: Path, as_json: bool) -> None:
    card = folder / "scorecard"
    if not as_json:
        print(scorecard_text(card))
        return
    rows = read_scorecard(folder)["columns"]["device"]
    facts = scorecard_facts(folder)
    print(
        json.dumps(
            summarize(OWN, rows, [])
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
