"""The planner against measurements: published runs, and this machine.

What: errors against published runs, the fit of the constants, and profiles of this machine.
In: a CSV of published runs; events of a run, or a benchmark in child processes.
Out: a `Report` of errors, `Fitted` constants and factors, a calibration `Profile`.
Never: torch in this process; a constant fitted to a row or a model.
Read next: published.py and row_facts.py, then report.py and fitting.py; measurement.py, then
calibration.py.
"""

from tumen.plan.accuracy.calibration import (
    Profile,
    actual,
    calibrate,
    load_profile,
    predict,
    store_profile,
    uncalibrated,
)
from tumen.plan.accuracy.measurement import benchmark, default_configurations, observed
from tumen.plan.accuracy.report import check

__all__ = [
    "Profile",
    "actual",
    "benchmark",
    "calibrate",
    "check",
    "default_configurations",
    "load_profile",
    "observed",
    "predict",
    "store_profile",
    "uncalibrated",
]
