"""The parent's side of a decoding child.

It starts the child, sends requests over its socket and detects that it died. The child's side is
`tumen.decoding.child`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tumen.core.errors import InputError, RunnerError
from tumen.decoding import CHILD, frames

READY = b"ready\n"
START_SECONDS = 30.0
ANSWER_SECONDS = 30.0  # longest wait for one part of an answer
STOP_SECONDS = 2.0
MAX_ERROR_BYTES = 4096  # of the child's standard error that are searched for a reason
# A socket's path may have 107 bytes, and some temporary folders leave no room for
# "/tumen-xxxxxxxx/s.sock".
MAX_TEMPORARY_FOLDER = 80
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy multiplies nothing in the child
    "GGML_NO_BACKTRACE": "1",
    "MALLOC_ARENA_MAX": "1",
}
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class RunnerDiedError(RunnerError):
    """The child ended before its answer was complete."""


class Call:
    """One request and its answer, over a connection of its own: closing it stops the model.

    Args:
        path: of the child's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.settimeout(ANSWER_SECONDS)
        self.cancelled = False

    def send(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request and yield the parts of its answer; the last part has `stop`.

        Raises:
            InputError: the prompt does not fit the context.
            RunnerError: the child rejected the request, or broke the protocol.
            OSError: the connection broke or timed out.
        """
        self._connection.connect(str(self._path))
        frames.send(self._connection.sendall, request)
        part: dict[str, Any] = {}
        while "stop" not in part:
            try:
                part = frames.receive(self._connection.recv)
            except ValueError as error:
                raise RunnerError(f"invalid answer of the runner: {error}") from None
            if "error" in part:
                kind = InputError if part.get("kind") == "input" else RunnerError
                raise kind(str(part["error"]))
            yield part

    def cancel(self) -> None:
        """End the call, from any thread; the child stops at its next token."""
        self.cancelled = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class ChildProcess:
    """A child that holds one model. Thread-safe.

    Args:
        name: for messages.
        model: a GGUF that `formats.gguf_header.check` has passed.
        threads: of llama.cpp.
        context: tokens of prompt and answer together.
        settings: see `decoding.handler.RequestHandler`; also `memory`, the most bytes the child may
            use.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self, name: str, model: Path, threads: int = 1, context: int = 512, **settings: Any
    ) -> None:
        self.name = name
        self.starts = 0
        self._model = model
        self._threads = threads
        self._settings = settings | {"model": str(model), "threads": threads, "context": context}
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None  # holds the socket
        self._stopped = False  # for good

    @property
    def pid(self) -> int | None:
        """The child's process id; `None` when it is not alive."""
        popen = self._popen
        if popen is None or popen.poll() is not None:
            return None
        return popen.pid

    def start(self) -> None:
        """Start the child and wait until it is ready.

        Raises:
            RunnerError: it did not start, ended, or was not ready in time; the message has its last
                error.
        """
        try:
            # Its mode is 0700: nobody else reaches the socket in it.
            prefix = tempfile.mkdtemp(prefix="tumen-", dir=_socket_parent())
            self._folder = Path(prefix)
            # Not a pipe, which would fill up and block a child that prints much.
            with tempfile.TemporaryFile() as errors:
                self._popen = self._spawn(errors)
                _send_settings(self._popen, self._settings | {"socket": str(self._socket)})
                self._wait_until_ready(self._popen, errors)
        except OSError as error:
            self._end()
            raise RunnerError(
                f"{self._model}: the runner cannot be started: {error.strerror}"
            ) from None
        self.starts += 1

    def stop(self) -> None:
        """End the child for good and remove its socket. Safe to call twice."""
        with self._lock:
            self._stopped = True
            self._end()

    def restart_if_dead(self) -> bool:
        """Start the child again if it is dead. Return whether it was.

        Raises:
            RunnerError: it does not start, or was stopped on purpose.
        """
        with self._lock:
            if self._stopped:
                raise RunnerError(f"{self.name}: the runner is closed")
            if self.pid is not None:
                return False
            self._end()
            self.start()
            return True

    @contextlib.contextmanager
    def call(self) -> Iterator[Call]:
        """Open a call to the child; it is closed at the end of the block.

        Raises:
            RunnerDiedError: the child died meanwhile; `restart_if_dead` starts it again.
            RunnerError: it timed out, or the call was cancelled.
        """
        call = Call(self._socket)
        popen = self._popen
        try:
            yield call
        except TimeoutError:
            # It hangs in llama.cpp, where nothing but a kill reaches it.
            if popen:
                popen.kill()
            raise RunnerError(
                f"{self.name}: no answer within {ANSWER_SECONDS:.0f} s; "
                "the runner was killed, the next sentence restarts it"
            ) from None
        except OSError:
            if call.cancelled:
                raise RunnerError(f"{self.name}: the request was cancelled") from None
            raise RunnerDiedError(
                f"{self.name}: the runner died while answering ({_how_it_ended(popen)}); "
                "the next sentence restarts it"
            ) from None
        finally:
            call.close()

    def _spawn(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the child.

        Args:
            errors: gets its standard error.
        """
        return subprocess.Popen(
            # -P: a file in the current folder must not stand in for a module.
            [sys.executable, "-P", "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C at the terminal is for the parent alone
            env=_environment(self._threads),
        )

    def _wait_until_ready(self, popen: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        """Wait for the child's first line.

        Raises:
            RunnerError: it ended, or was not ready in time.
        """
        line = _first_line(popen)
        if line == READY:
            return
        if line is None:
            reason = f"not ready after {START_SECONDS:.0f} s"
        else:
            reason = _how_it_ended(popen)
        self._end()
        what = f"{self._model}: the runner did not start ({reason})"
        last_error = _first_line_of_end(errors)
        if last_error:
            what += f": {last_error}"
        raise RunnerError(what + self._memory_hint)

    def _end(self) -> None:
        """Close the child's standard input, which ends it; kill it if it does not end in time."""
        popen = self._popen
        if popen and popen.stdin and popen.stdout:
            with contextlib.suppress(BrokenPipeError):
                popen.stdin.close()
            popen.stdout.close()
            try:
                popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _memory_hint(self) -> str:
        """For a child that may have reached its memory limit."""
        memory = self._settings.get("memory", 0)
        if not memory:
            return ""
        return f"; its memory limit is {memory / 1e6:.0f} MB, `tumen fit` says what it needs"

    @property
    def _socket(self) -> Path:
        """The child's socket, in a folder of its own."""
        if self._folder is None:
            raise RunnerError(f"{self.name}: the runner is not started")
        return self._folder / "s.sock"


def _environment(threads: int) -> dict[str, str]:
    """Return the child's environment, without secrets: a model file may be hostile."""
    kept = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    # The child must import the same tumen and numpy as this process, whatever changed `sys.path`.
    path = os.pathsep.join(filter(None, sys.path))
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    return {**kept, **ENVIRONMENT, **own}


def _how_it_ended(popen: subprocess.Popen[bytes] | None) -> str:
    """Return a signal's name or an exit code."""
    if popen is None:
        return "it was never started"
    try:
        code = popen.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return "it closed the connection"
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _socket_parent() -> str | None:
    """Return the folder for the socket's folder; `None` is the usual temporary folder."""
    if len(tempfile.gettempdir()) >= MAX_TEMPORARY_FOLDER:
        return "/tmp"
    return None


def _send_settings(popen: subprocess.Popen[bytes], settings: dict[str, Any]) -> None:
    """Send the child its settings, before its first line."""
    if popen.stdin:
        # A child that ended at once does not read them; its standard error says why.
        with contextlib.suppress(BrokenPipeError):
            frames.send(popen.stdin.write, settings)
            popen.stdin.flush()


def _first_line(popen: subprocess.Popen[bytes]) -> bytes | None:
    """Return the first line of a child's output; empty if it ended, `None` if none came in time."""
    if popen.stdout is None:
        return None
    readable, _, _ = select.select([popen.stdout], [], [], START_SECONDS)
    if not readable:
        return None
    return popen.stdout.readline()


def _first_line_of_end(errors: IO[bytes]) -> str:
    """Return the first line that is not blank in the last bytes of a child's standard error."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - MAX_ERROR_BYTES))
    # The first of them: what llama.cpp prints after it follows from it.
    text = errors.read().decode("utf-8", "replace")
    for line in text.split("\n"):
        if line.strip():
            return line.strip()
    return ""
