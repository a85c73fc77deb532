"""Quantization: importance, allocation of types in a byte budget, quantization-aware training."""

from tumen.shrink.quantize.allocation import write_types
from tumen.shrink.quantize.qat import train_quantized

__all__ = ["train_quantized", "write_types"]
