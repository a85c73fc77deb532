"""pipeline.training: a tier's training: stage, job on an engine, watcher, work of its ranks.

What: what decides a tier's weights; the job that trains it; the watcher beside a local one; the
training inside a rank.
In: a tier's section of the recipe, the folder of the run.
Out: a checkpoint, events, jobs/TIER of the run.
Never: options, printing.
Read next: tier.py, then learn.py.
"""

from tumen.pipeline.training.tier import QatStage, TrainingStage
from tumen.pipeline.training.tier_job import FOLDER, job_folder
from tumen.pipeline.training.watcher_process import gave_up

__all__ = ["FOLDER", "QatStage", "TrainingStage", "gave_up", "job_folder"]
