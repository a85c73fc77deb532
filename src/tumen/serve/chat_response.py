"""The answer to a chat request: one JSON body, or chunks of a stream.

Beside OpenAI's fields, `tumen` holds the tier that answered, why, the confidence, and what the
words say about the act: that it is not wanted, not now, or not for all (`marks`, `act_now`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from tumen.core.errors import InputError, RunnerError
from tumen.serve.chat_request import ChatRequest
from tumen.serve.http_response import Headers, error_body, new_id, response_headers
from tumen.serve.router import RoutedAnswer, Tier
from tumen.serve.runners.runner import Completion
from tumen.serve.stream import DONE, event

Marks = Sequence[Mapping[str, str]]
"""What a sentence says about its act: `kind` (negative, except, moment, ...) and `words`."""

_NARROWS = "except"  # an act for now, though not on everything

Pieces = AsyncGenerator[str | Completion, None]  # text piece by piece, then the whole completion


def chat_body(chat: ChatRequest, answer: RoutedAnswer, marks: Marks = ()) -> dict[str, Any]:
    """Return a `chat.completion` object.

    Args:
        chat: the request.
        answer: what a tier made of the sentence.
        marks: what its words say about the act, whatever the tier made of it.
    """
    completion = answer.completion
    message = {"role": "assistant", "content": completion.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [choice],
        "usage": _usage(completion),
        "tumen": _routing(answer.tier, answer.reason, completion, marks),
    }


def route_headers(answer: RoutedAnswer) -> Headers:
    """Return the headers that say where a sentence was answered, and why."""
    seconds = sum(answer.seconds.values())
    milliseconds = round(1e3 * seconds)
    return response_headers(
        {
            "x-tumen-route": answer.tier,
            "x-tumen-reason": answer.reason,
            "x-tumen-confidence": f"{answer.completion.confidence:.4f}",
            "openai-processing-ms": str(milliseconds),
        }
    )


async def as_pieces(completion: Completion) -> Pieces:
    """Yield a finished answer as a stream of one piece.

    A routed answer cannot stream earlier: which tier answers is known only when the device is done.
    """
    yield completion.text
    yield completion


async def chat_chunks(
    chat: ChatRequest, pieces: Pieces, tier: Tier, reason: str, marks: Marks = ()
) -> AsyncGenerator[bytes, None]:
    """Yield `chat.completion.chunk` events.

    A stream that fails midway ends with an error event and without `[DONE]`.
    """
    head = {
        "id": new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": chat.model,
    }
    # Closed at once when the client is gone: the model must not write on for nobody.
    async with aclosing(pieces):
        try:
            yield _chunk(head, {"role": "assistant", "content": ""})
            async for piece in pieces:
                if isinstance(piece, str):
                    yield _chunk(head, {"content": piece})
                    continue
                yield _chunk(head, {}, "stop", tumen=_routing(tier, reason, piece, marks))
                if chat.include_usage:
                    yield event({**head, "choices": [], "usage": _usage(piece)})
            yield DONE
        except (RunnerError, InputError) as error:
            yield event(error_body(str(error), "server_error", "runner_failed"))


def _chunk(
    head: Mapping[str, Any], delta: Mapping[str, str], finish: str | None = None, **more: Any
) -> bytes:
    """Return one chunk with one choice.

    Args:
        head: fields that all chunks of an answer share.
        delta: what is new in the message.
        finish: why the answer ended, in the last chunk.
        more: other fields of the chunk.
    """
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({**head, "choices": [choice], **more})


def _routing(tier: Tier, reason: str, completion: Completion, marks: Marks) -> dict[str, Any]:
    """Return the field `tumen` of an answer."""
    return {
        "tier": tier,
        "why": reason,
        "confidence": completion.confidence,
        "marks": [dict(mark) for mark in marks],
        # `don't unlock the door` must not be done, and `at ten` not now
        "act_now": all(mark["kind"] == _NARROWS for mark in marks),
    }


def _usage(completion: Completion) -> dict[str, int]:
    """Return the token counts as OpenAI names them."""
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }
