"""The remote runner: any OpenAI-compatible endpoint. Only a recipe can name one.

The sentence is sent as the user's message together with the JSON schema of actions. The answer is
not trusted: it must be an action whose copied words occur in the sentence.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tumen.core.errors import InputError, RunnerError
from tumen.language import HOME, JOINT, Action, Ontology, normalise, parse, units
from tumen.serve.runners.runner import Completion, Seconds

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS = 10.0
CONNECT_SECONDS = 2.0
MAX_ANSWER_BYTES = 1 << 18
MAX_TOKENS = 512
MAX_COUNT = 1 << 31  # of tokens that an endpoint reports
EVENT = b"data: {"  # how an event of a stream begins


class RemoteRunner:
    """A `Runner` over `POST {url}/chat/completions`.

    Args:
        url: such as http://127.0.0.1:8000/v1.
        model: its name there.
        key_env: environment variable that holds the key; unset means no key.
        timeout_seconds: the longest that one answer may take.
        ontology: what its actions may be.

    Raises:
        RunnerError: `url` is not an http or https address.
    """

    def __init__(
        self,
        url: str,
        model: str = "default",
        key_env: str = "TUMEN_CLOUD_KEY",
        timeout_seconds: float = TIMEOUT_SECONDS,
        ontology: Ontology = HOME,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # a password before the host is nobody's to read
            shown = re.sub(r"[^/]*@", "", url)
            raise RunnerError(
                f"serve.cloud_url {shown!r} is not an http address; "
                "write it like http://127.0.0.1:8000/v1"
            )
        self.ontology = ontology
        self._url = url.rstrip("/")
        self._host = parts.netloc.rpartition("@")[2]  # without user and password
        self._model = model
        self._key_env = key_env
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """Model and host."""
        return f"{self._model} at {self._host}"

    async def act(self, sentence: str) -> Completion:
        """Return the action for a sentence; see `Runner.act`."""
        start = time.perf_counter()
        words = normalise(sentence)
        async with self._post(words, stream=False) as response:
            raw = await self._read_limited(response)
        tree = _parse_object(raw)
        text = _value_at(tree, "choices", 0, "message", "content")
        return self._completion(text, tree, words, start)

    async def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        """Yield the action piece by piece; see `Runner.stream`."""
        start = time.perf_counter()
        words = normalise(sentence)
        text = ""
        finished = False
        last: dict[str, Any] = {}  # usage and confidence, from whichever event has them
        async with self._post(words, stream=True) as response:
            async for line in response.content:
                if not line.startswith(EVENT):  # an empty line, a comment, or [DONE]
                    continue
                tree = _parse_object(line.removeprefix(b"data: "))
                for name in ("usage", "tumen"):
                    if tree.get(name):
                        last[name] = tree[name]
                if _value_at(tree, "choices", 0, "finish_reason"):
                    finished = True
                piece = _value_at(tree, "choices", 0, "delta", "content")
                if isinstance(piece, str) and piece:
                    text += piece
                    yield piece
                if len(text) > MAX_ANSWER_BYTES:
                    raise self._too_long()
        if not finished:
            raise RunnerError(f"{self.name}: the answer broke off")
        yield self._completion(text, last, words, start)

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _post(self, words: str, stream: bool) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; every way in which it can fail is a `RunnerError`."""
        import aiohttp  # takes 90 ms: do not delay those without a cloud tier

        try:
            async with self._open_session().post(
                f"{self._url}/chat/completions",
                json=self._request_body(words, stream),
                headers=self._request_headers(),
                allow_redirects=False,  # a redirect could carry the key to another host
            ) as response:
                self._check_status(response.status)
                yield response
        # Neither message repeats what the endpoint sent: it might quote the sentence.
        except TimeoutError:
            raise RunnerError(
                f"{self.name}: no complete answer within {self._timeout_seconds:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RunnerError(
                f"{self.name}: the request failed ({type(error).__name__}); is it running?"
            ) from None

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the session, whose connections are kept between requests."""
        import aiohttp

        if self._session is None:
            connect_seconds = min(CONNECT_SECONDS, self._timeout_seconds)
            timeout = aiohttp.ClientTimeout(total=self._timeout_seconds, connect=connect_seconds)
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session

    def _request_body(self, words: str, stream: bool) -> dict[str, Any]:
        """Return the body of a request; the schema asks the endpoint to decode under it."""
        schema = {"name": "action", "schema": action_schema(self.ontology)}
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": words}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return body

    def _request_headers(self) -> dict[str, str]:
        """Return the headers of a request. The key is read each time, as it may be renewed."""
        key = os.environ.get(self._key_env)
        if not key:
            return {}
        return {"authorization": f"Bearer {key}"}

    def _check_status(self, status: int) -> None:
        """Raise RunnerError for any HTTP status but 200."""
        if status == 200:
            return
        why = f"{self.name}: answered HTTP {status}"
        if status in (401, 403):
            why += f"; check the key in ${self._key_env}"
        raise RunnerError(why)

    async def _read_limited(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of a response.

        Raises:
            RunnerError: it has more than MAX_ANSWER_BYTES.
        """
        raw = await response.content.read(MAX_ANSWER_BYTES)
        while not response.content.at_eof():
            raw += await response.content.read(MAX_ANSWER_BYTES)
            if len(raw) > MAX_ANSWER_BYTES:
                raise self._too_long()
        return raw

    def _too_long(self) -> RunnerError:
        return RunnerError(
            f"{self.name}: the answer has more than {MAX_ANSWER_BYTES} bytes; rejected"
        )

    def _completion(self, text: Any, tree: dict[str, Any], words: str, start: float) -> Completion:
        """Return the completion of an answer.

        Args:
            text: the content of the message, if it is text.
            tree: the answer, or of a stream what its events said of usage and confidence.
            words: the normalised sentence.
            start: when the request was made, by `time.perf_counter`.

        Raises:
            RunnerError: the text is not an action in words of the sentence.
        """
        if not isinstance(text, str):
            text = ""
        try:
            action = parse(text, self.ontology)
        except InputError:
            raise RunnerError(f"{self.name}: the answer is not an action") from None
        # Only the intent and closed slots may be the model's own words.
        if not is_grounded(action, words, self.ontology):
            raise RunnerError(
                f"{self.name}: the action has words that are not in the sentence; rejected"
            )
        total = time.perf_counter() - start
        return Completion(
            text=action.json(self.ontology),
            tokens=(),
            logprobs=(),
            confidence=_probability(_value_at(tree, "tumen", "confidence")),
            seconds=Seconds(0.0, total, total),
            prompt_tokens=_count(_value_at(tree, "usage", "prompt_tokens")),
            completion_tokens=_count(_value_at(tree, "usage", "completion_tokens")),
        )


def action_schema(ontology: Ontology = HOME) -> dict[str, Any]:
    """Return the JSON schema of an action, for endpoints that decode under one."""
    fixed = {"lang": ontology.languages, "intent": tuple(ontology.intents), **ontology.closed}
    properties: dict[str, Any] = {}
    for name, values in fixed.items():
        properties[name] = {"type": "string", "enum": list(values)}
    # Which words these are depends on the sentence, so the schema leaves them open.
    for name in ontology.copied:
        properties[name] = {"type": "string", "description": "words copied from the sentence"}
    return {
        "type": "object",
        "properties": properties,
        "required": ["lang", "intent"],
        "additionalProperties": False,
    }


def is_grounded(action: Action, words: str, ontology: Ontology = HOME) -> bool:
    """Return whether each copied value of an action is a run of neighbouring words of the sentence.

    Args:
        action: any.
        words: the normalised sentence.
        ontology: which slots are copied.
    """
    sentence = _stripped_units(words)
    for name, value in action.slots.items():
        if name in ontology.closed:
            continue
        for run in value.split(JOINT):
            if not _contains_run(sentence, _stripped_units(run)):
                return False
    return True


def _stripped_units(text: str) -> list[str]:
    """Return the units of a text without the spaces between them."""
    return [unit.strip() for unit in units(text)]


def _contains_run(whole: list[str], run: list[str]) -> bool:
    """Whether a list holds another one as neighbours; an empty one is in none."""
    if not run:
        return False
    length = len(run)
    starts = range(len(whole) - length + 1)
    return any(whole[start : start + length] == run for start in starts)


def _parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that an endpoint sent.

    Raises:
        RunnerError: it sent something else.
    """
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise RunnerError("the answer of the endpoint is not a JSON object")
    return tree


def _value_at(tree: Any, *path: str | int) -> Any:
    """Return the value at a path of an answer that nothing has checked, or `None`."""
    for step in path:
        if isinstance(step, str) and isinstance(tree, dict):
            tree = tree.get(step)
        elif isinstance(step, int) and isinstance(tree, list) and step < len(tree):
            tree = tree[step]
        else:
            return None
    return tree


def _probability(value: Any) -> float:
    """Return a number from 0 to 1; 0 for anything else."""
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    return 0.0


def _count(value: Any) -> int:
    """Return a number of tokens; 0 for anything that is none."""
    if isinstance(value, int) and 0 <= value < MAX_COUNT:
        return value
    return 0
