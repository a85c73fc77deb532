"""JSON responses, their headers, and the errors of the HTTP API in OpenAI's form."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tumen.serve.request_checks import RequestError

Headers = dict[str, str]
RETRY = {"retry-after": "1"}  # seconds
NOT_PRINTABLE = re.compile("[^ -~]")  # of ASCII


def response_headers(more: Mapping[str, str] | None = None) -> Headers:
    """Return the headers of every response, and `more` with only printable ASCII in its values.

    The request id is our own, never the client's. Replacing control characters keeps a value from
    forging another header.
    """
    # nosniff: a browser must not take JSON for a page.
    headers = {"x-request-id": new_id("req"), "x-content-type-options": "nosniff"}
    if more is None:
        return headers
    for name, value in more.items():
        headers[name] = NOT_PRINTABLE.sub("?", value)
    return headers


def new_id(kind: str) -> str:
    """Return a random id such as `req-0f3a...`."""
    return f"{kind}-{secrets.token_hex(12)}"


def json_response(
    tree: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response in ASCII.

    What a client sent may hold surrogates, which UTF-8 cannot encode.

    Args:
        tree: the body.
        status: of HTTP.
        headers: all headers; default: those of `response_headers`.
    """
    body = json.dumps(tree)
    if headers is None:
        headers = response_headers()
    return Response(body, status, headers, "application/json")


def error_body(message: str, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's form.

    Args:
        message: one line for people.
        kind: OpenAI's `type`, such as `invalid_request_error`.
        code: for programs.
        param: the field at fault.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def internal_error() -> Response:
    """Return the response to a bug of this server. It repeats nothing of the request."""
    body = error_body("internal error of this server", "server_error", "internal_error")
    return json_response(body, 500)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer a request that no route takes."""
    status = cast(HTTPException, error).status_code
    if status == 404:
        code = "not_found"
        message = "unknown path; the paths are /v1/models, /v1/chat/completions and /healthz"
    elif status == 405:
        code = "method_not_allowed"
        message = f"this path does not accept {request.method}"
    else:
        code = "http_error"
        message = f"HTTP {status}"
    return json_response(error_body(message, "invalid_request_error", code), status)


async def on_input_error(request: Request, error: Exception) -> Response:
    """Answer a rejected request; an `InputError` of a runner is about the sentence."""
    if isinstance(error, RequestError):
        rejected = error
    else:
        rejected = RequestError(400, "invalid_sentence", str(error), "messages")
    kind = "invalid_request_error"
    if rejected.status == 401:
        kind = "authentication_error"
    body = error_body(str(rejected), kind, rejected.code, rejected.param)
    # 429: the server is busy, and may not be in a second.
    headers = response_headers(RETRY if rejected.status == 429 else None)
    return json_response(body, rejected.status, headers)


async def on_runner_error(request: Request, error: Exception) -> Response:
    """Answer a request that no runner could answer: 503, worth a retry."""
    body = error_body(str(error), "server_error", "runner_failed")
    return json_response(body, 503, response_headers(RETRY))
