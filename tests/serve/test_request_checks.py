"""Checks before a body is parsed: caller, headers, size, time, JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from tumen.serve import request_checks
from tumen.serve.request_checks import (
    MAX_BODY_BYTES,
    RequestError,
    check_caller,
    check_private,
    parse_body,
    read_body,
)

JSON = {"content-type": "application/json"}


def request(headers: dict[str, str], *blocks: bytes, disconnect: bool = False) -> Request:
    """A request whose body arrives in these blocks; without any it never arrives."""
    messages = [{"type": "http.request", "body": block, "more_body": True} for block in blocks]
    if messages:
        messages[-1]["more_body"] = disconnect
    if disconnect:
        messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


def status_of(headers: dict[str, str], *blocks: bytes, **options: Any) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        asyncio.run(read_body(request(headers, *blocks, **options)))
    return caught.value.status, caught.value.code


class TestCaller:
    @pytest.mark.parametrize(
        "headers",
        [
            {"host": "127.0.0.1:8765"},
            {"host": "localhost"},
            {"host": "[::1]:80"},
            {"host": "localhost", "origin": "http://localhost:3000"},
        ],
    )
    def test_programs_on_this_machine_need_no_key(self, headers: dict[str, str]) -> None:
        check_caller(request(headers), None)

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"host": ""},
            {"host": "evil.example"},
            {"host": "127.0.0.1.evil.example"},
            {"host": "[::1"},
            {"host": "localhost", "origin": "https://evil.example"},
            {"host": "localhost", "origin": "null"},
        ],
    )
    def test_without_a_key_others_are_403(self, headers: dict[str, str]) -> None:
        with pytest.raises(RequestError) as caught:
            check_caller(request(headers), None)
        assert (caught.value.status, caught.value.code) == (403, "not_local")

    @pytest.mark.parametrize("given", ["Bearer key", "bearer key", "BEARER key"])
    def test_the_right_key_passes_from_any_host(self, given: str) -> None:
        check_caller(request({"host": "a.example", "authorization": given}), "key")

    @pytest.mark.parametrize(
        "given", [None, "", "key", "Basic key", "Bearer", "Bearer ", "Bearer Key", "Bearer key2"]
    )
    def test_a_wrong_key_is_401(self, given: str | None) -> None:
        headers = {"host": "localhost"}
        if given is not None:
            headers["authorization"] = given
        with pytest.raises(RequestError) as caught:
            check_caller(request(headers), "key")
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


class TestBody:
    def test_a_body_in_blocks_is_read_whole(self) -> None:
        assert asyncio.run(read_body(request(JSON, b"{", b"", b"}"))) == b"{}"

    @pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
    def test_json_with_parameters_is_json(self, media_type: str) -> None:
        assert asyncio.run(read_body(request({"content-type": media_type}, b"{}"))) == b"{}"

    @pytest.mark.parametrize("media_type", ["", "text/plain", "application/jsonx"])
    def test_another_media_type_is_415(self, media_type: str) -> None:
        status = status_of({"content-type": media_type}, b"{}")
        assert status == (415, "unsupported_media_type")

    def test_a_compressed_body_is_415(self) -> None:
        status = status_of(JSON | {"content-encoding": "gzip"}, b"{}")
        assert status == (415, "unsupported_encoding")
        identity = request(JSON | {"content-encoding": "Identity"}, b"{}")
        assert asyncio.run(read_body(identity)) == b"{}"

    def test_the_limit_of_a_body_is_64_kib(self) -> None:
        assert MAX_BODY_BYTES == 65536
        whole = asyncio.run(read_body(request(JSON, b"x" * 65535, b"y")))
        assert len(whole) == 65536
        assert status_of(JSON, b"x" * 65536, b"y") == (413, "request_too_large")

    def test_a_length_beyond_the_limit_is_413_before_anything_is_read(self) -> None:
        too_long = JSON | {"content-length": "65537"}
        assert status_of(too_long) == (413, "request_too_large")

    def test_a_slow_body_is_408(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request_checks, "BODY_SECONDS", 0.05)
        assert status_of(JSON) == (408, "request_timeout")

    def test_a_client_that_disconnects_is_400(self) -> None:
        assert status_of(JSON, b"{", disconnect=True) == (400, "client_gone")


class TestJson:
    def test_an_object_is_parsed(self) -> None:
        assert parse_body(b'{"a": [1, "\xc3\xa4"]}') == {"a": [1, "ä"]}

    @pytest.mark.parametrize(
        ("body", "fragment"),
        [
            (b"", "not valid JSON"),
            (b"[]", "not an object"),
            (b"null", "not an object"),
            (b'{"a":1,"a":2}', "twice"),
            (b'{"a":NaN}', "NaN"),
            (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than 32"),
            (b"\xff", "not UTF-8"),
        ],
    )
    def test_anything_else_is_400(self, body: bytes, fragment: str) -> None:
        with pytest.raises(RequestError, match=fragment) as caught:
            parse_body(body)
        assert (caught.value.status, caught.value.code) == (400, "invalid_json")


class TestPrivate:
    @pytest.mark.parametrize(
        ("value", "private"),
        [
            ("1", True),
            ("true", True),
            ("TRUE", True),
            (" 1 ", True),
            ("0", False),
            ("False", False),
        ],
    )
    def test_the_header_decides(self, value: str, private: bool) -> None:
        assert check_private(request({"x-tumen-private": value})) is private

    @pytest.mark.parametrize("values", [("0", "1"), ("1", "0"), ("0", "0", "true")])
    def test_one_of_several_headers_is_enough(self, values: tuple[str, ...]) -> None:
        raw = [(b"x-tumen-private", value.encode()) for value in values]
        assert check_private(Request({"type": "http", "headers": raw}))

    def test_a_typing_error_in_any_header_is_rejected(self) -> None:
        raw = [(b"x-tumen-private", b"0"), (b"x-tumen-private", b"yse")]
        with pytest.raises(RequestError, match="must be 1 or 0"):
            check_private(Request({"type": "http", "headers": raw}))

    def test_without_the_header_a_sentence_is_not_private(self) -> None:
        assert check_private(request({})) is False

    @pytest.mark.parametrize("value", ["", "maybe", "yes", "2", "1, 0"])
    def test_an_unclear_value_is_400(self, value: str) -> None:
        with pytest.raises(RequestError) as caught:
            check_private(request({"x-tumen-private": value}))
        assert (caught.value.status, caught.value.param) == (400, "x-tumen-private")
