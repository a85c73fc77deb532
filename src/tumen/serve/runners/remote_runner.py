"""The remote runner: any OpenAI-compatible endpoint, named by the recipe and by nothing else.

The sentence goes out as the user's message together with the JSON schema of actions. What comes back is believed only
as far as it is an action whose copied words stand in the sentence.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tumen.core.errors import InputError, RunnerError
from tumen.language import HOME, JOINT, Action, Ontology, messages_of, normalise, parse, units
from tumen.serve.runners.runner import Completion, Seconds

if TYPE_CHECKING:
    import aiohttp

PATIENCE_SECONDS = 10.0
CONNECT_SECONDS = 2.0
ANSWER_BYTES = 1 << 18
MOST_TOKENS = 512


class RemoteRunner:
    """A `Runner` over `POST {url}/chat/completions`.

    Args:
        url: such as http://127.0.0.1:8000/v1.
        model: its name there.
        key_env: environment variable that holds the key; unset means no key.
        patience_seconds: the most one answer may take in all.
        ontology: what its actions may be.

    Raises:
        RunnerError: `url` is no http or https address.
    """

    def __init__(
        self,
        url: str,
        model: str = "default",
        key_env: str = "TUMEN_CLOUD_KEY",
        patience_seconds: float = PATIENCE_SECONDS,
        ontology: Ontology = HOME,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RunnerError(
                f"serve.cloud_url {url!r} is no http address; write it like http://127.0.0.1:8000/v1"
            )
        self._url, self._model, self._key_env, self._patience = (
            url.rstrip("/"),
            model,
            key_env,
            patience_seconds,
        )
        self._host = parts.netloc.rpartition("@")[2]
        self.ontology = ontology
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """Model and host."""
        return f"{self._model} at {self._host}"

    async def act(self, sentence: str) -> Completion:
        """See `Runner.act`."""
        start, words = time.perf_counter(), normalise(sentence)
        async with self._post(words, stream=False) as response:
            raw = await response.content.read(ANSWER_BYTES)
            while not response.content.at_eof():
                raw += await response.content.read(ANSWER_BYTES)
                if len(raw) > ANSWER_BYTES:
                    raise RunnerError(
                        f"{self.name}: an answer of more than {ANSWER_BYTES} bytes; refused"
                    )
        tree = _tree(raw)
        text = _at(tree, "choices", 0, "message", "content")
        return self._completion(text, tree, words, start)

    async def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        """See `Runner.stream`."""
        start, words, text, last, whole = (
            time.perf_counter(),
            normalise(sentence),
            "",
            dict[str, Any](),
            False,
        )
        async with self._post(words, stream=True) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    tree = _tree(line[6:])
                    last = {
                        **last,
                        **{name: tree[name] for name in ("usage", "tumen") if tree.get(name)},
                    }
                    whole = whole or bool(_at(tree, "choices", 0, "finish_reason"))
                    piece = _at(tree, "choices", 0, "delta", "content")
                    if isinstance(piece, str) and piece:
                        text += piece
                        yield piece
                if len(text) > ANSWER_BYTES:
                    raise RunnerError(
                        f"{self.name}: an answer of more than {ANSWER_BYTES} bytes; refused"
                    )
        if not whole:
            raise RunnerError(f"{self.name}: the answer broke off")
        yield self._completion(text, last, words, start)

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _post(self, words: str, stream: bool) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; every way in which it can fail is a `RunnerError`."""
        import aiohttp  # 90 ms to import: those without a cloud tier do not wait for it

        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=self._patience, connect=min(CONNECT_SECONDS, self._patience)
            )
            self._session = aiohttp.ClientSession(timeout=timeout)
        body = {
            "model": self._model,
            "messages": messages_of(words),
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        }
        body |= {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "action", "schema": action_schema(self.ontology)},
            }
        }
        body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        key = os.environ.get(self._key_env)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = f"{self._url}/chat/completions"
        try:
            # A redirect could carry the key to another host.
            async with self._session.post(
                url, json=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    hint = (
                        f"; check the key in ${self._key_env}"
                        if response.status in (401, 403)
                        else ""
                    )
                    raise RunnerError(f"{self.name}: answered HTTP {response.status}{hint}")
                yield response
        except TimeoutError:
            raise RunnerError(f"{self.name}: no whole answer in {self._patience:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RunnerError(
                f"{self.name}: {type(error).__name__} while asking; is it running?"
            ) from None

    def _completion(self, text: Any, tree: dict[str, Any], words: str, start: float) -> Completion:
        try:
            action = parse(text if isinstance(text, str) else "", self.ontology)
        except InputError:
            raise RunnerError(f"{self.name}: answered with something that is no action") from None
        if not grounded(action, words, self.ontology):
            raise RunnerError(
                f"{self.name}: the action has words that are not in the sentence; refused"
            )
        total = time.perf_counter() - start
        sure = _at(tree, "tumen", "confidence")
        return Completion(
            text=action.json(self.ontology),
            tokens=(),
            logprobs=(),
            confidence=float(sure) if isinstance(sure, (int, float)) and 0 <= sure <= 1 else 0.0,
            seconds=Seconds(0.0, total, total),
            prompt_tokens=_count(_at(tree, "usage", "prompt_tokens")),
            completion_tokens=_count(_at(tree, "usage", "completion_tokens")),
        )


def action_schema(ontology: Ontology = HOME) -> dict[str, Any]:
    """JSON schema of an action, for endpoints that decode under one."""
    copied = {"type": "string", "description": "words copied from the sentence"}
    fixed = {"lang": ontology.languages, "intent": tuple(ontology.intents), **ontology.closed}
    properties: dict[str, Any] = {
        name: {"type": "string", "enum": list(values)} for name, values in fixed.items()
    }
    properties |= dict.fromkeys(ontology.copied, copied)
    return {
        "type": "object",
        "properties": properties,
        "required": ["lang", "intent"],
        "additionalProperties": False,
    }


def grounded(action: Action, words: str, ontology: Ontology = HOME) -> bool:
    """Whether each copied value of an action is a run of neighbouring `units` of the normalised sentence."""
    have = [unit.strip() for unit in units(words)]
    wanted = [
        run
        for name, value in action.slots.items()
        if name not in ontology.closed
        for run in value.split(JOINT)
    ]
    return all(_runs_in([unit.strip() for unit in units(run)], have) for run in wanted)


def _runs_in(want: list[str], have: list[str]) -> bool:
    return bool(want) and any(have[at : at + len(want)] == want for at in range(len(have)))


def _tree(raw: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise RunnerError("the endpoint answered with something that is no JSON object")
    return tree


def _at(tree: Any, *path: str | int) -> Any:
    """The value at a path of an answer nobody has checked, or `None`."""
    for step in path:
        if isinstance(step, str):
            tree = tree.get(step) if isinstance(tree, dict) else None
        else:
            tree = tree[step] if isinstance(tree, list) and len(tree) > step else None
    return tree


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0
