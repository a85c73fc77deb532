"""Server-sent events that stop as soon as the client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


def event(tree: Mapping[str, Any]) -> bytes:
    """Return one event.

    JSON in ASCII holds no line break, so no text of a model can forge another event.
    """
    text = json.dumps(tree, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"


class EventStream(Response):
    """A response that sends events as they are made.

    It closes their source when the client disconnects.

    Args:
        events: encoded events; see `event`.
        headers: of the response.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]  # not known in advance
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or stop when the client disconnects (ASGI)."""
        # Whichever is first: all events are sent, or the client is gone.
        sender = asyncio.create_task(self._send(send))
        watcher = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sender, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sender.cancel()
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        """Send the headers, then each event as a part of the body."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        async for block in self._events:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; what it still sends is ignored."""
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
