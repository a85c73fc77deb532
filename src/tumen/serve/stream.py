"""Server-sent events that stop the moment the client is gone."""

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
    """One event. JSON in ASCII has no line break, so no text of a model can forge another event."""
    return b"data: " + json.dumps(tree, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends events as they come and watches the client; when it leaves, the events' source is closed at once."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        sender = asyncio.create_task(self._send(send))
        watcher = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sender, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, watcher):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async for block in self._events:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
