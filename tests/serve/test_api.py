"""The HTTP API: the stock `openai` client, keys, tiers, failures, clients that disconnect."""

from __future__ import annotations

import asyncio
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
from tests.serve import client as http_client
from tests.serve.client import CHAT_PATH, HEAD, HELLO, address, chat, eventually, post

from tumen.core.errors import RunnerError
from tumen.core.events import Events
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


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=10) as one:
        yield one


def test_the_stock_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["pocket", "device"]


def test_the_stock_client_chats(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**HELLO)  # type: ignore[call-overload]
    answer = raw.parse()
    assert parse(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "pocket"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert raw.headers["x-tumen-route"] == answer.tumen["tier"] == "device"
    assert raw.headers["x-tumen-reason"] == answer.tumen["why"]
    confidence = float(raw.headers["x-tumen-confidence"])
    assert confidence == pytest.approx(answer.tumen["confidence"], abs=1e-4)
    assert raw.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("model", ["pocket", "device"])
@pytest.mark.parametrize("usage", [False, True])
def test_the_stock_client_streams(client: openai.OpenAI, model: str, usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    request: Any = {**HELLO, "model": model, "stream": True, **options}
    chunks = list(client.chat.completions.create(**request))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = client.chat.completions.create(**HELLO)  # type: ignore[call-overload]
    assert text == whole.choices[0].message.content
    assert [chunk.usage for chunk in chunks if chunk.usage] == ([whole.usage] if usage else [])
    last = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
    assert last.choices[0].finish_reason == "stop"
    assert last.tumen["tier"] == "device"


def test_the_runner_gets_the_users_last_message(fake: Any, running: Running) -> None:
    device = fake()
    parts = [{"type": "text", "text": "the"}, {"type": "text", "text": "second"}]
    messages = [
        {"role": "system", "content": "You are a lamp"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "prefill"},
    ]
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        assert chat(base, {"model": "pocket", "messages": messages})[0] == 200
    assert device.sentences == ["the second"]
    assert device.closed, "the server must close its runners when it shuts down"


def test_an_answer_says_what_the_words_say_about_the_act(fake: Any, running: Running) -> None:
    """A program that acts on the action alone would unlock the door."""

    def marks(sentence: str) -> list[dict[str, str]]:
        return [{"kind": "negative", "words": "don't"}] if "don't" in sentence else []

    with running(create_app(Router(fake(), None, SERVE), "pocket", marks=marks)) as base:
        wanted = {"model": "pocket", "messages": [{"role": "user", "content": "unlock it"}]}
        denied = {"model": "pocket", "messages": [{"role": "user", "content": "don't unlock it"}]}
        answer = chat(base, wanted)[2]["tumen"]
        assert (answer["marks"], answer["act_now"]) == ([], True)
        answer = chat(base, denied)[2]["tumen"]
        assert answer["marks"] == [{"kind": "negative", "words": "don't"}]
        assert answer["act_now"] is False


def test_health_needs_no_headers(url: str) -> None:
    assert post(url, b"", "/healthz", "GET", content_type="")[2] == {"status": "ok"}


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
def test_a_wrong_key_is_401(running: Running, fake: Any, given: str | None) -> None:
    with running(create_app(Router(fake(), None, SERVE), "pocket", key="s3cret")) as base:
        wrong = {"authorization": given} if given is not None else {}
        for path, method in ((CHAT_PATH, "POST"), ("/v1/models", "GET")):
            status, _, tree = post(base, json.dumps(HELLO).encode(), path, method, **wrong)
            assert (status, tree["error"]["type"]) == (401, "authentication_error")
        assert post(base, b"", "/healthz", "GET")[0] == 200


def test_the_right_key_may_come_from_any_host(running: Running, fake: Any) -> None:
    with running(create_app(Router(fake(), None, SERVE), "pocket", key="s3cret")) as base:
        elsewhere = {"host": "tumen.example", "origin": "https://a.example"}
        assert chat(base, HELLO, authorization="Bearer s3cret", **elsewhere)[0] == 200
        assert chat(base, HELLO, authorization="bearer s3cret", **elsewhere)[0] == 200


def test_the_stock_client_gets_an_authentication_error(running: Running, fake: Any) -> None:
    with (
        running(create_app(Router(fake(), None, SERVE), "pocket", key="s3cret")) as base,
        openai.OpenAI(base_url=base, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_the_model_chooses_the_tier(running: Running, fake: Any) -> None:
    device, cloud = fake(confidence=0.1), fake()
    with running(create_app(Router(device, cloud, SERVE), "pocket")) as base:
        assert chat(base, HELLO)[2]["tumen"]["tier"] == "cloud"
        assert chat(base, {**HELLO, "model": "device"})[2]["tumen"]["tier"] == "device"
        assert chat(base, {**HELLO, "model": "cloud"})[1]["x-tumen-route"] == "cloud"


def test_a_private_sentence_stays_on_the_device(running: Running, fake: Any) -> None:
    device, cloud = fake(confidence=0.1), fake()
    with running(create_app(Router(device, cloud, SERVE), "pocket")) as base:
        status, headers, tree = chat(base, HELLO, x_tumen_private="1")
        assert (status, headers["x-tumen-reason"]) == (200, "private")
        assert tree["tumen"]["tier"] == "device"
        for stream in (False, True):
            request = {**HELLO, "model": "cloud", "stream": stream}
            status, _, tree = chat(base, request, x_tumen_private="true")
            assert status == 400
            assert "private" in tree["error"]["message"]
    assert cloud.sentences == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["pocket", "device"])
def test_a_dead_runner_is_503(running: Running, fake: Any, stream: bool, model: str) -> None:
    device = fake(error=RunnerError("the runner died"))
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        status, headers, tree = chat(base, {**HELLO, "model": model, "stream": stream})
    assert status == 503
    assert headers["retry-after"]
    assert tree["error"]["message"] == "the runner died"


def test_a_bug_of_the_server_is_500_and_repeats_nothing_of_the_request(
    running: Running, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    events = Events(None)
    device = fake(error=KeyError("my secret sentence"))
    with running(create_app(Router(device, None, SERVE), "pocket", events=events)) as base:
        status, _, tree = chat(base, HELLO)
    assert (status, tree["error"]["code"]) == (500, "internal_error")
    assert (events.seen[0]["event"], events.seen[0]["kind"]) == ("server fault", "KeyError")
    assert "secret" not in json.dumps(tree) + json.dumps(events.seen) + caplog.text


def test_clients_do_not_notice_a_child_killed_between_requests(
    running: Running, bundle: Path
) -> None:
    runner = load_runner(bundle)
    with running(create_app(Router(runner, None, SERVE), "pocket")) as base:
        before = chat(base, HELLO)[2]["choices"]
        assert runner.pid
        os.kill(runner.pid, signal.SIGKILL)
        assert chat(base, HELLO)[2]["choices"] == before


def test_a_stream_that_fails_midway_ends_with_an_error_and_without_done(
    running: Running, fake: Any
) -> None:
    class Breaks(fake):  # type: ignore[misc]
        async def stream(self, sentence: str) -> Any:
            yield "{"
            raise RunnerError("the runner died")

    request: Any = {**HELLO, "model": "device", "stream": True}
    with running(create_app(Router(Breaks(), None, SERVE), "pocket")) as base:
        events = http_client.stream(base, request)
        with (
            openai.OpenAI(base_url=base, api_key="x", max_retries=0) as client,
            pytest.raises(openai.APIError, match="died"),
        ):
            list(client.chat.completions.create(**request))
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "runner_failed"
    assert b"data: [DONE]" not in events


def test_a_stream_stops_when_the_client_disconnects(running: Running, fake: Any) -> None:
    device = fake()
    device.pause_seconds = 0.05  # 50 s in all
    body = json.dumps({**HELLO, "model": "device", "stream": True}).encode()
    head = (HEAD + f"content-length: {len(body)}\n\n").replace("\n", "\r\n").encode()
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        with socket.create_connection(address(base), timeout=10) as line:
            line.sendall(head + body)
            assert b" 200 " in line.recv(4096)
            assert eventually(lambda: device.pieces_sent >= 2)
        left_at, sent = time.monotonic(), device.pieces_sent
        assert eventually(lambda: device.stopped_early)
        assert time.monotonic() - left_at < 5
        assert device.pieces_sent < sent + 100


def test_more_requests_than_may_wait_are_429(
    running: Running, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumen.serve.api.MAX_CONCURRENT", 1)
    release = asyncio.Event()

    class Slow(fake):  # type: ignore[misc]
        async def act(self, sentence: str) -> Any:
            self.loop = asyncio.get_running_loop()
            if not self.sentences:
                self.sentences.append(sentence)
                await release.wait()
            return await fake().act(sentence)

    device = Slow()
    with running(create_app(Router(device, None, SERVE), "pocket")) as base:
        first = http.client.HTTPConnection(*address(base), timeout=10)
        first.request("POST", CHAT_PATH, json.dumps(HELLO), {"content-type": "application/json"})
        assert eventually(lambda: bool(device.sentences))
        status, headers, tree = chat(base, HELLO)
        assert (status, tree["error"]["code"]) == (429, "too_many_requests")
        assert headers["retry-after"] == "1"
        device.loop.call_soon_threadsafe(release.set)
        assert first.getresponse().status == 200
        first.close()
        assert chat(base, HELLO)[0] == 200
