"""The remote runner against our own app, and against endpoints that lie, stall, break off or are not there."""

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
from tumen.recipe.recipe import Serve
from tumen.serve import Router, create_app
from tumen.serve.runners import Completion, DeviceRunner, RemoteRunner
from tumen.serve.runners.remote_runner import action_schema

SAID = '{"lang":"en","intent":"HassTurnOn","name":"lamp"}'
CHUNK = json.dumps({"choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": None}]})


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
    """A server that sends these bytes to whoever asks, and what it heard."""
    heard: list[bytes] = []
    over, done = asyncio.Event(), asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        heard.append(head + await reader.readexactly(length))
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
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", heard
    finally:
        over.set()
        for _ in heard:
            await done.acquire()
        server.close()


async def ask(answer: bytes, stream: bool = False, stall: float = 0.0) -> Completion:
    async with endpoint(answer, stall) as (url, _):
        runner = RemoteRunner(url, "big", patience_seconds=0.5)
        try:
            if not stream:
                return await runner.act("turn on the lamp")
            *_, last = [piece async for piece in runner.stream("turn on the lamp")]
            assert isinstance(last, Completion)
            return last
        finally:
            await runner.close()


def test_our_own_app_is_an_endpoint_like_any_other(
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
    """Lends a shared runner to an app that closes what it is given."""

    def __init__(self, runner: DeviceRunner) -> None:
        self.name, self.act, self.stream = runner.name, runner.act, runner.stream

    async def close(self) -> None:
        pass


def test_what_is_sent_and_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")

    async def one() -> tuple[Completion, bytes]:
        usage = {"prompt_tokens": 7, "completion_tokens": -1}
        async with endpoint(http(reply(SAID, usage=usage, tumen={"confidence": 0.25}))) as (
            url,
            heard,
        ):
            runner = RemoteRunner(url, "big", "MY_KEY")
            done = await runner.act("Turn ON the lamp!")
            await runner.close()
            return done, heard[0]

    done, heard = asyncio.run(one())
    assert (done.text, done.confidence, done.prompt_tokens, done.completion_tokens) == (
        SAID,
        0.25,
        7,
        0,
    )
    head, _, body = heard.partition(b"\r\n\r\n")
    assert b"Bearer s3cret" in head
    sent = json.loads(body)
    assert sent["messages"] == [{"role": "user", "content": "turn on the lamp"}]
    assert sent["response_format"]["json_schema"]["schema"] == action_schema()


ANSWERS = {
    "not an action": (http(reply("Sure! I turned on the lamp.")), "no action"),
    "no text": (http(reply(None)), "no action"),
    "an intent that does not exist": (
        http(reply('{"lang":"en","intent":"OpenBomb"}')),
        "no action",
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
    "an empty name": (http(reply('{"lang":"en","intent":"HassTurnOn","name":""}')), "no action"),
    "no choices": (http(b"{}"), "no action"),
    "a list": (http(b"[]"), "no JSON object"),
    "a web page": (http(b"<html>hello"), "no JSON object"),
    "nested 60000 deep": (http(b"[" * 60000), "no JSON object"),
    "endless": (http(b" " * (1 << 19)), "more than"),
    "cut off": (http(reply(SAID), length=9999), "while asking"),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "while asking"),
    "no answer": (b"", "while asking"),
    "500": (http(b"oops", "500 Internal Server Error"), "HTTP 500"),
    "401": (http(b"no", "401 Unauthorized"), r"HTTP 401; check the key in \$TUMEN_CLOUD_KEY"),
    "a redirect": (
        http(b"", "307 Temporary Redirect", extra="location: http://127.0.0.1:1/\r\n"),
        "HTTP 307",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_none_are_runner_errors(name: str) -> None:
    answer, says = ANSWERS[name]
    with pytest.raises(RunnerError, match=says) as caught:
        asyncio.run(ask(answer))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (f"data: {CHUNK}\n\n", "broke off"),
        (f"data: {CHUNK}\n\ndata: [DONE]\n\n", "broke off"),
        ('data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', "no action"),
        (f"data: {CHUNK}\n\ndata: {{nonsense\n\n", "no JSON object"),
        (f"data: {CHUNK}\n\n" * 6000, "more than"),
        ("", "broke off"),
    ],
)
def test_streams_that_are_not_whole_are_runner_errors(body: str, says: str) -> None:
    with pytest.raises(RunnerError, match=says):
        asyncio.run(ask(http(body.encode()), stream=True))


def test_a_stream_cut_in_a_chunk_is_a_runner_error() -> None:
    with pytest.raises(RunnerError, match="while asking"):
        asyncio.run(ask(http(f"data: {CHUNK[:20]}".encode(), length=5000), stream=True))


def test_patience_ends() -> None:
    with pytest.raises(RunnerError, match=r"no whole answer in 0.5 s"):
        asyncio.run(ask(http(reply(SAID)), stall=1.5))


def test_nobody_there_is_a_runner_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        runner = RemoteRunner(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(RunnerError, match="is it running"):
            asyncio.run(runner.act("turn on the lamp"))
        asyncio.run(runner.close())


def test_a_bad_sentence_is_not_sent() -> None:
    runner = RemoteRunner("http://127.0.0.1:1/v1")
    with pytest.raises(InputError):
        asyncio.run(runner.act("x" * 10_000))


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "127.0.0.1:80", "http://", "ftp://x/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(RunnerError, match="no http address"):
        RemoteRunner(url)


def test_a_cloud_that_dies_midway_leaves_the_device_answer(fake: Any) -> None:
    async def one() -> Any:
        async with endpoint(http(reply(SAID), length=9999)) as (url, heard):
            router = Router(fake(confidence=0.1), RemoteRunner(url), Serve())
            try:
                return await router.act("turn on the lamp"), len(heard)
            finally:
                await router.close()

    answer, heard = asyncio.run(one())
    assert heard == 1
    assert answer.tier == "device"
    assert "the cloud tier failed" in answer.why
