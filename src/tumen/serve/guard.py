"""Checks on what comes in over HTTP. A client's fault is a `RequestError` with the status it deserves, never a 500."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request

from tumen.core import untrusted
from tumen.core.errors import InputError

BODY_BYTES = 64 << 10
BODY_SECONDS = 5.0
MOST_MESSAGES = 256
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class RequestError(InputError):
    """A request that is not taken. `status` of HTTP; `param` names the field, `code` is for programs."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


@dataclass(frozen=True)
class Chat:
    """A chat request that has passed: the sentence to act on, the model asked for, and how to send the answer."""

    sentence: str
    model: str
    stream: bool
    include_usage: bool


def check_caller(request: Request, key: str | None) -> None:
    """The key, or without one that the caller is this machine (and no web page: DNS rebinding).

    Raises:
        RequestError: 401 or 403.
    """
    if key is None:
        origin = request.headers.get("origin")
        if not _loopback("//" + request.headers.get("host", "")) or (
            origin is not None and not _loopback(origin)
        ):
            raise RequestError(
                403,
                "not_local",
                "without TUMEN_KEY only programs on this machine are served, at http://127.0.0.1",
            )
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Digests of equal length, compared in constant time: nothing to learn from how long it takes.
    same = hmac.compare_digest(
        hashlib.sha256(given.encode()).digest(), hashlib.sha256(key.encode()).digest()
    )
    if scheme.lower() != "bearer" or not same:
        raise RequestError(
            401, "invalid_api_key", "send the key of this server as `Authorization: Bearer KEY`"
        )


def _loopback(url: str) -> bool:
    try:
        return urlsplit(url).hostname in LOOPBACK
    except ValueError:
        return False


async def read_body(request: Request) -> bytes:
    """The body, if it is plain JSON of a fair size that arrives in a fair time.

    Raises:
        RequestError: 408, 413 or 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            415, "unsupported_media_type", "send the request as content-type: application/json"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "unsupported_encoding", "send the body as it is, not compressed")
    too_large = RequestError(413, "request_too_large", f"the body may have {BODY_BYTES} bytes")
    if (
        int(request.headers.get("content-length", "0")) > BODY_BYTES
    ):  # digits: the HTTP parser has checked
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > BODY_BYTES:
                    raise too_large
    except ClientDisconnect:
        raise RequestError(400, "client_gone", "the body broke off") from None
    except TimeoutError:
        raise RequestError(
            408, "request_timeout", f"the body did not arrive in {BODY_SECONDS:.0f} s"
        ) from None
    return body


def parse_body(body: bytes) -> dict[str, Any]:
    """One JSON object, strictly: UTF-8, finite numbers, no key twice, not nested too deep.

    Raises:
        RequestError: 400.
    """
    try:
        tree = untrusted.parse_json(body)
    except ValueError as error:
        raise RequestError(
            400, "invalid_json", f"the body is not JSON that can be read: {str(error)[:100]}"
        ) from None
    if not isinstance(tree, dict):
        raise RequestError(400, "invalid_json", "the body is JSON but no object")
    return tree


def _is_number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    )


def _is_count(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    )


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


FLAG = ("true or false", _is(bool))
COUNT = ("a whole number from 1 to 1000000", _is_count(1, 1_000_000))
PENALTY = ("a number from -2 to 2", _is_number(-2, 2))
# What a field must be. An action is whole or not there and decoding is greedy: fields under "no effect" change nothing.
FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("text", _is(str)),
    "messages": ("a list", _is(list)),
    "stream": FLAG,
    "stream_options": ("an object", _is(dict)),
    "n": ("1: there is one answer", _is_count(1, 1)),
    # no effect
    "temperature": ("a number from 0 to 2", _is_number(0, 2)),
    "top_p": ("a number from 0 to 1", _is_number(0, 1)),
    "frequency_penalty": PENALTY,
    "presence_penalty": PENALTY,
    "max_tokens": COUNT,
    "max_completion_tokens": COUNT,
    "seed": ("a whole number", _is_count(-(1 << 63), (1 << 63) - 1)),
    "response_format": ("an object", _is(dict)),
    "stop": ("text or a list", _is(str, list)),
    "user": ("text", _is(str)),
    "metadata": ("an object", _is(dict)),
    "store": ("false: nothing is kept", lambda value: value is False),
    "logprobs": ("false: see tumen.confidence in the answer", lambda value: value is False),
}


def check_chat(tree: Mapping[str, Any]) -> Chat:
    """Check a chat request field by field. The last message of the user is the sentence.

    Raises:
        RequestError: 400, naming the field.
    """
    for name, value in tree.items():
        if name not in FIELDS:
            raise RequestError(400, "unknown_field", f"unknown field {name[:40]!r}", name[:40])
        kind, fits = FIELDS[name]
        if value is not None and not fits(value):
            raise RequestError(400, "invalid_value", f"{name} must be {kind}", name)
    options = tree.get("stream_options") or {}
    if not isinstance(options.get("include_usage", False), bool):
        raise RequestError(
            400,
            "invalid_value",
            "stream_options.include_usage must be true or false",
            "stream_options",
        )
    if not tree.get("model"):
        raise RequestError(
            400, "missing_field", "model is missing; /v1/models lists what there is", "model"
        )
    return Chat(
        sentence=_sentence(tree.get("messages")),
        model=tree["model"],
        stream=bool(tree.get("stream")),
        include_usage=bool(options.get("include_usage")),
    )


def _sentence(messages: Any) -> str:
    if not messages or len(messages) > MOST_MESSAGES:
        raise RequestError(
            400, "invalid_value", f"messages must hold 1 to {MOST_MESSAGES} messages", "messages"
        )
    sentence = None
    for n, message in enumerate(messages):
        where = f"messages[{n}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise RequestError(
                400, "invalid_value", f"{where}.role must be one of {', '.join(ROLES)}", where
            )
        text = _text(message.get("content"))
        if text is None and message["role"] == "user":
            raise RequestError(400, "invalid_value", f"{where}.content must be text", where)
        sentence = text if message["role"] == "user" else sentence
    if sentence is None:
        raise RequestError(
            400, "invalid_value", "messages has no message of the role user", "messages"
        )
    return sentence


def _text(content: Any) -> str | None:
    """Text of a message: a string, or a list of text parts; `None` if it is neither."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [
        part.get("text")
        for part in content
        if isinstance(part, dict) and part.get("type") == "text"
    ]
    texts = [part for part in parts if isinstance(part, str)]
    return " ".join(texts) if len(texts) == len(content) else None


def check_private(request: Request) -> bool:
    """Whether the header `x-tumen-private` marks the sentence as one that must not leave the device.

    Raises:
        RequestError: 400, when it says neither yes nor no: a typing error must not send a private sentence out.
    """
    value = request.headers.get("x-tumen-private", "0").strip().lower()
    if value not in ("0", "1", "true", "false"):
        raise RequestError(
            400, "invalid_value", "x-tumen-private must be 1 or 0", "x-tumen-private"
        )
    return value in ("1", "true")
