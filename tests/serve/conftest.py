"""A bundle, its runner, a fake runner whose answers a test chooses, and an application that is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import write_bundle

from tumen.serve import bind, build_server
from tumen.serve.runners import Completion, DeviceRunner, Seconds, load_runner


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "device")


@pytest.fixture(scope="session")
def shared_runner(bundle: Path) -> Iterator[DeviceRunner]:
    """One runner for the tests that do not damage it."""
    with load_runner(bundle) as runner:
        yield runner


class FakeRunner:
    """A runner that answers with one action, raises `error`, or pauses between the pieces of a stream.

    `sentences` records what it was asked.
    """

    def __init__(
        self, name: str = "fake", confidence: float = 0.9, error: Exception | None = None
    ) -> None:
        self.name = name
        self.confidence = confidence
        self.error = error
        self.sentences: list[str] = []
        self.pause_seconds = 0.0
        self.pieces_sent = 0
        self.closed = False
        self.stopped_early = False

    async def act(self, sentence: str) -> Completion:
        self.sentences.append(sentence)
        if self.error:
            raise self.error
        text = '{"lang":"en","intent":"HassTurnOn","name":"lamp"}'
        seconds = Seconds(0.0, 0.0, 0.25)
        return Completion(text, (1, 2), (("x", -0.1),), self.confidence, seconds, 3, 2)

    async def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        completion = await self.act(sentence)
        repeats = 20 if self.pause_seconds else 1
        try:
            for char in completion.text * repeats:
                await asyncio.sleep(self.pause_seconds)
                self.pieces_sent += 1
                yield char
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped_early = True
            raise
        yield completion

    async def close(self) -> None:
        self.closed = True


@contextmanager
def run_app(application: Any) -> Iterator[str]:
    """Serve an ASGI application on a free loopback port; yields its base URL."""
    with bind("127.0.0.1", 0) as listener:
        server = build_server(application)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def fake() -> type[FakeRunner]:
    return FakeRunner


@pytest.fixture(scope="session")
def running() -> Callable[[Any], AbstractContextManager[str]]:
    return run_app
