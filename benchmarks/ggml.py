"""ggml's own quantizer, out of the llama.cpp wheel.

The peer that our search for scales is compared with.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tumen.shrink.quant_types import QUANTIZERS, QuantType


@cache
def library() -> ctypes.CDLL:
    """The wheel's shared library, with the one function that is needed (ggml.h)."""
    found = importlib.util.find_spec("xllamacpp")
    assert found
    assert found.origin
    lib = ctypes.CDLL(str(Path(found.origin).with_name("xllamacpp.abi3.so")))
    pointer = ctypes.c_void_p
    lib.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        pointer,
        pointer,
        *(ctypes.c_int64,) * 3,
        pointer,
    ]
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    return lib


def quantized(weights: Tensor, quant_type: QuantType, importance: Tensor | None = None) -> Tensor:
    """Bytes (..., bytes of a row), uint8, of fp32 weights (..., columns).

    Args:
        importance: (..., 1, columns); without it, round-to-nearest.
    """
    chosen, columns = QUANTIZERS[quant_type], weights.shape[-1]
    given = np.ascontiguousarray(weights.reshape(-1, weights.shape[-2], columns).numpy())
    counts = (
        None
        if importance is None
        else np.ascontiguousarray(importance.reshape(-1, columns).numpy())
    )
    out = np.zeros((len(given), chosen.bytes_of(weights) // len(given)), np.uint8)
    for number, matrix in enumerate(given):
        column_weights = None if counts is None else counts[number % len(counts)].ctypes.data
        library().ggml_quantize_chunk(
            int(chosen.kind),
            matrix.ctypes.data,
            out[number].ctypes.data,
            0,
            len(matrix),
            columns,
            column_weights,
        )
    return torch.from_numpy(out).reshape(*weights.shape[:-1], -1)
