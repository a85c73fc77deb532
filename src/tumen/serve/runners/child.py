"""The child process that holds a model: it decodes for whoever speaks to its private socket, one request after the other.

Run by its path, `python -P child.py`, so that nothing of tumen is loaded but the few files decoding takes. The first frame on
its standard input says what to load; then it says `ready` on its standard output and lives until its standard input ends, which the
kernel sees to however the parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import select
import socket
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tumen.serve.runners.answer import Answerer

SILENCE_SECONDS = 5.0  # for a request that does not come, or an answer nobody takes
WAITING = 64  # connections
STACK_BYTES = 1 << 19  # of the runner's threads, when memory is limited
SPARE_BYTES = (
    26 << 20
)  # what is mapped after the start and never touched: those stacks, llama.cpp's own reserves


def _without_doors() -> None:
    """Make `tumen.core` and `tumen.serve` importable without their `__init__`, which would bring web servers and pydantic along."""
    root = Path(__file__).parents[2]
    for name in ("tumen", "tumen.core", "tumen.serve", "tumen.serve.runners"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


def serve(answerer: Answerer, listener: socket.socket) -> None:
    """Answer until standard input ends."""
    while True:
        if 0 in _readable(0, listener.fileno(), seconds=None):
            return
        line, _ = listener.accept()
        with line, contextlib.suppress(OSError):  # it was hung up: the next one, please
            line.settimeout(SILENCE_SECONDS)
            answer(answerer, line)


def answer(answerer: Answerer, line: socket.socket) -> None:
    """Read one request and answer it, part by part or as a whole, for as long as somebody listens."""
    from tumen.core.errors import InputError, TumenError
    from tumen.serve.runners.answer import merged
    from tumen.serve.runners.frames import receive, send

    try:
        request, parts = receive(line.recv), []
        for part in answerer.parts(request):
            if _readable(0, line.fileno(), seconds=0):
                return  # hung up, or the parent is gone
            if request.get("stream"):
                send(line.sendall, part)
            else:
                parts.append(part)
        if parts:
            send(line.sendall, merged(parts))
    except TumenError as error:
        send(
            line.sendall,
            {"error": str(error), "kind": "input" if isinstance(error, InputError) else "runner"},
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        send(line.sendall, {"error": f"a request that makes no sense ({error})", "kind": "runner"})


def _readable(*files: int, seconds: float | None) -> list[int]:
    """Those of which there is something to read, be it the end."""
    return select.select(files, [], [], seconds)[0]


def limit(memory: int) -> None:
    """Never more than `memory` bytes, 0: as many as there are.

    What the system knows to limit is address space, so what is mapped by now and not in use does not count, and threads get
    small stacks (of which they use a few pages).
    """
    if not memory:
        return
    libc, attributes = (
        ctypes.CDLL(None),
        ctypes.create_string_buffer(64),
    )  # pthread_attr_t, 56 bytes
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK_BYTES))
    libc.pthread_setattr_default_np(attributes)
    mapped, used = map(int, Path("/proc/self/statm").read_text().split()[:2])
    most = memory + (mapped - used) * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> int:
    """Load, say ready, answer until the parent is gone. Returns an exit code when loading fails."""
    _without_doors()
    import numpy as np

    from tumen.core.errors import TumenError
    from tumen.serve.runners.answer import Answerer
    from tumen.serve.runners.frames import receive
    from tumen.serve.runners.llama import library

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ready = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints is no answer to the parent
    try:
        settings = receive(partial(os.read, 0))
        library()
        limit(int(settings.get("memory", 0)))
        answerer = Answerer(settings)
    except ConnectionError:
        return 0  # the parent is gone already
    except (TumenError, MemoryError) as error:
        sys.stderr.write(f"{error or 'out of memory'}\n")
        return 1
    path = Path(settings["socket"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(WAITING)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)  # a sentence must never reach a log
        np.seterr(
            over="ignore"
        )  # of a probability too small for float32: its logarithm is minus infinity
        gc.disable()  # nothing here goes round in circles, and a sentence should not wait for the search
        os.write(ready, b"ready\n")
        serve(answerer, listener)
    with contextlib.suppress(FileNotFoundError):  # the parent removed it first
        path.unlink()
        path.parent.rmdir()
    return 0


if __name__ == "__main__":
    os._exit(main())  # at once: nothing is left to be freed with care
