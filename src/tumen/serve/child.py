"""The child process that holds a model: llama.cpp's own server behind a private socket, and nothing else.

Run by its path, so that nothing of tumen is loaded: `python -P child.py MODEL SOCKET THREADS CONTEXT`. It says
`ready` on its standard output and lives until its standard input ends, which the kernel sees to however the parent
dies.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

HTTP_THREADS = 4  # requests that may wait for the one slot; more wait in the parent


def _params(model: str, socket: str, threads: int, context: int) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = [socket]  # a path ending in .sock: no port is opened
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_ctx = params.n_batch = params.n_ubatch = context
    params.n_parallel = 1
    params.n_threads_http = HTTP_THREADS
    params.warmup = False  # the first sentence pays less for its page faults than a warm-up costs
    params.fit_params = False  # no probing of memory: the context is what the recipe says
    params.cache_ram_mib = params.n_ctx_checkpoints = 0  # sentences share no prefix worth keeping
    params.chat_template = "chatml"  # never the file's own template: prompts are complete as sent
    params.ui = params.endpoint_slots = False
    params.offline = True
    params.verbosity = 1  # errors, which the parent reads when the start fails
    return params


def main(model: str, socket: str, threads: str, context: str) -> int:
    """Load, say ready, serve until the parent is gone. Returns an exit code when loading fails."""
    import xllamacpp

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ready = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints is no answer to the parent
    try:
        server = xllamacpp.Server(_params(model, socket, int(threads), int(context)))
    except RuntimeError:
        return 1  # the reason stands on standard error already
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)  # a sentence must never reach a log
    os.write(ready, b"ready\n")
    while os.read(0, 4096):
        pass
    Path(socket).unlink()
    Path(socket).parent.rmdir()
    return 0 if server else 1  # held until here: it answers from threads of its own


if __name__ == "__main__":
    try:
        code = main(*sys.argv[1:])
    except FileNotFoundError:
        code = 0  # the parent removed the socket first
    os._exit(code)  # at once: what a sentence is half through has nobody to read it
