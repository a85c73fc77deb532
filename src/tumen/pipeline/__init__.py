"""pipeline: recipe -> stages -> artifacts.

What: the stages of a recipe, making what is missing, what is stale and why; training, packing and
evaluation of its tiers.
In: a recipe and the folder of its run.
Out: artifacts in the folder of the run, events, reports.
Never: options, printing; reading the whole recipe anywhere but in stages.py.
Read next: run.py, then stages.py and stage.py.
"""

from tumen.pipeline import checkpoint_io, evaluate, exporters, rank
from tumen.pipeline.folder import (
    cloud_bundle,
    default_bundle,
    device_bundle,
    engine_of,
    newest_run,
    read_run_recipe,
    recipe_and_run,
    run_folder,
    store_of,
    trusted_bundle,
)
from tumen.pipeline.lineage import Link, links
from tumen.pipeline.run import Run, with_plan
from tumen.pipeline.stage import Progress, Update

__all__ = [
    "Link",
    "Progress",
    "Run",
    "Update",
    "checkpoint_io",
    "cloud_bundle",
    "default_bundle",
    "device_bundle",
    "engine_of",
    "evaluate",
    "exporters",
    "links",
    "newest_run",
    "rank",
    "read_run_recipe",
    "recipe_and_run",
    "run_folder",
    "store_of",
    "trusted_bundle",
    "with_plan",
]
