"""Runners answer one sentence: a llama.cpp child process here, or a cloud endpoint."""

from tumen.serve.runners import frames, process
from tumen.serve.runners.device_runner import DeviceRunner, bundle_of, load
from tumen.serve.runners.remote_runner import RemoteRunner
from tumen.serve.runners.runner import Completion, Seconds

__all__ = [
    "Completion",
    "DeviceRunner",
    "RemoteRunner",
    "Seconds",
    "bundle_of",
    "frames",
    "load",
    "process",
]
