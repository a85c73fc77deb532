"""eval: is it good enough?

What: eval suites, when two actions count as the same, metrics with intervals, scorecards, the gate,
promotion and rollback.
In: anything that answers a sentence with an action; cases.
Out: a scorecard artifact, tables, one line that says why a bundle misses its gate; a live bundle.
Never: training; a look at a suite's answers before they are scored.
Read next: eval_case.py, then tally.py, suites/ and gate.py.
"""

from tumen.eval.equivalence import same_action
from tumen.eval.eval_case import EvalCase, Prediction, suite_digest
from tumen.eval.gate import ALONE, CLOUD, DEVICE, TEACHER, gate_fault, require_gate
from tumen.eval.promotion import promote, rollback
from tumen.eval.scorecard import Compared, write_scorecard
from tumen.eval.scorecard_reader import read_scorecard, scorecard_facts
from tumen.eval.scorecard_view import classes_line, scorecard_text
from tumen.eval.tally import evaluate, rows_of

__all__ = [
    "ALONE",
    "CLOUD",
    "DEVICE",
    "TEACHER",
    "Compared",
    "EvalCase",
    "Prediction",
    "classes_line",
    "evaluate",
    "gate_fault",
    "promote",
    "read_scorecard",
    "require_gate",
    "rollback",
    "rows_of",
    "same_action",
    "scorecard_facts",
    "scorecard_text",
    "suite_digest",
    "write_scorecard",
]
