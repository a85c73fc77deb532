"""Suite `clinc`: intents in scope, and the share that is refused of what is out of scope.

A sentence is refused when the answer is `none` or less sure than `serve.unsure`.
Data: JSON of CLINC150 (github.com/clinc/oos-eval, CC BY 3.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.data.sources import read_clinc
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.eval.suites.gold_labels import GoldLabels, labelled_case
from tumen.eval.suites.suite import Suite
from tumen.language import NONE, Action

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def clinc_cases(path: Path) -> Iterator[EvalCase]:
    """Yield the validation and test rows of a CLINC150 file; all of a file without other rows.

    Raises:
        InputError: not a CLINC150 file.
    """
    rows = list(read_clinc(str(path)))
    held_out = [row for row in rows if row.split != "train"]
    for row in held_out or rows:
        group = "out of scope" if row.intent == NONE else "in scope"
        yield labelled_case(row, group, GoldLabels(row.intent), _any_slots)


def _any_slots(given: Action) -> bool:
    return True  # CLINC150 has no slots


def refusal_metrics(
    cases: Sequence[EvalCase], predictions: Sequence[Prediction], unsure: float
) -> dict[str, float]:
    """Return {in_scope, oos_recall} when answers less sure than `unsure` are refused.

    `in_scope` is the share of right intents; a refused sentence that is in scope is wrong.
    `oos_recall` is the share of refused sentences out of scope.
    """
    in_scope = right = out_of_scope = refused = 0
    for case, prediction in zip(cases, predictions, strict=True):
        is_refused = _is_refused(prediction, unsure)
        if case.labels.intent == NONE:
            out_of_scope += 1
            refused += is_refused
            continue
        in_scope += 1
        action = prediction.action
        right += not is_refused and action is not None and action.intent == case.labels.intent
    return {
        "in_scope": round(right / max(1, in_scope), 4),
        "oos_recall": round(refused / max(1, out_of_scope), 4),
    }


def _is_refused(prediction: Prediction, unsure: float) -> bool:
    if prediction.action is None or prediction.action.intent == NONE:
        return True
    return prediction.confidence < unsure


def refusal_curve(
    cases: Sequence[EvalCase],
    predictions: Sequence[Prediction],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, Any]]:
    """Return `refusal_metrics` at each threshold."""
    return [
        {"unsure": threshold, **refusal_metrics(cases, predictions, threshold)}
        for threshold in thresholds
    ]


def _cases(path: Path, values: Values, broken: list[str]) -> Iterator[EvalCase]:
    return clinc_cases(path)


def _metrics(
    cases: Sequence[EvalCase], predictions: Sequence[Prediction], unsure: float
) -> dict[str, Any]:
    here = refusal_metrics(cases, predictions, unsure)
    return {
        "intent": here["in_scope"],
        "oos_recall": here["oos_recall"],
        "curve": refusal_curve(cases, predictions),
    }


SUITE = Suite(_cases, _metrics)
