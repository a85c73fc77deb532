"""The planner against measurements: published runs, this machine, fitted constants."""

from tumen.plan.accuracy import calibration, published
from tumen.plan.accuracy.calibration import (
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
from tumen.plan.accuracy.report import check

__all__ = [
    "actual",
    "benchmark",
    "calibrate",
    "calibration",
    "check",
    "default_configurations",
    "load_profile",
    "observed",
    "predict",
    "published",
    "store_profile",
    "uncalibrated",
]
