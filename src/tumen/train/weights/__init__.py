"""Weights in and out: pretrained models to start from, adapters, Hugging Face folders."""

from tumen.train.checkpoints.checkpoint import read_encoder
from tumen.train.weights.encoder_start import start_encoder_from
from tumen.train.weights.hf_folder import export_public, import_public
from tumen.train.weights.initial import start_from
from tumen.train.weights.lora import Adapter, is_adapter, merged, read_adapter, read_final

__all__ = [
    "Adapter",
    "export_public",
    "import_public",
    "is_adapter",
    "merged",
    "read_adapter",
    "read_encoder",
    "read_final",
    "start_encoder_from",
    "start_from",
]
