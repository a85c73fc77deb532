"""train: learn.

What: one training run of one tier on packed shards, with exact resume.
In: a recipe's train section, a shape, a dataset folder; torchrun's variables.
Out: a checkpoint artifact (safetensors), events.
Never: engines, downloads, pickle.
Read next: loop.py, then optimizer.py and checkpoint.py.
"""

from tumen.train.checkpoint import load_tensors, read_final
from tumen.train.loop import fit, prepare_torch
from tumen.train.losses import loss_of

__all__ = ["fit", "load_tensors", "loss_of", "prepare_torch", "read_final"]
