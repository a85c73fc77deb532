"""The HTTP surface: the stock `openai` client, hostile requests, clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest

from tumen.core.errors import RunnerError
from tumen.core.events import Events
from tumen.language.action import parse
from tumen.recipe.recipe import Serve
from tumen.serve import Router, create_app
from tumen.serve.runners import load_runner

Running = Callable[[Any], AbstractContextManager[str]]
SERVE = Serve(unsure=0.5)
HELLO = {"model": "pocket", "messages": [{"role": "user", "content": "turn on the light"}]}


@pytest.fixture(scope="module")
def url(running: Running, bundle: Path) -> Iterator[str]:
    """A server over a real runner, alone."""
    with running(create_app(Router(load_runner(bundle), None, SERVE), "pocket")) as base:
        yield base


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=10) as one:
        yield one


def post(
    base: str, body: bytes, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> tuple[int, Any, Any]:
    """(status, headers, JSON) of one raw request."""
    line = http.client.HTTPConnection(base.split("/")[2], timeout=10)
    sent = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    line.request(method, path, body, {name: value for name, value in sent.items() if value})
    answer = line.getresponse()
    raw = answer.read()
    line.close()
    return answer.status, answer.headers, json.loads(raw) if raw else None


def chat(base: str, tree: Any, **headers: str) -> tuple[int, Any, Any]:
    return post(base, json.dumps(tree).encode(), **headers)


def test_the_stock_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["pocket", "device"]


def test_the_stock_client_chats(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**HELLO)  # type: ignore[call-overload]
    done = raw.parse()
    assert parse(done.choices[0].message.content)
    assert done.choices[0].finish_reason == "stop"
    assert done.model == "pocket"
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 0
    assert raw.headers["x-tumen-route"] == done.tumen["tier"] == "device"
    assert raw.headers["x-tumen-reason"] == done.tumen["why"]
    assert float(raw.headers["x-tumen-confidence"]) == pytest.approx(
        done.tumen["confidence"], abs=1e-4
    )
    assert raw.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("model", ["pocket", "device"])
@pytest.mark.parametrize("usage", [False, True])
def test_the_stock_client_streams(client: openai.OpenAI, model: str, usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(
        client.chat.completions.create(**{**HELLO, "model": model}, stream=True, **options)
    )  # type: ignore[call-overload]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = client.chat.completions.create(**HELLO)  # type: ignore[call-overload]
    assert text == whole.choices[0].message.content
    assert [chunk.usage for chunk in chunks if chunk.usage] == ([whole.usage] if usage else [])
    last = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
    assert last.choices[0].finish_reason == "stop"
    assert last.tumen["tier"] == "device"


def test_the_last_message_of_the_user_is_the_sentence(
    url: str, fake: Any, running: Running
) -> None:
    device = fake()
    messages = [
        {"role": "system", "content": "You are a lamp"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {
            "role": "user",
            "content": [{"type": "text", "text": "the"}, {"type": "text", "text": "second"}],
        },
        {"role": "assistant", "content": "prefill"},
    ]
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        assert chat(base, {"model": "pocket", "messages": messages})[0] == 200
    assert device.heard == ["the second"]
    assert device.closed


def test_health_needs_nothing(url: str) -> None:
    assert post(url, b"", "/healthz", "GET")[2] == {"status": "ok"}


def with_(**more: Any) -> bytes:
    return json.dumps({**HELLO, **more}).encode()


def says(content: Any) -> bytes:
    return with_(messages=[{"role": "user", "content": content}])


BAD: dict[str, tuple[bytes, int, str]] = {
    "no body": (b"", 400, "not JSON"),
    "not JSON": (b"{nope", 400, "not JSON"),
    "JSON and more": (b"{} {}", 400, "not JSON"),
    "a list": (b"[]", 400, "no object"),
    "a number": (b"1", 400, "no object"),
    "not UTF-8": (b'{"model":"\xff\xfe"}', 400, "not UTF-8 at byte 10"),
    "UTF-16": (json.dumps(HELLO).encode("utf-16"), 400, "not UTF-8"),
    "nested 20000 deep": (b"[" * 20_000, 400, "deep|not JSON"),
    "nested 20000 deep and closed": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400, "deep"),
    "nested 40 deep": (with_(metadata=json.loads("[" * 40 + "]" * 40)), 400, "deep"),
    "a key twice": (b'{"model":"a","model":"b"}', 400, "twice"),
    "NaN": (with_(temperature=float("nan")), 400, "NaN"),
    "infinity": (with_(temperature=float("inf")), 400, "Infinity"),
    "1e400": (b'{"temperature":1e400}', 400, "too large"),
    "a number of 20000 digits": (b'{"seed":' + b"9" * 20_000 + b"}", 400, "not JSON|whole number"),
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
    "model unknown": (with_(model="gpt-9"), 404, "there is pocket, device"),
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
def test_bad_requests_get_the_status_they_deserve(url: str, name: str) -> None:
    body, status, message = BAD[name]
    got, headers, tree = post(url, body)
    assert got == status, tree
    assert headers["x-request-id"]
    if status != 200:
        error = tree["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert any(part in error["message"] for part in message.split("|")), error
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
@pytest.mark.parametrize("stream", [False, True])
def test_strange_text_is_only_a_sentence(
    url: str, client: openai.OpenAI, text: str, stream: bool
) -> None:
    body = json.dumps(
        {**HELLO, "stream": stream, "messages": [{"role": "user", "content": text}]}
    ).encode()
    if not stream:
        status, _, tree = post(url, body)
        assert status == 200
        assert parse(tree["choices"][0]["message"]["content"])
        return
    line = http.client.HTTPConnection(url.split("/")[2], timeout=10)
    line.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    blocks = line.getresponse().read().split(b"\n\n")
    line.close()
    assert blocks[-2:] == [b"data: [DONE]", b""]
    assert all(json.loads(block[6:])["object"] == "chat.completion.chunk" for block in blocks[:-2])


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


def raw(url: str, head: str, body: bytes = b"", wait_seconds: float = 10.0) -> bytes:
    """What a server says to bytes that `http.client` would not send."""
    host, port = url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=wait_seconds) as line:
        with contextlib.suppress(OSError):  # it may have hung up already
            line.sendall(head.replace("\n", "\r\n").encode() + body)
            line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return line.recv(65536)
    return b""


HEAD = "POST /v1/chat/completions HTTP/1.1\nhost: 127.0.0.1\ncontent-type: application/json\n"


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
def test_broken_http_is_no_fault_of_ours(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = raw(url, *BROKEN[name])
    assert not said or said.split(b" ")[1].startswith(b"4")
    assert chat(url, HELLO)[0] == 200
    assert not [row for row in caplog.records if row.levelname == "ERROR"]


def test_a_body_without_end_is_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tumen.serve.guard.BODY_SECONDS", 0.2)
    host, port = url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(
            (HEAD + "content-length: 500\n\n").replace("\n", "\r\n").encode() + b'{"model":'
        )
        assert b" 408 " in line.recv(65536)
    with socket.create_connection(
        (host, int(port)), timeout=10
    ) as line:  # no length given, and more than may come
        line.sendall((HEAD + "transfer-encoding: chunked\n\n").replace("\n", "\r\n").encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(9):
                line.sendall(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
        assert b" 413 " in line.recv(65536)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic s3cret",
        "Bearer s3cret2",
        "s3cret",
        "Bearer " + "x" * 9000,
        "Bearer ' OR 1=1--",
    ],
)
def test_a_key_is_asked_for(running: Running, fake: Any, given: str | None) -> None:
    with running(create_app(Router(fake(), None, SERVE), "pocket", key="s3cret")) as base:
        wrong = {"authorization": given} if given is not None else {}
        for path, method in (("/v1/chat/completions", "POST"), ("/v1/models", "GET")):
            status, _, tree = post(base, json.dumps(HELLO).encode(), path, method, **wrong)
            assert (status, tree["error"]["type"]) == (401, "authentication_error")
        assert (
            chat(
                base,
                HELLO,
                authorization="Bearer s3cret",
                host="tumen.example",
                origin="https://a.example",
            )[0]
            == 200
        )
        assert post(base, b"", "/healthz", "GET")[0] == 200
        with (
            openai.OpenAI(base_url=base, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()


def test_a_tier_can_be_forced_and_private_stays_in(running: Running, fake: Any) -> None:
    device, cloud = fake(confidence=0.1), fake()
    with running(create_app(Router(device, cloud, SERVE), "pocket")) as base:
        assert chat(base, HELLO)[2]["tumen"]["tier"] == "cloud"
        assert chat(base, {**HELLO, "model": "device"})[2]["tumen"]["tier"] == "device"
        assert chat(base, {**HELLO, "model": "cloud"})[1]["x-tumen-route"] == "cloud"
        heard = len(cloud.heard)
        status, headers, tree = chat(base, HELLO, x_tumen_private="1")
        assert (status, headers["x-tumen-reason"], tree["tumen"]["tier"]) == (
            200,
            "private",
            "device",
        )
        for stream in (False, True):
            status, _, tree = chat(
                base, {**HELLO, "model": "cloud", "stream": stream}, x_tumen_private="true"
            )
            assert (status, "private" in tree["error"]["message"]) == (400, True)
        assert len(cloud.heard) == heard


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["pocket", "device"])
def test_a_dead_runner_is_503(running: Running, fake: Any, stream: bool, model: str) -> None:
    device = fake(fault=RunnerError("the runner died"))
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        status, headers, tree = chat(base, {**HELLO, "model": model, "stream": stream})
    assert status == 503
    assert headers["retry-after"]
    assert tree["error"]["message"] == "the runner died"


def test_our_own_fault_is_500_and_repeats_nothing(
    running: Running, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    events, device = Events(None), fake(fault=KeyError("my secret sentence"))
    with running(create_app(Router(device, None, SERVE), "pocket", events=events)) as base:
        status, _, tree = chat(base, HELLO)
    assert (status, tree["error"]["code"]) == (500, "internal_error")
    assert (events.seen[0]["event"], events.seen[0]["kind"]) == ("server fault", "KeyError")
    assert "secret" not in json.dumps(tree) + json.dumps(events.seen) + caplog.text


def test_a_real_child_killed_between_requests_is_not_noticed_by_clients(
    running: Running, bundle: Path
) -> None:
    runner = load_runner(bundle)
    with running(create_app(Router(runner, None, SERVE), "pocket")) as base:
        before = chat(base, HELLO)[2]["choices"]
        assert runner.pid
        os.kill(runner.pid, signal.SIGKILL)
        assert chat(base, HELLO)[2]["choices"] == before


def test_a_stream_that_fails_midway_ends_without_done(running: Running, fake: Any) -> None:
    class Breaks(fake):  # type: ignore[misc]
        async def stream(self, sentence: str) -> Any:
            yield "{"
            raise RunnerError("the runner died")

    with running(create_app(Router(Breaks(), None, SERVE), "pocket")) as base:
        line = http.client.HTTPConnection(base.split("/")[2], timeout=10)
        body = json.dumps({**HELLO, "model": "device", "stream": True})
        line.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        blocks = line.getresponse().read().strip().split(b"\n\n")
        line.close()
        with (
            openai.OpenAI(base_url=base, api_key="x", max_retries=0) as client,
            pytest.raises(openai.APIError, match="died"),
        ):
            list(client.chat.completions.create(**{**HELLO, "model": "device"}, stream=True))  # type: ignore[call-overload]
    assert json.loads(blocks[-1][6:])["error"]["code"] == "runner_failed"
    assert b"[DONE]" not in blocks[-1]


def eventually(check: Callable[[], bool]) -> bool:
    """Wait up to ten seconds."""
    return any(check() or time.sleep(0.02) for _ in range(500))  # type: ignore[func-returns-value]


def test_a_stream_stops_when_the_client_leaves(running: Running, fake: Any) -> None:
    device = fake()
    device.pause_seconds = 0.05  # 50 s in all
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        host, port = base.split("/")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            body = json.dumps({**HELLO, "model": "device", "stream": True}).encode()
            line.sendall(
                (HEAD + f"content-length: {len(body)}\n\n").replace("\n", "\r\n").encode() + body
            )
            assert b" 200 " in line.recv(4096)
            assert eventually(lambda: device.pieces_sent >= 2)
        left_at, sent = time.monotonic(), device.pieces_sent
        assert eventually(lambda: device.left_early)
        assert time.monotonic() - left_at < 5
        assert device.pieces_sent < sent + 100


def test_more_at_once_than_may_wait_is_429(
    running: Running, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumen.serve.api.MOST_AT_ONCE", 1)
    free = asyncio.Event()

    class Slow(fake):  # type: ignore[misc]
        async def act(self, sentence: str) -> Any:
            self.loop = asyncio.get_running_loop()
            if not self.heard:
                self.heard.append(sentence)
                await free.wait()
            return await fake().act(sentence)

    device = Slow()
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        line = http.client.HTTPConnection(base.split("/")[2], timeout=10)
        line.request(
            "POST", "/v1/chat/completions", json.dumps(HELLO), {"content-type": "application/json"}
        )
        assert eventually(lambda: bool(device.heard))
        status, headers, tree = chat(base, HELLO)
        assert (status, tree["error"]["code"], headers["retry-after"]) == (
            429,
            "too_many_requests",
            "1",
        )
        device.loop.call_soon_threadsafe(free.set)
        assert line.getresponse().status == 200
        line.close()
        assert chat(base, HELLO)[0] == 200


def test_nothing_said_reaches_a_log(
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
