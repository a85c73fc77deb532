"""Runners: each turns a sentence into an action, with a llama.cpp child process here or a cloud endpoint."""

from tumen.serve.runners import process
from tumen.serve.runners.device_runner import DeviceRunner, load_runner, read_bundle_info
from tumen.serve.runners.remote_runner import RemoteRunner
from tumen.serve.runners.runner import Completion, Seconds

__all__ = [
    "Completion",
    "DeviceRunner",
    "RemoteRunner",
    "Seconds",
    "load_runner",
    "process",
    "read_bundle_info",
]
