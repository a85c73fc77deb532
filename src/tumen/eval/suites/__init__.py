"""Eval suites: cases from the run's own held-out sentences and from files that a user has.

What: a generator of cases for each suite, and the metrics that are its own.
In: a corpus artifact; a checkout of OHF-Voice/intents; files of SLURP, MASSIVE, CLINC150 or SNIPS.
Out: `EvalCase`s; `Suite`s by name; the object that `tumen eval` prints.
Never: a download; training rows.
Read next: suite.py, then held_out.py, home_assistant.py and slurp.py.
"""

from tumen.eval.suites.clinc import clinc_cases, refusal_curve, refusal_metrics
from tumen.eval.suites.held_out import held_out_cases
from tumen.eval.suites.home_assistant import home_assistant_cases
from tumen.eval.suites.massive import massive_cases, slot_f1
from tumen.eval.suites.slu_f1 import slu_f1
from tumen.eval.suites.slurp import slurp_cases, slurp_f1
from tumen.eval.suites.slurp_home import slurp_home_cases
from tumen.eval.suites.snips import snips_cases
from tumen.eval.suites.suite import OWN, SUITES, DialogueSuite, Suite, suite_of, summarize

__all__ = [
    "OWN",
    "SUITES",
    "DialogueSuite",
    "Suite",
    "clinc_cases",
    "held_out_cases",
    "home_assistant_cases",
    "massive_cases",
    "refusal_curve",
    "refusal_metrics",
    "slot_f1",
    "slu_f1",
    "slurp_cases",
    "slurp_f1",
    "slurp_home_cases",
    "snips_cases",
    "suite_of",
    "summarize",
]
