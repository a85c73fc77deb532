"""plan: know what a run takes before paying for it.

What: layouts, step time, memory, failures, money; a check against published runs; calibration; serving size.
In: a recipe (its shape and `[plan]`), a fleet such as `h800:10000`; a CSV of published runs; events of a run.
Out: `Plan` (plan.json), a `Report` of errors, a calibration profile. Every figure has an error bar and a grade.
Never: torch, network, printing; a constant fitted to a row or a model.
Read next: case.py, then time.py, memory.py, search.py; plan.py joins them.
"""

from tumen.plan.budget import Spent, spent, step_flops, steps_within
from tumen.plan.calibration import (
    Actual,
    Observation,
    Profile,
    actual,
    benchmark,
    calibrate,
    default_configurations,
    load_profile,
    observed,
    predict,
    store_profile,
    uncalibrated,
)
from tumen.plan.card import Card, Group, card_of, cards, fleet_of
from tumen.plan.comparison import Comparison, Growth, compare, grow, own_and_rented
from tumen.plan.job import Job, Layout, first_group, job_of
from tumen.plan.pictures import page
from tumen.plan.plan import Anchor, Choice, Figure, Plan, anchored, choice, solve
from tumen.plan.report import Report, check
from tumen.plan.serving import Demand, Serving, rate_of, size
from tumen.plan.words import beside, explain, serving_lines, table

__all__ = [
    "Actual",
    "Anchor",
    "Card",
    "Choice",
    "Comparison",
    "Demand",
    "Figure",
    "Group",
    "Growth",
    "Job",
    "Layout",
    "Observation",
    "Plan",
    "Profile",
    "Report",
    "Serving",
    "Spent",
    "actual",
    "anchored",
    "benchmark",
    "beside",
    "calibrate",
    "card_of",
    "cards",
    "check",
    "choice",
    "compare",
    "default_configurations",
    "explain",
    "first_group",
    "fleet_of",
    "grow",
    "job_of",
    "load_profile",
    "observed",
    "own_and_rented",
    "page",
    "predict",
    "rate_of",
    "serving_lines",
    "size",
    "solve",
    "spent",
    "step_flops",
    "steps_within",
    "store_profile",
    "table",
    "uncalibrated",
]
