"""The remote runner against our own server, and against endpoints that lie, stall, break off or are not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tumen.core.errors import InputError, RunnerError
from tumen.recipe import Serve
from tumen.serve import Router, create_app
from tumen.serve.runners import Completion, DeviceRunner, RemoteRunner
from tumen.serve.runners.remote_runner import action_schema

ACTION = '{"lang":"en","intent":"HassTurnOn","name":"lamp"}'
CHUNK = json.dumps({"choices": [{"index": 0, "delta": {"content": ACTION}, "finish_reason": None}]})


def reply(content: Any, **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}], **more}).encode()


def http(body: bytes, status: str = "200 OK", length: int | None = None, extra: str = "") -> bytes:
    size = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\ncontent-length: {size}\r\n{extra}connection: close\r\n\r\n".encode()
        + body
    )


@asynccontextmanager
async def endpoint(
    answer: bytes, stall_seconds: float = 0.0
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with these bytes; yields its URL and the requests it got."""
    requests: list[bytes] = []
    over, done = asyncio.Event(), asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        requests.append(head + await reader.readexactly(length))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), stall_seconds)
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        done.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", requests
    finally:
        over.set()
        for _ in requests:
            await done.acquire()
        server.close()


async def ask(
    answer: bytes, stream: bool = False, stall_seconds: float = 0.0, timeout_seconds: float = 10.0
) -> Completion:
    async with endpoint(answer, stall_seconds) as (url, _):
        runner = RemoteRunner(url, "big", timeout_seconds=timeout_seconds)
        try:
            if not stream:
                return await runner.act("turn on the lamp")
            *_, last = [piece async for piece in runner.stream("turn on the lamp")]
            assert isinstance(last, Completion)
            return last
        finally:
            await runner.close()


def test_our_own_server_is_an_endpoint_like_any_other(
    running: Any, shared_runner: DeviceRunner
) -> None:
    async def ask_all(url: str) -> tuple[Completion, list[str | Completion], Completion]:
        runner = RemoteRunner(url, "device")
        try:
            pieces = [piece async for piece in runner.stream("Turn on the kitchen light")]
            return (
                await runner.act("Turn on the kitchen light"),
                pieces,
                shared_runner.ask("turn on the kitchen light"),
            )
        finally:
            await runner.close()

    router = Router(Unclosed(shared_runner), None, Serve())
    with running(create_app(router, "pocket")) as url:
        acted, pieces, direct = asyncio.run(ask_all(url))
    streamed = pieces.pop()
    assert isinstance(streamed, Completion)
    assert acted.text == streamed.text == "".join(map(str, pieces)) == direct.text
    assert acted.confidence == pytest.approx(direct.confidence)
    assert acted.prompt_tokens == direct.prompt_tokens


class Unclosed:
    """A shared runner for an app that closes its runners."""

    def __init__(self, runner: DeviceRunner) -> None:
        self.name, self.act, self.stream = runner.name, runner.act, runner.stream

    async def close(self) -> None:
        pass


def test_the_request_and_the_fields_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")

    usage = {"prompt_tokens": 7, "completion_tokens": -1}
    answer = http(reply(ACTION, usage=usage, tumen={"confidence": 0.25}))

    async def one() -> tuple[Completion, bytes]:
        async with endpoint(answer) as (url, requests):
            runner = RemoteRunner(url, "big", "MY_KEY")
            completion = await runner.act("Turn ON the lamp!")
            await runner.close()
            return completion, requests[0]

    completion, request = asyncio.run(one())
    assert (completion.text, completion.confidence) == (ACTION, 0.25)
    assert (completion.prompt_tokens, completion.completion_tokens) == (7, 0)
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"Bearer s3cret" in head
    sent = json.loads(body)
    assert sent["messages"] == [{"role": "user", "content": "turn on the lamp"}]
    assert sent["response_format"]["json_schema"]["schema"] == action_schema()


BAD_ANSWERS = {
    "not an action": (http(reply("Sure! I turned on the lamp.")), "is not an action"),
    "no text": (http(reply(None)), "is not an action"),
    "an intent that does not exist": (
        http(reply('{"lang":"en","intent":"OpenBomb"}')),
        "is not an action",
    ),
    "a word not in the sentence": (
        http(reply('{"lang":"en","intent":"HassTurnOn","name":"oven"}')),
        "not in the sentence",
    ),
    "a name made of parts": (
        http(reply('{"lang":"en","intent":"HassTurnOn","name":"turn lamp"}')),
        "not in the sentence",
    ),
    "half a word": (
        http(reply('{"lang":"en","intent":"HassTurnOn","name":"lam"}')),
        "not in the sentence",
    ),
    "an empty name": (
        http(reply('{"lang":"en","intent":"HassTurnOn","name":""}')),
        "is not an action",
    ),
    "no choices": (http(b"{}"), "is not an action"),
    "a list": (http(b"[]"), "not a JSON object"),
    "a web page": (http(b"<html>hello"), "not a JSON object"),
    "nested 60000 deep": (http(b"[" * 60000), "not a JSON object"),
    "endless": (http(b" " * (1 << 19)), "more than"),
    "cut off": (http(reply(ACTION), length=9999), "the request failed"),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "the request failed"),
    "no answer": (b"", "the request failed"),
    "500": (http(b"oops", "500 Internal Server Error"), "HTTP 500"),
    "401": (http(b"no", "401 Unauthorized"), r"HTTP 401; check the key in \$TUMEN_CLOUD_KEY"),
    "a redirect": (
        http(b"", "307 Temporary Redirect", extra="location: http://127.0.0.1:1/\r\n"),
        "HTTP 307",
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_a_runner_error(name: str) -> None:
    answer, says = BAD_ANSWERS[name]
    with pytest.raises(RunnerError, match=says) as caught:
        asyncio.run(ask(answer))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (f"data: {CHUNK}\n\n", "broke off"),
        (f"data: {CHUNK}\n\ndata: [DONE]\n\n", "broke off"),
        ('data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', "is not an action"),
        (f"data: {CHUNK}\n\ndata: {{nonsense\n\n", "not a JSON object"),
        (f"data: {CHUNK}\n\n" * 6000, "more than"),
        ("", "broke off"),
    ],
)
def test_a_stream_that_is_not_complete_is_a_runner_error(body: str, says: str) -> None:
    with pytest.raises(RunnerError, match=says):
        asyncio.run(ask(http(body.encode()), stream=True))


def test_a_stream_cut_inside_an_event_is_a_runner_error() -> None:
    with pytest.raises(RunnerError, match="the request failed"):
        asyncio.run(ask(http(f"data: {CHUNK[:20]}".encode(), length=5000), stream=True))


def test_an_answer_that_takes_too_long_is_a_runner_error() -> None:
    with pytest.raises(RunnerError, match=r"no complete answer within 0.5 s"):
        asyncio.run(ask(http(reply(ACTION)), stall_seconds=5.0, timeout_seconds=0.5))


def test_an_endpoint_that_is_not_there_is_a_runner_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        runner = RemoteRunner(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(RunnerError, match="is it running"):
            asyncio.run(runner.act("turn on the lamp"))
        asyncio.run(runner.close())


def test_a_sentence_that_is_too_long_is_not_sent() -> None:
    runner = RemoteRunner("http://127.0.0.1:1/v1")
    with pytest.raises(InputError):
        asyncio.run(runner.act("x" * 10_000))


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "127.0.0.1:80", "http://", "ftp://x/v1"])
def test_an_invalid_address_is_rejected(url: str) -> None:
    with pytest.raises(RunnerError, match="not an http address"):
        RemoteRunner(url)


def test_a_cloud_that_dies_midway_leaves_the_devices_answer(fake: Any) -> None:
    async def one() -> Any:
        async with endpoint(http(reply(ACTION), length=9999)) as (url, requests):
            router = Router(fake(confidence=0.1), RemoteRunner(url), Serve())
            try:
                return await router.act("turn on the lamp"), len(requests)
            finally:
                await router.close()

    answer, requests = asyncio.run(one())
    assert requests == 1
    assert answer.tier == "device"
    assert "the cloud tier failed" in answer.reason


@pytest.mark.parametrize("url", ["ftp://anna:secret@cloud/v1", "http//anna:secret@cloud/v1"])
def test_a_wrong_address_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(RunnerError, match="is not an http address") as refused:
        RemoteRunner(url)
    assert "cloud/v1" in str(refused.value)
    assert "secret" not in str(refused.value)
