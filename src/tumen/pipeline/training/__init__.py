"""pipeline.training: one tier of a run as a job on an engine, watched and followed, and the work of its ranks.

What: what a tier asks of an engine, its job, its watcher, and what `tumen train` does in each rank.
In: a stage of a run, the run folder.
Out: a checkpoint, events, jobs/TIER of the run.
Never: options, printing.
Read next: tier.py, then learn.py.
"""
