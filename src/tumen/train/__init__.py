"""train: learn.

What: one training run of one tier on packed shards, with exact resume.
In: a recipe's train section, a shape, a dataset folder; torchrun's variables; an outside model to
start from.
Out: a checkpoint artifact (safetensors), whole or an adapter; the same as a folder that
transformers reads; events; a profile.
Never: engines, downloads, pickle.
Read next: loop.py, then optimizer.py and checkpoint.py; hf_folder.py, initial.py: the way in and
out; lora.py: adapters.
"""

from tumen.train import loop, losses, metrics, profile, single_process
from tumen.train.encoder_task import EncoderTask
from tumen.train.loop import Making, Method, fit, prepare_torch, warm
from tumen.train.losses import Extra, Inputs, Targets, loss_of, shares_loss
from tumen.train.profile import profile_steps
from tumen.train.world import half, join, leave

__all__ = [
    "EncoderTask",
    "Extra",
    "Inputs",
    "Making",
    "Method",
    "Targets",
    "fit",
    "half",
    "join",
    "leave",
    "loop",
    "loss_of",
    "losses",
    "metrics",
    "prepare_torch",
    "profile",
    "profile_steps",
    "shares_loss",
    "single_process",
    "warm",
]
