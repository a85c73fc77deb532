"""serve: answer a sentence with an action, on this device or in the cloud, over OpenAI's HTTP API.

What: runs a bundle's model in a child process; asks a cloud tier when the device is unsure.
In: a bundle folder (`model.gguf`, `bundle.json`, manifest), a sentence, untrusted HTTP requests.
Out: a `Completion` (action as JSON, log-probabilities, confidence, seconds), its tier and why.
Never: torch; an unchecked file in llama.cpp; a private sentence sent out; a sentence in a log.
Read next: runner.py (the interface), device_runner.py, router.py, then api.py.
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
