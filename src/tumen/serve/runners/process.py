"""The parent's end of a child that holds a model: start it, speak over its socket, notice its death."""

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

START_SECONDS = 30.0
ANSWER_SECONDS = 30.0
STOP_SECONDS = 2.0
LAST_WORDS_BYTES = 4096
QUIET = {
    "OPENBLAS_NUM_THREADS": "1",
    "GGML_NO_BACKTRACE": "1",
    "MALLOC_ARENA_MAX": "1",
}  # numpy multiplies nothing in the child
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class RunnerDiedError(RunnerError):
    """The child ended before its answer was whole."""


class Call:
    """One request and its answer over the child's socket. One connection each: hanging up is how to stop the model."""

    def __init__(self, path: Path) -> None:
        self._path, self._line = path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.settimeout(ANSWER_SECONDS)
        self.hung_up = False

    def ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request; yields the parts of its answer, the last with `stop`.

        Raises:
            InputError: more tokens than the context holds.
            RunnerError: the child refused, or sent something else.
        """
        self._line.connect(str(self._path))
        frames.send(self._line.sendall, request)
        part: dict[str, Any] = {}
        while "stop" not in part:
            try:
                part = frames.receive(self._line.recv)
            except ValueError as error:
                raise RunnerError(f"the runner answered with {error}") from None
            if "error" in part:
                raise (InputError if part.get("kind") == "input" else RunnerError)(
                    str(part["error"])
                )
            yield part

    def hang_up(self) -> None:
        """End the call from any thread; the child stops at its next token."""
        self.hung_up = True
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        self._line.close()


class Process:
    """A child that holds one model. Thread-safe; started again once when it is found dead.

    Args:
        name: for messages.
        model: a GGUF that `gguf_check.check` has passed.
        threads, context: of llama.cpp; context in tokens.
        settings: `ontology`, `draft` and `guess`, see `answer.Answerer`; `memory`: most bytes the child may take, as on a phone.
    """

    def __init__(
        self, name: str, model: Path, threads: int = 1, context: int = 512, **settings: Any
    ) -> None:
        self.name, self._model, self._threads = name, model, threads
        self._settings = settings | {"model": str(model), "threads": threads, "context": context}
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._over = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, or `None` when it is not alive."""
        popen = self._popen
        return popen.pid if popen and popen.poll() is None else None

    def start(self) -> None:
        """Start the child and wait until it is ready.

        Raises:
            RunnerError: it cannot be started, ended, or said nothing in time; the line has its last words.
        """
        try:
            self._folder = Path(
                tempfile.mkdtemp(prefix="tumen-", dir=_short_folder())
            )  # mode 0700: ours alone
            with tempfile.TemporaryFile() as words:
                self._popen = self._spawn(words)
                _tell(self._popen, self._settings | {"socket": str(self._socket)})
                said = _first_line(self._popen)
                if said != b"ready\n":
                    why = (
                        f"not ready after {START_SECONDS:.0f} s"
                        if said is None
                        else _ending(self._popen)
                    )
                    self._end()
                    last = _last_words(words)
                    raise RunnerError(
                        f"{self._model}: the runner did not start ({why}){': ' + last if last else ''}{self._most}"
                    )
        except OSError as error:
            self._end()
            raise RunnerError(
                f"{self._model}: the runner cannot be started: {error.strerror}"
            ) from None
        self.starts += 1

    def stop(self) -> None:
        """End the child for good and remove its socket. Safe to call twice."""
        with self._lock:
            self._over = True
            self._end()

    def revive(self) -> bool:
        """Start the child again if it is dead. Returns whether it was.

        Raises:
            RunnerError: it does not start, or was stopped on purpose.
        """
        with self._lock:
            if self._over:
                raise RunnerError(f"{self.name}: the runner is closed")
            if self.pid is not None:
                return False
            self._end()
            self.start()
            return True

    @contextlib.contextmanager
    def call(self) -> Iterator[Call]:
        """A connection to the living child, closed at the end.

        Raises:
            RunnerDiedError: the child died meanwhile; `revive` starts it again.
            RunnerError: it stalled, or the call was hung up.
        """
        call, popen = Call(self._socket), self._popen
        try:
            yield call
        except TimeoutError:
            if popen:
                popen.kill()
            raise RunnerError(
                f"{self.name}: no answer in {ANSWER_SECONDS:.0f} s; it was ended, the next sentence starts it again"
            ) from None
        except OSError:
            if call.hung_up:
                raise RunnerError(f"{self.name}: the answer was not wanted any more") from None
            raise RunnerDiedError(
                f"{self.name}: the runner died while answering ({_ending(popen)}); the next sentence starts it again"
            ) from None
        finally:
            call.close()

    def _spawn(self, words: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,  # a Ctrl-C at the terminal is the parent's business
            env=_environment(self._threads),
        )

    def _end(self) -> None:
        popen, folder = self._popen, self._folder
        if popen and popen.stdin and popen.stdout:
            with contextlib.suppress(BrokenPipeError):
                popen.stdin.close()
            popen.stdout.close()
            try:
                popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _most(self) -> str:
        """The limit, for messages about a child that may have reached it."""
        memory = self._settings.get("memory", 0)
        return (
            f"; it may take {memory / 1e6:.0f} MB, `tumen fit` says what it needs" if memory else ""
        )

    @property
    def _socket(self) -> Path:
        if self._folder is None:
            raise RunnerError(f"{self.name}: the runner is not started")
        return self._folder / "s.sock"


def _environment(threads: int) -> dict[str, str]:
    """Return the child's environment: without secrets, as it parses a model file that may be hostile."""
    kept = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    # The child must import the same tumen and numpy as this process, whatever changed `sys.path`.
    path = os.pathsep.join(filter(None, sys.path))
    return kept | QUIET | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _ending(popen: subprocess.Popen[bytes] | None) -> str:
    """How a child ended, for people."""
    if popen is None:
        return "it was never started"
    try:
        code = popen.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return "it closed the connection"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _short_folder() -> str | None:
    """Where the socket goes: its path may have 107 bytes, and some temporary folders are longer than that."""
    return None if len(tempfile.gettempdir()) < 80 else "/tmp"


def _tell(popen: subprocess.Popen[bytes], settings: dict[str, Any]) -> None:
    """What the child shall load. One that ended at once does not hear it: its last words say why."""
    if popen.stdin:
        with contextlib.suppress(BrokenPipeError):
            frames.send(popen.stdin.write, settings)
            popen.stdin.flush()


def _first_line(popen: subprocess.Popen[bytes]) -> bytes | None:
    """What the child says first; nothing if it ended, `None` if it is silent for too long."""
    if popen.stdout is None or not select.select([popen.stdout], [], [], START_SECONDS)[0]:
        return None
    return popen.stdout.readline()


def _last_words(words: IO[bytes]) -> str:
    """The first line of what the child said last."""
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - LAST_WORDS_BYTES))
    lines = words.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in lines if line.strip()), "")
