"""The child process that holds a model and answers the requests of one private socket.

    python -P -m tumen.decoding.child

It answers one request after the other. The first frame on standard input holds the settings (see
`handler.RequestHandler` and `encoder.EncoderHandler`, plus `socket` and `memory`). The
child loads the model, writes `ready` to standard output and serves until standard input ends. The
kernel closes that pipe however the parent dies, so the child never outlives it.

Everything imported here must stay light: this room and `core.errors`, numpy, no pydantic.
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

import numpy as np

from tumen.core.errors import InputError, TumenError
from tumen.decoding.encoder import EncoderHandler
from tumen.decoding.frames import receive, send
from tumen.decoding.handler import RequestHandler, merge_parts
from tumen.decoding.llama_api import library

SILENCE_SECONDS = 5.0  # longest wait for a request, or for a client to take its answer
BACKLOG = 64  # connections that may wait
THREAD_STACK_BYTES = 1 << 19  # of each thread, when memory is limited
# Address space mapped after start-up and never touched: thread stacks, llama.cpp's own reserves.
SPARE_BYTES = 26 << 20
PTHREAD_ATTR_BYTES = 64  # pthread_attr_t has 56 on x86-64 and aarch64 Linux
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


Handler = RequestHandler | EncoderHandler


def serve(handler: Handler, listener: socket.socket) -> None:
    """Answer requests until standard input ends.

    Args:
        handler: the loaded model.
        listener: a listening Unix socket; each connection carries one request.
    """
    stdin = 0
    while stdin not in _readable(stdin, listener.fileno(), seconds=None):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):  # the client hung up; serve the next one
            connection.settimeout(SILENCE_SECONDS)
            answer(handler, connection)


def answer(handler: Handler, connection: socket.socket) -> None:
    """Read one request and answer it, part by part or as a whole.

    Stops decoding when the client hangs up or the parent ends.

    Raises:
        OSError: the connection broke.
    """
    try:
        request = receive(connection.recv)
        parts = []
        for part in handler.handle(request):
            if _readable(0, connection.fileno(), seconds=0):
                return
            if request.get("stream"):
                send(connection.sendall, part)
            else:
                parts.append(part)
        if parts:
            send(connection.sendall, merge_parts(parts))
    except TumenError as error:
        kind = "input" if isinstance(error, InputError) else "runner"
        send(connection.sendall, {"error": str(error), "kind": kind})
    except MALFORMED as error:
        send(connection.sendall, {"error": f"malformed request ({error})", "kind": "runner"})


def _readable(*files: int, seconds: float | None) -> list[int]:
    """Return the file descriptors that have data or have reached their end."""
    return select.select(files, [], [], seconds)[0]


def limit_memory(memory_bytes: int) -> None:
    """Limit this process to `memory_bytes`; 0 means no limit.

    Linux can only limit address space. So what is mapped now and not in use is added to the limit,
    and threads get small stacks, of which they use a few pages.
    """
    if not memory_bytes:
        return
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(PTHREAD_ATTR_BYTES)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(THREAD_STACK_BYTES))
    libc.pthread_setattr_default_np(attributes)
    mapped_pages, used_pages = map(int, Path("/proc/self/statm").read_text().split()[:2])
    unused = (mapped_pages - used_pages) * resource.getpagesize()
    limit = memory_bytes + unused + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """Load the model, report ready and serve until the parent ends.

    Returns:
        the exit code: 1 when loading failed; the reason is then on standard error.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ready = os.dup(1)
    os.dup2(2, 1)  # anything the library prints must not look like `ready`
    try:
        settings = receive(partial(os.read, 0))
        library()  # mapped before the limit is computed
        limit_memory(int(settings.get("memory", 0)))
        handler = EncoderHandler(settings) if "heads" in settings else RequestHandler(settings)
    except ConnectionError:
        return 0  # the parent has ended already
    except (TumenError, MemoryError) as error:
        sys.stderr.write(f"{error or 'out of memory'}\n")
        return 1
    _serve_at(Path(settings["socket"]), handler, ready)
    return 0


def _serve_at(path: Path, handler: Handler, ready: int) -> None:
    """Listen at a socket path, write READY to the descriptor `ready`, serve, remove the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(BACKLOG)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)  # a sentence must never reach a log
        # A probability too small for float32 overflows on the way to a logarithm of minus infinity.
        np.seterr(over="ignore")
        gc.disable()  # nothing here makes reference cycles, and a collection would delay an answer
        os.write(ready, b"ready\n")
        serve(handler, listener)
    with contextlib.suppress(FileNotFoundError):  # the parent may have removed it first
        path.unlink()
        path.parent.rmdir()


if __name__ == "__main__":
    os._exit(main())  # at once: the system frees the weights faster than Python would
