"""train: learn.

What: one training run of one tier on packed shards, with exact resume.
In: a recipe's train section, a shape, a dataset folder; torchrun's variables; a public checkpoint to start from.
Out: a checkpoint artifact (safetensors), events; the same as a folder that transformers reads; a profile of a few steps.
Never: engines, downloads, pickle.
Read next: loop.py, then optimizer.py and checkpoint.py; public.py for the way in and out.
"""

from tumen.train.checkpoint import load_tensors, read_final
from tumen.train.loop import fit, prepare_torch
from tumen.train.losses import Extra, Targets, Told, loss_of
from tumen.train.profile import profile_steps
from tumen.train.public import export_public, import_public, start_from
from tumen.train.team import half, join, leave

__all__ = [
    "Extra",
    "Targets",
    "Told",
    "export_public",
    "fit",
    "half",
    "import_public",
    "join",
    "leave",
    "load_tensors",
    "loss_of",
    "prepare_torch",
    "profile_steps",
    "read_final",
    "start_from",
]
