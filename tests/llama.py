"""llama.cpp's server as the project's own runner starts it, for looking at a GGUF from outside."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from tumen.serve.process import Process


class Llama:
    """A child process with a model; use as a context."""

    def __init__(self, path: Path) -> None:
        self.process = Process("test", path, threads=1, context=512)

    def __enter__(self) -> Llama:
        self.process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.stop()

    def ask(self, route: str, **body: Any) -> dict[str, Any]:
        with self.process.call() as call:
            answer = call.send_json(route, body)
            return dict(json.loads(answer.read()))

    def tokens(self, text: str) -> list[int]:
        """Ids of a prompt, as llama.cpp cuts it."""
        return list(self.ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"])

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The likeliest continuation, at most `count` tokens long; the end token is in it if it was reached."""
        tree = self.ask("/completion", prompt=prompt, n_predict=count, temperature=0, return_tokens=True, cache_prompt=False)
        return list(tree["tokens"])
