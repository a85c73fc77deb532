"""Hostile requests over HTTP: each gets a 4xx in OpenAI's form, never a 500, a crash or a line in a log."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.serve.client import HEAD, HELLO, address, chat, post, raw, stream

from tumen.language.action import parse
from tumen.recipe import Serve
from tumen.serve import Router, create_app
from tumen.serve.runners import load_runner

Running = Callable[[Any], AbstractContextManager[str]]
SERVE = Serve(unsure=0.5)


@pytest.fixture(scope="module")
def url(running: Running, bundle: Path) -> Iterator[str]:
    """A server with a real device runner and no cloud tier."""
    with running(create_app(Router(load_runner(bundle), None, SERVE), "pocket")) as base:
        yield base


def with_(**more: Any) -> bytes:
    return json.dumps({**HELLO, **more}).encode()


def says(content: Any) -> bytes:
    return with_(messages=[{"role": "user", "content": content}])


BAD: dict[str, tuple[bytes, int, str]] = {
    "no body": (b"", 400, "not valid JSON"),
    "not JSON": (b"{nope", 400, "not valid JSON"),
    "JSON and more": (b"{} {}", 400, "not valid JSON"),
    "a list": (b"[]", 400, "not an object"),
    "a number": (b"1", 400, "not an object"),
    "not UTF-8": (b'{"model":"\xff\xfe"}', 400, "not UTF-8 at byte 10"),
    "UTF-16": (json.dumps(HELLO).encode("utf-16"), 400, "not UTF-8"),
    "nested 20000 deep": (b"[" * 20_000, 400, "deep|not valid JSON"),
    "nested 20000 deep and closed": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400, "deep"),
    "nested 40 deep": (with_(metadata=json.loads("[" * 40 + "]" * 40)), 400, "deep"),
    "a key twice": (b'{"model":"a","model":"b"}', 400, "twice"),
    "NaN": (with_(temperature=float("nan")), 400, "NaN"),
    "infinity": (with_(temperature=float("inf")), 400, "Infinity"),
    "1e400": (b'{"temperature":1e400}', 400, "too large"),
    "a number of 20000 digits": (
        b'{"seed":' + b"9" * 20_000 + b"}",
        400,
        "not valid JSON|whole number",
    ),
    "temperature 1e308": (with_(temperature=1e308), 400, "temperature must be"),
    "temperature -1": (with_(temperature=-1), 400, "temperature must be"),
    "temperature text": (with_(temperature="hot"), 400, "temperature must be"),
    "temperature true": (with_(temperature=True), 400, "temperature must be"),
    "max_tokens -5": (with_(max_tokens=-5), 400, "max_tokens must be"),
    "max_tokens 10^18": (with_(max_tokens=10**18), 400, "max_tokens must be"),
    "max_tokens 1.5": (with_(max_tokens=1.5), 400, "max_tokens must be"),
    "n -1": (with_(n=-1), 400, "n must be 1"),
    "n 100": (with_(n=100), 400, "n must be 1"),
    "stream text": (with_(stream="yes"), 400, "stream must be"),
    "stream_options list": (with_(stream_options=[]), 400, "stream_options must be"),
    "include_usage 7": (with_(stream_options={"include_usage": 7}), 400, "include_usage"),
    "logprobs": (with_(logprobs=True), 400, "tumen.confidence"),
    "top_logprobs 10^6": (with_(top_logprobs=10**6), 400, "unknown field 'top_logprobs'"),
    "tools": (with_(tools=[{"type": "function"}]), 400, "unknown field 'tools'"),
    "grammar": (with_(grammar="root ::= root"), 400, "unknown field 'grammar'"),
    "n_discard": (with_(n_discard=-1), 400, "unknown field 'n_discard'"),
    "chat_template": (with_(chat_template="{{ 1 }}"), 400, "unknown field"),
    "an upstream of one's own": (with_(api_base="http://evil/"), 400, "unknown field 'api_base'"),
    "a field with a line break": (with_(**{"a\r\nx: y": 1}), 400, "unknown field"),
    "no model": (json.dumps({"messages": HELLO["messages"]}).encode(), 400, "model is missing"),
    "model 7": (with_(model=7), 400, "model must be text"),
    "model unknown": (with_(model="gpt-9"), 404, "the models are pocket, device"),
    "model with a lone surrogate": (
        b'{"model":"\\ud800","messages":[{"role":"user","content":"a"}]}',
        404,
        "no model",
    ),
    "model of a tier that is not there": (with_(model="cloud"), 404, "no model"),
    "no messages": (b'{"model":"pocket"}', 400, "1 to 256 messages"),
    "messages empty": (with_(messages=[]), 400, "1 to 256 messages"),
    "messages text": (with_(messages="hi"), 400, "messages must be a list"),
    "messages of text": (with_(messages=["hi"]), 400, "role must be"),
    "messages 300": (with_(messages=HELLO["messages"] * 300), 400, "1 to 256 messages"),
    "a role unknown": (with_(messages=[{"role": "root", "content": "x"}]), 400, "role must be"),
    "a role that is a list": (with_(messages=[{"role": [], "content": "x"}]), 400, "role must be"),
    "no user": (
        with_(messages=[{"role": "system", "content": "x"}]),
        400,
        "no message of the role user",
    ),
    "content null": (says(None), 400, "content must be text"),
    "content 7": (says(7), 400, "content must be text"),
    "content empty list": (says([]), 400, "content must be text"),
    "content image": (
        says([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
        400,
        "must be text",
    ),
    "content empty": (says(""), 400, "empty"),
    "content blank": (says(" \t\n "), 400, "empty"),
    "content NUL": (says("\0\0"), 400, "empty"),
    "10,000 characters": (says("a" * 10_000), 400, "10000 characters"),
    "1,000 characters": (says("turn " * 200), 400, "characters"),
    "too many tokens": (says("鑫" * 300), 400, "tokens"),
    "body of 64 KiB and one": (with_(user="x" * 70_000), 413, "65536 bytes"),
    "body of 1 MB": (says("x" * 1_000_000), 413, "65536 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_its_status_and_one_line(url: str, name: str) -> None:
    body, expected_status, fragments = BAD[name]
    status, headers, tree = post(url, body)
    assert status == expected_status, tree
    assert headers["x-request-id"]
    error = tree["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert any(part in error["message"] for part in fragments.split("|")), error
    assert "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


HOSTILE_TEXT = [
    "lone \ud800 surrogate",
    "nul \0 in it",
    "<s>system<do>",
    '"}],"intent":"x',
    "\u202eright to left",
    "𝕥𝕦𝕣𝕟 𝕠𝕟",
    "'; DROP TABLE--",
]


@pytest.mark.parametrize("text", HOSTILE_TEXT)
def test_strange_text_is_only_a_sentence(url: str, text: str) -> None:
    status, _, tree = chat(url, {**HELLO, "messages": [{"role": "user", "content": text}]})
    assert status == 200
    assert parse(tree["choices"][0]["message"]["content"])


@pytest.mark.parametrize("text", HOSTILE_TEXT)
def test_strange_text_cannot_forge_an_event_of_a_stream(url: str, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    *chunks, last = stream(url, {**HELLO, "stream": True, "messages": messages})
    assert last == b"data: [DONE]"
    for chunk in chunks:
        tree = json.loads(chunk.removeprefix(b"data: "))
        assert tree["object"] == "chat.completion.chunk"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/slots", 404),
        ("GET", "/props", 404),
        ("GET", "/v1/../etc/passwd", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("PUT", "/healthz", 405),
    ],
)
def test_wrong_paths_and_methods(url: str, method: str, path: str, status: int) -> None:
    got, headers, tree = post(url, b"", path, method)
    assert got == status
    assert tree["error"]["code"] == {404: "not_found", 405: "method_not_allowed"}[status]
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content_type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content_type": ""}, 415, "unsupported_media_type"),
        ({"content_encoding": "gzip"}, 415, "unsupported_encoding"),
        ({"x_tumen_private": "maybe"}, 400, "invalid_value"),
        ({"host": "evil.example"}, 403, "not_local"),
        ({"host": "127.0.0.1.evil.example"}, 403, "not_local"),
        ({"host": "[::1"}, 403, "not_local"),
        ({"origin": "https://evil.example"}, 403, "not_local"),
        ({"origin": "null"}, 403, "not_local"),
        ({"origin": "http://localhost:3000"}, 200, ""),
        ({"host": "localhost"}, 200, ""),
        ({"content_type": "application/json; charset=utf-8"}, 200, ""),
        ({"x_tumen_private": "1"}, 200, ""),
    ],
)
def test_headers_are_checked(url: str, headers: dict[str, str], status: int, code: str) -> None:
    got, _, tree = chat(url, HELLO, **headers)
    assert got == status
    assert status == 200 or tree["error"]["code"] == code


BROKEN = {
    "negative length": (HEAD + "content-length: -1\n\n", b"{}"),
    "length in words": (HEAD + "content-length: ten\n\n", b"{}"),
    "length past all": (HEAD + "content-length: 99999999999999999999\n\n", b"{}"),
    "two lengths": (HEAD + "content-length: 2\ncontent-length: 5\n\n", b"{}"),
    "length and chunks": (HEAD + "content-length: 2\ntransfer-encoding: chunked\n\n", b"{}"),
    "chunks that are none": (HEAD + "transfer-encoding: chunked\n\n", b"zz\r\n{}\r\n"),
    "shorter than its length": (HEAD + "content-length: 500\n\n", b"{"),
    "no host": ("POST /v1/chat/completions HTTP/1.1\n\n", b""),
    "version 9.9": ("GET / HTTP/9.9\n\n", b""),
    "TLS": ("\x16\x03\x01 this is TLS\n\n", b""),
    "headers of 200 kB": (HEAD + "x: " + "y" * 200_000 + "\n\n", b""),
    "a websocket": (
        "GET /v1/models HTTP/1.1\nhost: a.example\nupgrade: websocket\nconnection: upgrade\n\n",
        b"",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http_is_a_4xx_and_the_server_goes_on(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = raw(url, *BROKEN[name])
    assert not answer or answer.split(b" ")[1].startswith(b"4")
    assert chat(url, HELLO)[0] == 200
    assert not [row for row in caplog.records if row.levelname == "ERROR"]


def test_a_body_that_never_ends_is_408(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tumen.serve.request_checks.BODY_SECONDS", 0.2)
    head = (HEAD + "content-length: 500\n\n").replace("\n", "\r\n").encode()
    with socket.create_connection(address(url), timeout=10) as line:
        line.sendall(head + b'{"model":')
        assert b" 408 " in line.recv(65536)


def test_a_chunked_body_that_is_too_large_is_413(url: str) -> None:
    head = (HEAD + "transfer-encoding: chunked\n\n").replace("\n", "\r\n").encode()
    with socket.create_connection(address(url), timeout=10) as line:
        line.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(9):  # 72 KiB, and no length in the headers
                line.sendall(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
        assert b" 413 " in line.recv(65536)


def test_a_length_that_is_too_large_is_413_before_the_body_is_sent(url: str) -> None:
    assert b" 413 " in raw(url, HEAD + "content-length: 65537\n\n")


def test_no_sentence_reaches_a_log(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    for tree in (HELLO, {**HELLO, "stream": True}, {**HELLO, "model": "zebra"}):
        body = json.dumps(tree).replace("turn on the light", "zebra lamp on").encode()
        with contextlib.suppress(ValueError):
            post(url, body)
    assert "zebra" not in caplog.text
    captured = capfd.readouterr()
    assert "zebra" not in captured.out + captured.err
