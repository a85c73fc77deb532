"""A suite: where its cases come from, and which metrics it reports beyond the common ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.core.table import named
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.eval.statistics import percentile

OWN = "own"  # the run's held-out sentences; their results are in the scorecard
SUITES = {
    "ohf": "tumen.eval.suites.home_assistant:SUITE",
    "slurp-home": "tumen.eval.suites.slurp_home:SUITE",
    "slurp": "tumen.eval.suites.slurp:SUITE",
    "clinc": "tumen.eval.suites.clinc:SUITE",
    "snips": "tumen.eval.suites.snips:SUITE",
    "massive": "tumen.eval.suites.massive:SUITE",
    "states": "tumen.eval.states:SUITE",
    "assist": "tumen.eval.states.assist_rows:SUITE",
}
# (file or folder, lexicon, takes one line for each row that cannot be used) -> cases
Cases = Callable[[Path, Values, list[str]], Iterator[EvalCase]]
Metrics = Callable[[Sequence[EvalCase], Sequence[Prediction], float], dict[str, Any]]


def _no_metrics(
    cases: Sequence[EvalCase], predictions: Sequence[Prediction], unsure: float
) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Suite:
    """One eval suite.

    Attributes:
        cases: reads the cases from the user's file or folder; a row that cannot be used is counted
            and ends nothing.
        metrics: (cases, predictions, confidence below which an answer is refused) -> metrics that
            replace or extend the common ones.
        headline: group whose shares are reported as the suite's own, where there is one.
        not_home: group whose false acts are reported, where there is one.
        of_home: whether its sentences are said to a home, so that templates may answer them too.
        by_group: whether each group has the suite's own metrics as well.
    """

    cases: Cases
    metrics: Metrics = _no_metrics
    headline: str = "all"
    not_home: str = "all"
    of_home: bool = False
    by_group: bool = False

    def group_metrics(
        self, cases: Sequence[EvalCase], predictions: Sequence[Prediction], unsure: float
    ) -> dict[str, dict[str, Any]]:
        """Return the suite's own metrics of each group."""
        if not self.by_group:
            return {}
        places: dict[str, list[int]] = {}
        for place, case in enumerate(cases):
            for group in case.groups:
                places.setdefault(group, []).append(place)
        found = {}
        for group, at in places.items():
            some = [cases[place] for place in at]
            found[group] = self.metrics(some, [predictions[place] for place in at], unsure)
        return found


@dataclass(frozen=True)
class DialogueSuite:
    """A suite that talks to homes and judges what is different afterwards, not an action.

    Attributes:
        play: (file or folder, what understands the sentences, lexicon) -> the object that
            `tumen eval` prints.
        lines: that object -> lines for people.
    """

    play: Callable[[Path, Any, Values], dict[str, Any]]
    lines: Callable[[Mapping[str, Any]], Iterator[str]]


def suite_of(name: str) -> Suite | DialogueSuite:
    """Return a suite by its name in `SUITES`, or a team's own as `package.module:SUITE`.

    Raises:
        InputError: unknown.
    """
    suite: Suite | DialogueSuite = named(name, SUITES, "eval suite", InputError)
    return suite


def summarize(
    name: str,
    rows: Mapping[str, Mapping[str, Any]],
    seconds: Sequence[float],
    suite: Suite | None = None,
) -> dict[str, Any]:
    """Return the one object that every suite reports.

    Args:
        name: of the suite.
        rows: by group, from `evaluate`.
        seconds: of every answer.
        suite: None for the run's own held-out sentences.

    Returns:
        Shares of the headline group, latencies in milliseconds, and rows by group without marks.
    """
    headline = rows["all"]
    not_home = rows["all"]
    if suite is not None:
        headline = rows.get(suite.headline, headline)
        not_home = rows.get(suite.not_home, not_home)
    return {
        "suite": name,
        "n": headline["n"],
        "exact": headline["exact"],
        "intent": headline["intent"],
        "exact_home_known": headline.get("exact_home_known"),
        "slu_f1": None,
        "slot_f1": None,
        "oos_recall": None,
        "curve": None,
        "false_acts": not_home["false_acts"],
        "invented": rows["all"]["invented"],
        "latency_ms_p50": round(1000 * percentile(seconds, 0.5), 2),
        "latency_ms_p95": round(1000 * percentile(seconds, 0.95), 2),
        "by": {group: _without_marks(row) for group, row in rows.items() if group != "all"},
    }


def _without_marks(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "marks"}
