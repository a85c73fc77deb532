"""fit: does this model run on that device?

What: bytes and speed of a model on a device, what to cut when it does not fit, a measured profile
of this machine.
In: a shape or a GGUF header, a device of devices.toml or a measured one.
Out: a verdict with memory, tokens per second and the cuts that would make it fit.
Never: torch, a device that nobody measured without saying so.
Read next: verdict.py, then footprint.py, pace.py and device.py.
"""

from tumen.fit import stored
from tumen.fit.device import HERE, device_of, devices, load_device, store_device
from tumen.fit.footprint import Footprint, TensorSize, of_header, of_shape, shape_tensors
from tumen.fit.nnls import nonnegative
from tumen.fit.pace import Trial, cache_size, device_here
from tumen.fit.verdict import Fit, best, checked_context, fit_on

__all__ = [
    "HERE",
    "Fit",
    "Footprint",
    "TensorSize",
    "Trial",
    "best",
    "cache_size",
    "checked_context",
    "device_here",
    "device_of",
    "devices",
    "fit_on",
    "load_device",
    "nonnegative",
    "of_header",
    "of_shape",
    "shape_tensors",
    "store_device",
    "stored",
]
