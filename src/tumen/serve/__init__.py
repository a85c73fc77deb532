"""serve: answer.

What: runs a bundle's model in a child process, asks a cloud tier when the device is unsure, and speaks OpenAI's HTTP.
In: a bundle folder (`model.gguf`, `bundle.json`, manifest); a sentence; HTTP requests nobody has checked.
Out: a `Completion` (compact JSON action, log-probabilities, confidence, seconds), the tier it came from and why.
Never: torch; a model file llama.cpp has not been protected from; a private sentence outside; a sentence in a log.
Read next: runner.py (the boundary), device_runner.py, router.py, then api.py.
"""

from tumen.serve.api import create_app
from tumen.serve.measure import measure_machine, measure_model
from tumen.serve.router import POLICIES, Router, device_first, load_policy
from tumen.serve.server import bind, build_router, build_server, serve
from tumen.serve.synthetic import write_synthetic_gguf

__all__ = [
    "POLICIES",
    "Router",
    "bind",
    "build_router",
    "build_server",
    "create_app",
    "device_first",
    "load_policy",
    "measure_machine",
    "measure_model",
    "serve",
    "write_synthetic_gguf",
]
