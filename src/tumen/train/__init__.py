"""train: learn.

What: one training run of one tier on packed shards, with exact resume.
In: a recipe's train section, a shape, a dataset folder; torchrun's variables; an outside model to start from.
Out: a checkpoint artifact (safetensors), whole or an adapter; the same as a folder that transformers reads; events; a profile.
Never: engines, downloads, pickle.
Read next: loop.py, then optimizer.py and checkpoint.py; public.py, outside.py: the way in and out; lora.py: adapters.
"""

from tumen.train.checkpoint import load_tensors
from tumen.train.loop import fit, prepare_torch, warm
from tumen.train.lora import Adapter, is_adapter, merged, read_adapter, read_final
from tumen.train.losses import Extra, Targets, Told, loss_of, shares_loss
from tumen.train.outside import start_from
from tumen.train.profile import profile_steps
from tumen.train.public import export_public, import_public
from tumen.train.team import half, join, leave

__all__ = [
    "Adapter",
    "Extra",
    "Targets",
    "Told",
    "export_public",
    "fit",
    "half",
    "import_public",
    "is_adapter",
    "join",
    "leave",
    "load_tensors",
    "loss_of",
    "merged",
    "prepare_torch",
    "profile_steps",
    "read_adapter",
    "read_final",
    "shares_loss",
    "start_from",
    "warm",
]
