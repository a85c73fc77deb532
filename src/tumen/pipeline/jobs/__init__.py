"""pipeline.jobs: trainings on an engine: launch, find, cancel, drill, and account for them.

What: which tier to launch and whether it may be; the jobs of a run; fault drills; where the time of
the accelerators went.
In: a recipe and the folder of its run.
Out: submitted jobs, reports of drills and goodput.
Never: options, printing; a second job for a tier that one trains already.
Read next: launching.py, then accounting.py and drilling.py.
"""

from tumen.pipeline.jobs.accounting import Account, account_for, planned_goodput
from tumen.pipeline.jobs.drilling import PATIENCE_SECONDS, drill_tier
from tumen.pipeline.jobs.launching import (
    Launch,
    LaunchedJob,
    engine_name,
    find_job,
    launched_jobs,
    must_launch,
    prepare_launch,
    tier_progress,
)

__all__ = [
    "PATIENCE_SECONDS",
    "Account",
    "Launch",
    "LaunchedJob",
    "account_for",
    "drill_tier",
    "engine_name",
    "find_job",
    "launched_jobs",
    "must_launch",
    "planned_goodput",
    "prepare_launch",
    "tier_progress",
]
