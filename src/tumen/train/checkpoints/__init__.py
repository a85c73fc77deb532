"""Checkpoints on disk and their replicas in the memory of other nodes."""

from tumen.train.checkpoints import checkpoint, replicas
from tumen.train.checkpoints.checkpoint import load_tensors

__all__ = ["checkpoint", "load_tensors", "replicas"]
