"""score: judge.

What: exams, what counts as the same action, shares and means with intervals, scorecards, the gate, promotion and its way back.
In: anything that answers a sentence with an action; cases.
Out: a scorecard artifact, tables, one line that says why a bundle is refused; a bundle that is live in a place.
Never: training, or a look at an exam before it is scored.
Read next: judge.py, then exams.py and card.py.
"""

from tumen.score.card import examine, gate, insist, reached, show, write_card
from tumen.score.exams import ohf, own, slurp_home
from tumen.score.judge import Answer, Case, exam_digest, percentile, same, tally, wilson
from tumen.score.labelled import clinc, refusal_curve, refusals, slu_f1, slurp, slurp_f1, snips
from tumen.score.paired import Interval, gap, ratio
from tumen.score.promotion import promote, rollback
from tumen.score.reading import facts_of, read_card
from tumen.score.reference import Matcher
from tumen.score.seeds import Mean, difference, over_seeds

__all__ = [
    "Answer",
    "Case",
    "Interval",
    "Matcher",
    "Mean",
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
    "tally",
    "wilson",
    "write_card",
]
