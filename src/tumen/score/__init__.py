"""score: judge.

What: exams, what counts as the same action, shares and means with intervals, scorecards, the gate.
In: anything that answers a sentence with an action; cases.
Out: a scorecard artifact, tables, one line that says why a bundle is refused.
Never: training, or a look at an exam before it is scored.
Read next: judge.py, then exams.py and card.py.
"""

from tumen.score.card import examine, gate, insist, show, write_card
from tumen.score.exams import ohf, own, slurp_home
from tumen.score.judge import Answer, Case, percentile, same, tally, wilson
from tumen.score.labelled import clinc, refusal_curve, refusals, slu_f1, slurp, slurp_f1, snips
from tumen.score.reference import Matcher
from tumen.score.seeds import Mean, difference, over_seeds

__all__ = [
    "Answer",
    "Case",
    "Matcher",
    "Mean",
    "clinc",
    "difference",
    "examine",
    "gate",
    "insist",
    "ohf",
    "over_seeds",
    "own",
    "percentile",
    "refusal_curve",
    "refusals",
    "same",
    "show",
    "slu_f1",
    "slurp",
    "slurp_f1",
    "slurp_home",
    "snips",
    "tally",
    "wilson",
    "write_card",
]
