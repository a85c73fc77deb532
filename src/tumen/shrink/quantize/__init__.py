"""Quantization: importance, allocation of types in a byte budget, quantization-aware training."""

from tumen.shrink.quantize.allocation import write_grid
from tumen.shrink.quantize.qat import learn_grid

__all__ = ["learn_grid", "write_grid"]
