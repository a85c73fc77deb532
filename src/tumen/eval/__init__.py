"""eval: is it good enough?

What: exams, what counts as the same action, shares and means with intervals, scorecards, the gate, promotion and its way back.
In: anything that answers a sentence with an action; cases.
Out: a scorecard artifact, tables, one line that says why a bundle is refused; a bundle that is live in a place.
Never: training, or a look at an exam before it is scored.
Read next: metrics.py, then suites.py and scorecard.py.
"""

from tumen.eval.labelled_suites import (
    clinc,
    refusal_curve,
    refusals,
    slu_f1,
    slurp,
    slurp_f1,
    snips,
)
from tumen.eval.matcher import Matcher
from tumen.eval.metrics import Answer, Case, exam_digest, percentile, same, wilson
from tumen.eval.paired import gap, ratio
from tumen.eval.promotion import promote, rollback
from tumen.eval.scorecard import examine, gate, insist, reached, show, write_card
from tumen.eval.scorecard_reader import facts_of, read_card
from tumen.eval.seeds import difference, over_seeds
from tumen.eval.suites import ohf, own, slurp_home

__all__ = [
    "Answer",
    "Case",
    "Matcher",
    "clinc",
    "difference",
    "exam_digest",
    "examine",
    "facts_of",
    "gap",
    "gate",
    "insist",
    "ohf",
    "over_seeds",
    "own",
    "percentile",
    "promote",
    "ratio",
    "reached",
    "read_card",
    "refusal_curve",
    "refusals",
    "rollback",
    "same",
    "show",
    "slu_f1",
    "slurp",
    "slurp_f1",
    "slurp_home",
    "snips",
    "wilson",
    "write_card",
]
