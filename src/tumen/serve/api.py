"""The OpenAI-compatible HTTP surface over a router: `/v1/models`, `/v1/chat/completions`, `/healthz`.

The last message of the user is the sentence; the answer's content is the action as compact JSON. `model` is the
recipe's name (the router chooses), or a tier to insist on. Where it was answered and why stands in the headers
`x-tumen-route`, `x-tumen-reason` and `x-tumen-confidence` and in the field `tumen`. Nothing a client says reaches a
log.
"""

from __future__ import annotations

import json
import secrets
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tumen.core.errors import InputError, RunnerError
from tumen.core.events import Events
from tumen.serve.guard import (
    Chat,
    RequestError,
    check_caller,
    check_chat,
    check_private,
    parse_body,
    read_body,
)
from tumen.serve.router import RoutedAnswer, Router, Tier
from tumen.serve.runners.runner import Completion
from tumen.serve.stream import DONE, EventStream, event

MOST_AT_ONCE = 32
Headers = dict[str, str]


def create_app(
    router: Router, name: str, key: str | None = None, events: Events | None = None
) -> Starlette:
    """The ASGI application.

    Args:
        router: answers; closed when the application shuts down.
        name: of the recipe; the model that stands for the router's own choice.
        key: what clients must send as Bearer; `None` serves programs on this machine only.
        events: told of faults of the server, by kind and place, never with what was said.
    """
    surface = Surface(router, name, key, events or Events(None))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await router.close()

    return Starlette(
        routes=[
            routing.Route("/healthz", surface.health, methods=["GET"]),
            routing.Route("/v1/models", surface.models, methods=["GET"]),
            routing.Route("/v1/chat/completions", surface.chat, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _on_http,
            InputError: _on_input,
            RunnerError: _on_runner,
        },
        lifespan=lifespan,
    )


class Surface:
    """The three endpoints."""

    def __init__(self, router: Router, name: str, key: str | None, events: Events) -> None:
        self._router, self._name, self._key, self._events = router, name, key, events
        self._started, self._busy = int(time.time()), 0

    async def health(self, request: Request) -> Response:
        """That the server is there. Says nothing else, so it needs no key."""
        return _json({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """The recipe's name, which lets the router choose, and each tier."""
        check_caller(request, self._key)
        rows = [
            {"id": model, "object": "model", "created": self._started, "owned_by": "tumen"}
            for model in (self._name, *self._router.tiers)
        ]
        return _json({"object": "list", "data": rows})

    async def chat(self, request: Request) -> Response:
        """One sentence in, one action out."""
        try:
            return await self._chat(request)
        except (InputError, RunnerError, HTTPException):
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._events.emit(
                "server fault", kind=type(error).__name__, where=f"{place.filename}:{place.lineno}"
            )
            return _json(
                _error_body("a fault of this server", "server_error", "internal_error", None), 500
            )

    async def _chat(self, request: Request) -> Response:
        check_caller(request, self._key)
        if self._busy >= MOST_AT_ONCE:
            raise RequestError(
                429,
                "too_many_requests",
                f"{MOST_AT_ONCE} requests are waiting already; try again shortly",
            )
        self._busy += 1
        try:
            chat = check_chat(parse_body(await read_body(request)))
            private, tier = check_private(request), self._tier(chat.model)
            if chat.stream and tier:
                return await self._live(chat, tier, private)
            answer = await self._router.act(chat.sentence, private, tier)
        finally:
            self._busy -= 1
        if chat.stream:
            return EventStream(
                _chunks(chat, _one(answer.completion), answer.tier, answer.why),
                _route_headers(answer),
            )
        return _json(_body(chat, answer), headers=_route_headers(answer))

    def _tier(self, model: str) -> Tier | None:
        """The tier a client insists on; `None` leaves it to the router."""
        if model == self._name:
            return None
        if model not in self._router.tiers:
            known = ", ".join((self._name, *self._router.tiers))
            raise RequestError(
                404, "model_not_found", f"no model {model[:40]!r} here; there is {known}", "model"
            )
        return model

    async def _live(self, chat: Chat, tier: Tier, private: bool) -> Response:
        """A stream straight from one tier. The first piece is awaited, so that a failure to start keeps its status."""
        source = self._router.runner(tier, private).stream(chat.sentence)
        first = await anext(source)

        async def pieces() -> AsyncGenerator[str | Completion, None]:
            async with aclosing(cast("AsyncGenerator[str | Completion, None]", source)):
                yield first
                async for piece in source:
                    yield piece

        headers = {"x-tumen-route": tier, "x-tumen-reason": "asked for"}
        return EventStream(_chunks(chat, pieces(), tier, "asked for"), _headers(headers))


async def _one(completion: Completion) -> AsyncGenerator[str | Completion, None]:
    """A routed answer as a stream: which tier speaks is known only when the device is done."""
    yield completion.text
    yield completion


async def _chunks(
    chat: Chat, pieces: AsyncGenerator[str | Completion, None], tier: Tier, why: str
) -> AsyncGenerator[bytes, None]:
    """Chunks of a chat completion; one that fails midway ends with an error event and without `[DONE]`."""
    head = {
        "id": _new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": chat.model,
    }

    def chunk(delta: Mapping[str, str], finish: str | None = None, **more: Any) -> bytes:
        return event(
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
        )

    async with aclosing(pieces):
        try:
            yield chunk({"role": "assistant", "content": ""})
            async for piece in pieces:
                if isinstance(piece, str):
                    yield chunk({"content": piece})
                    continue
                yield chunk(
                    {}, "stop", tumen={"tier": tier, "why": why, "confidence": piece.confidence}
                )
                if chat.include_usage:
                    yield event({**head, "choices": [], "usage": _usage(piece)})
            yield DONE
        except (RunnerError, InputError) as error:
            yield event(_error_body(str(error), "server_error", "runner_failed", None))


def _body(chat: Chat, answer: RoutedAnswer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.completion.text, "refusal": None}
    return {
        "id": _new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": _usage(answer.completion),
        "tumen": {
            "tier": answer.tier,
            "why": answer.why,
            "confidence": answer.completion.confidence,
        },
    }


def _usage(completion: Completion) -> dict[str, int]:
    read, written = completion.prompt_tokens, completion.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _route_headers(answer: RoutedAnswer) -> Headers:
    return _headers(
        {
            "x-tumen-route": answer.tier,
            "x-tumen-reason": answer.why,
            "x-tumen-confidence": f"{answer.completion.confidence:.4f}",
            "openai-processing-ms": str(round(sum(answer.seconds.values()) * 1e3)),
        }
    )


def _headers(more: Mapping[str, str] | None = None) -> Headers:
    """Headers of every answer: an id of our own making, and values that cannot forge another header."""
    clean = {
        name: "".join(c if " " <= c <= "~" else "?" for c in value)
        for name, value in (more or {}).items()
    }
    return {"x-request-id": _new_id("req"), "x-content-type-options": "nosniff", **clean}


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"


def _json(
    tree: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII: what a client sent may hold surrogates that UTF-8 cannot."""
    return Response(json.dumps(tree), status, headers or _headers(), "application/json")


def _error_body(message: str, kind: str, code: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def _on_http(request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    code, text = {
        404: ("not_found", "no such path; there is /v1/models, /v1/chat/completions and /healthz"),
        405: ("method_not_allowed", f"this path does not take {request.method}"),
    }.get(status, ("http_error", f"HTTP {status}"))
    return _json(_error_body(text, "invalid_request_error", code, None), status)


async def _on_input(request: Request, error: Exception) -> Response:
    refused = (
        error
        if isinstance(error, RequestError)
        else RequestError(400, "invalid_sentence", str(error), "messages")
    )
    kind = "authentication_error" if refused.status == 401 else "invalid_request_error"
    headers = {"retry-after": "1"} if refused.status == 429 else {}
    return _json(
        _error_body(str(refused), kind, refused.code, refused.param),
        refused.status,
        _headers(headers),
    )


async def _on_runner(request: Request, error: Exception) -> Response:
    return _json(
        _error_body(str(error), "server_error", "runner_failed", None),
        503,
        _headers({"retry-after": "1"}),
    )
