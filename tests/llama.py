"""A GGUF in the project's own child, for looking at it from outside."""

from __future__ import annotations

from pathlib import Path

from tumen.core.events import Events
from tumen.language.action import HOME
from tumen.serve.runners import DeviceRunner
from tumen.serve.runners.process import Process


class Llama(DeviceRunner):
    """A child process with a model; use as a context."""

    def __init__(self, path: Path) -> None:
        super().__init__(Process("test", path), HOME, Events(None))

    def __enter__(self) -> Llama:
        self._process.start()
        return self

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The likeliest continuation, at most `count` tokens long; the end token is in it if it was reached."""
        return list(self.complete(prompt, max_tokens=count).tokens)
