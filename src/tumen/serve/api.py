"""The OpenAI-compatible HTTP API over a router: `/v1/models`, `/v1/chat/completions`, `/healthz`.

The user's last message is the sentence; the content of the answer is the action as compact JSON.
`model` is the recipe's name, and then the router chooses the tier, or it is the tier that must
answer. The headers `x-tumen-route`, `x-tumen-reason` and `x-tumen-confidence` and the field `tumen`
say where a sentence was answered and why. Nothing a client sends reaches a log.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tumen.core.errors import InputError, RunnerError
from tumen.core.events import Events
from tumen.serve.chat_request import ChatRequest, parse_chat
from tumen.serve.chat_response import (
    Marks,
    Pieces,
    as_pieces,
    chat_body,
    chat_chunks,
    route_headers,
)
from tumen.serve.http_response import (
    internal_error,
    json_response,
    on_http_error,
    on_input_error,
    on_runner_error,
    response_headers,
)
from tumen.serve.request_checks import (
    RequestError,
    check_caller,
    check_private,
    parse_body,
    read_body,
)
from tumen.serve.router import Router, Tier
from tumen.serve.stream import EventStream

MAX_CONCURRENT = 32  # chat requests that are being answered or wait for a runner
MAX_NAME_CHARACTERS = 40  # of a client's model name that an error message repeats


ReadMarks = Callable[[str], Marks]
"""Returns what a sentence says about its act, whatever a model makes of it."""


def _no_marks(sentence: str) -> Marks:
    """Return that nothing is known about a sentence."""
    return ()


def create_app(
    router: Router,
    name: str,
    key: str | None = None,
    events: Events | None = None,
    marks: ReadMarks | None = None,
) -> Starlette:
    """Return the ASGI application.

    Args:
        router: answers; closed when the application shuts down.
        name: of the recipe; the model that stands for the router's own choice.
        key: what clients must send as Bearer; `None` serves programs on this machine only.
        events: records bugs of the server, by kind and place, never with what was said.
        marks: reads what a sentence says about its act: not, not now, not for all.
    """
    api = ChatApi(router, name, key, events or Events(None), marks or _no_marks)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await router.close()

    return Starlette(
        routes=[
            routing.Route("/healthz", api.health, methods=["GET"]),
            routing.Route("/v1/models", api.models, methods=["GET"]),
            routing.Route("/v1/chat/completions", api.chat, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: on_http_error,
            InputError: on_input_error,
            RunnerError: on_runner_error,
        },
        lifespan=lifespan,
    )


class ChatApi:
    """The three endpoints; see `create_app` for the arguments."""

    def __init__(
        self, router: Router, name: str, key: str | None, events: Events, marks: ReadMarks
    ) -> None:
        self._router = router
        self._marks = marks
        self._name = name
        self._key = key
        self._events = events
        self._started = int(time.time())
        self._active = 0  # chat requests

    async def health(self, request: Request) -> Response:
        """Report that the server runs. It reveals nothing else, so it needs no key."""
        return json_response({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """List the recipe's name, for the router's choice, and each tier.

        Raises:
            RequestError: see `check_caller`.
        """
        check_caller(request, self._key)
        names = (self._name, *self._router.tiers)
        rows = [self._model_row(name) for name in names]
        return json_response({"object": "list", "data": rows})

    def _model_row(self, name: str) -> dict[str, Any]:
        """Return a model as OpenAI lists it."""
        return {"id": name, "object": "model", "created": self._started, "owned_by": "tumen"}

    async def chat(self, request: Request) -> Response:
        """Answer one sentence with one action.

        Raises:
            RequestError: the request is rejected.
            InputError: the sentence cannot be used.
            RunnerError: no runner answered.
        """
        try:
            return await self._limited_answer(request)
        except (InputError, RunnerError, HTTPException):
            raise  # their handlers answer
        except Exception as error:
            # Starlette would print a traceback with the sentence in it.
            self._record(error)
            return internal_error()

    def _record(self, error: Exception) -> None:
        """Record a bug by its kind and place: its message might quote the sentence."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        self._events.emit(
            "server fault", kind=type(error).__name__, where=f"{place.filename}:{place.lineno}"
        )

    async def _limited_answer(self, request: Request) -> Response:
        """Answer a request, unless too many are being answered already.

        Raises:
            RequestError: 401 or 403 for the caller, 429 for too many requests.
        """
        # The caller first: a stranger must not learn how busy the server is.
        check_caller(request, self._key)
        if self._active >= MAX_CONCURRENT:
            raise RequestError(
                429,
                "too_many_requests",
                f"{MAX_CONCURRENT} requests are waiting already; try again shortly",
            )
        # Between here and `finally` nothing may return without counting down.
        self._active += 1
        try:
            return await self._answer(request)
        finally:
            self._active -= 1

    async def _answer(self, request: Request) -> Response:
        """Answer an admitted request, with one JSON body or a stream."""
        body = await read_body(request)
        chat = parse_chat(parse_body(body))
        private = check_private(request)
        tier = self._requested_tier(chat)
        sentence = cast(str, chat.sentence)  # `parse_chat` rejects a request without one
        if chat.stream and tier:
            return await self._stream_tier(chat, sentence, tier, private)
        answer = await self._router.act(sentence, private, tier)
        headers = route_headers(answer)
        marks = self._marks(sentence)
        if not chat.stream:
            return json_response(chat_body(chat, answer, marks), headers=headers)
        # The client asked for a stream, but the router had to wait for the whole answer.
        pieces = as_pieces(answer.completion)
        return EventStream(chat_chunks(chat, pieces, answer.tier, answer.reason, marks), headers)

    def _requested_tier(self, chat: ChatRequest) -> Tier | None:
        """Return the tier that must answer; `None` leaves the choice to the router."""
        model = cast(str, chat.model)  # `parse_chat` rejects a request without one
        if model == self._name:
            return None
        for tier in self._router.tiers:
            if model == tier:
                return tier
        # Cut: the name is the client's, and the message goes back to it.
        known = ", ".join((self._name, *self._router.tiers))
        message = f"no model {model[:MAX_NAME_CHARACTERS]!r} here; the models are {known}"
        raise RequestError(404, "model_not_found", message, "model")

    async def _stream_tier(
        self, chat: ChatRequest, sentence: str, tier: Tier, private: bool
    ) -> Response:
        """Return a stream straight from one tier.

        The first piece is awaited here, so that a runner that fails to start gets its own HTTP
        status.
        """
        source = cast(Pieces, self._router.runner(tier, private).stream(sentence))
        first = await anext(source)

        async def pieces() -> Pieces:
            async with aclosing(source):
                yield first
                async for piece in source:
                    yield piece

        headers = response_headers({"x-tumen-route": tier, "x-tumen-reason": "requested"})
        marks = self._marks(sentence)
        return EventStream(chat_chunks(chat, pieces(), tier, "requested", marks), headers)
