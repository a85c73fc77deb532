"""plan: know what a run takes before paying for it.

What: layouts, step time, memory, failures, money; a check against published runs; calibration; serving size.
In: a recipe (its shape and `[plan]`), a fleet such as `h800:10000`; a CSV of published runs; events of a run.
Out: `Plan` (plan.json), a `Report` of errors, a calibration profile. Every figure has an error bar and a grade.
Never: torch, network, printing; a constant fitted to a row or a model.
Read next: case.py, then time.py, memory.py, search.py; plan.py joins them.
"""

from tumen.plan.budget import spent, step_flops, steps_within
from tumen.plan.comparison import compare, grow, own_and_rented
from tumen.plan.failure import goodput, reliability
from tumen.plan.job import Job, Layout, first_group, job_of
from tumen.plan.pictures import page
from tumen.plan.plan import Plan, anchored, solve
from tumen.plan.serving import Demand, rate_of, size
from tumen.plan.words import beside, explain, serving_lines, table

__all__ = [
    "Demand",
    "Job",
    "Layout",
    "Plan",
    "anchored",
    "beside",
    "compare",
    "explain",
    "first_group",
    "goodput",
    "grow",
    "job_of",
    "own_and_rented",
    "page",
    "rate_of",
    "reliability",
    "serving_lines",
    "size",
    "solve",
    "spent",
    "step_flops",
    "steps_within",
    "table",
]
