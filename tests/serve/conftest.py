"""A bundle, its runner, a runner that does as it is told, and an application that is served."""

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
    """One runner for tests that do not hurt it."""
    with load_runner(bundle) as runner:
        yield runner


class FakeRunner:
    """A runner that does as it is told: answers with one action, raises a fault, or dawdles between pieces."""

    def __init__(
        self, name: str = "fake", confidence: float = 0.9, fault: Exception | None = None
    ) -> None:
        self.name, self.confidence, self.fault = name, confidence, fault
        self.heard: list[str] = []
        self.pause_seconds = 0.0
        self.pieces_sent = 0
        self.closed = self.left_early = False

    async def act(self, sentence: str) -> Completion:
        self.heard.append(sentence)
        if self.fault:
            raise self.fault
        text = '{"lang":"en","intent":"HassTurnOn","name":"lamp"}'
        return Completion(
            text, (1, 2), (("x", -0.1),), self.confidence, Seconds(0.0, 0.0, 0.0), 3, 2
        )

    async def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        done = await self.act(sentence)
        try:
            for char in done.text * (20 if self.pause_seconds else 1):
                await asyncio.sleep(self.pause_seconds)
                self.pieces_sent += 1
                yield char
        except (asyncio.CancelledError, GeneratorExit):
            self.left_early = True
            raise
        yield done

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
