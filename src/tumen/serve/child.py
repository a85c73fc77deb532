"""The child process that holds a model: llama.cpp's own server behind a private socket, and nothing else.

Run by its path, so that nothing of tumen is loaded: `python -P child.py MODEL SOCKET THREADS CONTEXT MEMORY`. It says
`ready` on its standard output and lives until its standard input ends, which the kernel sees to however the parent
dies.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

HTTP_THREADS = 4  # requests that may wait for the one slot; more wait in the parent
STACK_BYTES = 1 << 19  # of the server's threads, when memory is limited
SPARE_BYTES = 26 << 20  # what is mapped after the start and never touched: those stacks, llama.cpp's own reserves


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


def _limit(memory: int) -> None:
    """Never more than `memory` bytes, 0: as many as there are.

    What the system knows to limit is address space, so what is mapped by now and not in use does not count, and threads get
    small stacks (of which they use a few pages).
    """
    if not memory:
        return
    libc, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(64)  # pthread_attr_t, 56 bytes
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK_BYTES))
    libc.pthread_setattr_default_np(attributes)
    mapped, used = map(int, Path("/proc/self/statm").read_text().split()[:2])
    most = memory + (mapped - used) * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(model: str, socket: str, threads: str, context: str, memory: str) -> int:
    """Load, say ready, serve until the parent is gone. Returns an exit code when loading fails."""
    import xllamacpp

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(int(memory))
    ready = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints is no answer to the parent
    try:
        server = xllamacpp.Server(_params(model, socket, int(threads), int(context)))
    except (RuntimeError, MemoryError):
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
