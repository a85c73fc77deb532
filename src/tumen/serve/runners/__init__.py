"""Runners: each turns a sentence into an action, in a child process here or at a cloud endpoint."""

from tumen.serve.runners.bundle_info import BundleInfo, read_bundle_info
from tumen.serve.runners.child_process import ChildProcess
from tumen.serve.runners.device_runner import HEADS_FILE, DeviceRunner, load_runner
from tumen.serve.runners.remote_runner import RemoteRunner
from tumen.serve.runners.runner import Completion, KnownName, Runner, Seconds

__all__ = [
    "HEADS_FILE",
    "BundleInfo",
    "ChildProcess",
    "Completion",
    "DeviceRunner",
    "KnownName",
    "RemoteRunner",
    "Runner",
    "Seconds",
    "load_runner",
    "read_bundle_info",
]
