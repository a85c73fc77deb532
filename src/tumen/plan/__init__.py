"""plan: know what a run takes before paying for it.

What: layouts, step time, memory, failures, money; a check against published runs; calibration; serving size; what fits a device.
In: a recipe (its shape and `[plan]`), a fleet such as `h800:10000`; a CSV of published runs; events of a run.
Out: `Plan` (plan.json), a `Report` of errors, a calibration profile. Every figure has an error bar and a grade.
Never: torch, network, printing; a constant fitted to a row or a model.
Read next: case.py, then time.py, memory.py, search.py; plan.py joins them. Devices: footprint.py, device.py, pocket.py.
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
from tumen.plan.device import HERE, Device, decode_seconds, device_of, devices, load_device, store_device
from tumen.plan.failure import Reliability, goodput, reliability
from tumen.plan.footprint import KINDS, Footprint, Tensor, block_bytes, shape_tensors
from tumen.plan.footprint import of_header as footprint_of_header
from tumen.plan.footprint import of_shape as footprint_of_shape
from tumen.plan.job import Job, Layout, first_group, job_of
from tumen.plan.pace import Trial, cache_size, device_here
from tumen.plan.pictures import page
from tumen.plan.plan import Anchor, Choice, Figure, Plan, anchored, choice, solve
from tumen.plan.pocket import Cut, Fit, best, checked_context, fit_on
from tumen.plan.report import Report, check
from tumen.plan.serving import Demand, Serving, rate_of, size
from tumen.plan.words import beside, explain, serving_lines, table

__all__ = [
    "HERE",
    "KINDS",
    "Actual",
    "Anchor",
    "Card",
    "Choice",
    "Comparison",
    "Cut",
    "Demand",
    "Device",
    "Figure",
    "Fit",
    "Footprint",
    "Group",
    "Growth",
    "Job",
    "Layout",
    "Observation",
    "Plan",
    "Profile",
    "Reliability",
    "Report",
    "Serving",
    "Spent",
    "Tensor",
    "Trial",
    "actual",
    "anchored",
    "benchmark",
    "beside",
    "best",
    "block_bytes",
    "cache_size",
    "calibrate",
    "card_of",
    "cards",
    "check",
    "checked_context",
    "choice",
    "compare",
    "decode_seconds",
    "default_configurations",
    "device_here",
    "device_of",
    "devices",
    "explain",
    "first_group",
    "fit_on",
    "fleet_of",
    "footprint_of_header",
    "footprint_of_shape",
    "goodput",
    "grow",
    "job_of",
    "load_device",
    "load_profile",
    "observed",
    "own_and_rented",
    "page",
    "predict",
    "rate_of",
    "reliability",
    "serving_lines",
    "shape_tensors",
    "size",
    "solve",
    "spent",
    "step_flops",
    "steps_within",
    "store_device",
    "store_profile",
    "table",
    "uncalibrated",
]
