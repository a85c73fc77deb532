"""Checks of an HTTP request: its caller, headers, size, time and JSON.

A client's fault is a `RequestError` with the right status, never a 500. The fields of a chat
request are checked by `chat_request`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request

from tumen.core import untrusted
from tumen.core.errors import InputError

MAX_BODY_BYTES = 64 << 10
BODY_SECONDS = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PRIVATE_VALUES = {"0": False, "false": False, "1": True, "true": True}


class RequestError(InputError):
    """A rejected request.

    Attributes:
        status: of HTTP.
        code: for programs, as in OpenAI's errors.
        param: the field at fault, if there is one.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


def check_caller(request: Request, key: str | None) -> None:
    """Check the client's key; without a key, check that the client is a program on this machine.

    A `Host` or `Origin` that is not loopback means a web page whose name resolves to this machine
    (DNS rebinding).

    Args:
        request: its headers are read.
        key: the key that clients must send; `None` serves this machine only.

    Raises:
        RequestError: 401 for a wrong key, 403 for a caller from elsewhere.
    """
    if key is None:
        _check_local(request)
    elif not _has_key(request, key):
        raise RequestError(
            401, "invalid_api_key", "send the key of this server as `Authorization: Bearer KEY`"
        )


def _check_local(request: Request) -> None:
    """Raise RequestError where a web page, and not a program of this machine, may be asking."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")  # browsers send it, programs do not
    local_host = _is_loopback(f"//{host}")
    local_origin = origin is None or _is_loopback(origin)
    if not local_host or not local_origin:
        raise RequestError(
            403,
            "not_local",
            "without TUMEN_KEY only programs on this machine are served, at http://127.0.0.1",
        )


def _has_key(request: Request, key: str) -> bool:
    """Whether a request has the server's key as its bearer token."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Digests have equal lengths and are compared in constant time, so timing reveals nothing.
    given_digest = hashlib.sha256(given.encode()).digest()
    key_digest = hashlib.sha256(key.encode()).digest()
    same = hmac.compare_digest(given_digest, key_digest)
    return same and scheme.lower() == "bearer"


def _is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    try:
        return urlsplit(url).hostname in LOOPBACK
    except ValueError:  # such as "[::1" without its bracket
        return False


async def read_body(request: Request) -> bytes:
    """Read the body of a JSON request, limited in bytes and in time.

    Raises:
        RequestError: 408, 413 or 415; 400 when the client disconnects.
    """
    _check_body_headers(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_limited(request)
    except ClientDisconnect:
        raise RequestError(400, "client_gone", "the client disconnected") from None
    except TimeoutError:
        raise RequestError(
            408, "request_timeout", f"the body did not arrive within {BODY_SECONDS:.0f} s"
        ) from None


def _check_body_headers(request: Request) -> None:
    """Check what the headers say of the body, before any of it is read.

    Raises:
        RequestError: 413 or 415.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()  # without its charset
    # A web page can send other types to any server without asking first (CORS).
    if media_type != "application/json":
        raise RequestError(
            415, "unsupported_media_type", "send the request as content-type: application/json"
        )
    # A few compressed bytes may be gigabytes.
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise RequestError(415, "unsupported_encoding", "send the body uncompressed")
    length = int(request.headers.get("content-length", "0"))  # digits only: uvicorn has checked
    if length > MAX_BODY_BYTES:
        raise _too_large()


async def _read_limited(request: Request) -> bytes:
    """Return the body.

    Raises:
        RequestError: 413 as soon as it is too large.
    """
    # Counted as it arrives: the headers may lie, or not say how long it is.
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY_BYTES:  # a chunked body has no length in its headers
            raise _too_large()
    return bytes(body)


def _too_large() -> RequestError:
    """Return the rejection of a body beyond the limit."""
    return RequestError(413, "request_too_large", f"the limit of a body is {MAX_BODY_BYTES} bytes")


def parse_body(body: bytes) -> dict[str, Any]:
    """Parse one JSON object, strictly.

    UTF-8, finite numbers, no duplicate key, limited nesting; see `core.untrusted.parse_json`.

    Raises:
        RequestError: 400.
    """
    try:
        # Stricter than `json.loads`, which takes NaN and duplicate keys.
        tree = untrusted.parse_json(body)
    except ValueError as error:
        raise RequestError(
            400, "invalid_json", f"the body is not valid JSON: {str(error)[:100]}"
        ) from None
    if not isinstance(tree, dict):
        raise RequestError(400, "invalid_json", "the body is JSON but not an object")
    return tree


def check_private(request: Request) -> bool:
    """Return whether the header `x-tumen-private` keeps the sentence on this device.

    Where the header is sent more than once, one that says private is enough.

    Raises:
        RequestError: 400 for any other value: a typing error must not send a private sentence out.
    """
    name = "x-tumen-private"
    private = False
    for text in request.headers.getlist(name):
        value = PRIVATE_VALUES.get(text.strip().lower())
        if value is None:
            raise RequestError(400, "invalid_value", f"{name} must be 1 or 0", name)
        private = private or value
    return private
