"""A GGUF in a decoding child, to look at it from outside."""

from __future__ import annotations

from pathlib import Path

from tumen.core.events import Events
from tumen.language.action import HOME
from tumen.serve.runners import ChildProcess, DeviceRunner


class Llama(DeviceRunner):
    """A child process with a model; use as a context."""

    def __init__(self, path: Path) -> None:
        super().__init__(ChildProcess("test", path), HOME, Events(None))

    def __enter__(self) -> Llama:
        self._child.start()
        return self

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """Return the greedy continuation of at most `count` tokens, the end token included if reached."""
        return list(self.complete(prompt, max_tokens=count).tokens)
