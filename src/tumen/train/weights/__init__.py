"""Weights in and out: pretrained models to start from, adapters, Hugging Face folders."""

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
    "read_final",
    "start_from",
]
