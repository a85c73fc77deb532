"""serve: answer.

What: runs a bundle's model in a child process, asks a cloud tier when the device is unsure, and speaks OpenAI's HTTP.
In: a bundle folder (`model.gguf`, `bundle.json`, manifest); a sentence; HTTP requests nobody has checked.
Out: a `Completion` (compact JSON action, log-probabilities, confidence, seconds), the tier it came from and why.
Never: torch; a model file llama.cpp has not been protected from; a private sentence outside; a sentence in a log.
Read next: runner.py (the boundary), device_runner.py, router.py, then api.py.
"""

from tumen.serve.api import app
from tumen.serve.router import POLICIES, Router, device_first, policy_of
from tumen.serve.server import bind, connect, serve, server_of
from tumen.serve.synthetic import write_synthetic
from tumen.serve.trial import try_here, try_model

__all__ = [
    "POLICIES",
    "Router",
    "app",
    "bind",
    "connect",
    "device_first",
    "policy_of",
    "serve",
    "server_of",
    "try_here",
    "try_model",
    "write_synthetic",
]
