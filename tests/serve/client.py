"""Raw requests to a served application, as stock clients would not send them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any

CHAT_PATH = "/v1/chat/completions"
HELLO = {"model": "pocket", "messages": [{"role": "user", "content": "turn on the light"}]}
# The head of a chat request, before its last headers and the empty line.
HEAD = f"POST {CHAT_PATH} HTTP/1.1\nhost: 127.0.0.1\ncontent-type: application/json\n"


def address(url: str) -> tuple[str, int]:
    """Host and port of a base URL."""
    host, port = url.split("/")[2].split(":")
    return host, int(port)


def post(
    url: str, body: bytes, path: str = CHAT_PATH, method: str = "POST", **headers: str
) -> tuple[int, Any, Any]:
    """(status, headers, JSON) of one request. An empty header value leaves the header out."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"content-type": "application/json"} | given
    connection = http.client.HTTPConnection(*address(url), timeout=10)
    connection.request(method, path, body, {name: value for name, value in sent.items() if value})
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, response.headers, json.loads(raw) if raw else None


def chat(url: str, tree: Any, **headers: str) -> tuple[int, Any, Any]:
    """(status, headers, JSON) of a chat request."""
    return post(url, json.dumps(tree).encode(), **headers)


def stream(url: str, tree: Any) -> list[bytes]:
    """The events of a streamed chat request."""
    connection = http.client.HTTPConnection(*address(url), timeout=10)
    connection.request("POST", CHAT_PATH, json.dumps(tree), {"content-type": "application/json"})
    blocks = connection.getresponse().read().strip().split(b"\n\n")
    connection.close()
    return blocks


def raw(url: str, head: str, body: bytes = b"") -> bytes:
    """What a server answers to bytes that `http.client` would not send."""
    with socket.create_connection(address(url), timeout=10) as line:
        with contextlib.suppress(OSError):  # it may have hung up already
            line.sendall(head.replace("\n", "\r\n").encode() + body)
            line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return line.recv(65536)
    return b""


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until a condition holds; false when it does not in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
