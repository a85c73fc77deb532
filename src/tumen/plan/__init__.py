"""plan: know what a run takes before paying for it.

What: layouts, step time, memory, failures, cost; a check against published runs; calibration;
    serving size.
In: a recipe (its shape and `[plan]`), a fleet such as `h800:10000`; a CSV of published runs; events
    of a run.
Out: `Plan` (plan.json), an accuracy `Report`, a calibration profile. Every figure has an error bar
    and a grade.
Never: torch, network, printing; a constant fitted to a row or a model.
Read next: workload.py and layout.py, then space.py and search.py, then solver.py; model/ has the
formulas.
"""

from tumen.plan.budget import step_flops, steps_within, training_compute
from tumen.plan.comparison import Comparison, Growth, compare, grow, own_and_rented
from tumen.plan.failure import goodput, reliability
from tumen.plan.layout import Layout
from tumen.plan.planned_run import Plan
from tumen.plan.serving import Demand, ServedModel, rate_of, size_serving
from tumen.plan.solver import anchored, solve
from tumen.plan.workload import Workload, workload_of

__all__ = [
    "Comparison",
    "Demand",
    "Growth",
    "Layout",
    "Plan",
    "ServedModel",
    "Workload",
    "anchored",
    "compare",
    "goodput",
    "grow",
    "own_and_rented",
    "rate_of",
    "reliability",
    "size_serving",
    "solve",
    "step_flops",
    "steps_within",
    "training_compute",
    "workload_of",
]
